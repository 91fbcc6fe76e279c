"""The command line, `actionvit COMMAND`. Each command is a module of `actionvit.commands`, imported when called."""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from actionvit import __version__
from actionvit.commands.command import configure_logging
from actionvit.commands.terminal import ENCODE_ERRORS
from actionvit.errors import ActionVitError, SettingError

COMMANDS = {
    "demo": "Run the whole pipeline offline on synthetic clips.",
    "data": "Download, inspect and split datasets.",
    "extract": "Stage 1: decode videos and cache their embeddings.",
    "probe": "Stage 2: train a classifier head on cached embeddings.",
    "finetune": "Stage 2: train the head, the last blocks or the whole encoder.",
    "sweep": "Compare frames, sizes, variants and heads by cost and accuracy.",
    "experiment": "Compare heads, class weightings, imbalance and splits.",
    "report": "Stage 3: write per-class reports and paired comparisons.",
    "predict": "Predict the classes of new videos.",
    "attention": "Draw the encoder's attention over videos.",
    "export": "Export a run's model for transformers.",
    "cache": "List, verify, merge, export and prune cached embeddings.",
    "weights": "Inspect and convert encoder weights.",
    "doctor": "Show versions, devices and the expected speed of this machine.",
}


DISK_ERRORS = (
    errno.EIO,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EMFILE,
    errno.ENFILE,
    errno.EROFS,
    errno.ESTALE,
)
"""Errors of the machine, which may come without the name of a file."""


WRONG_USAGE = click.UsageError.exit_code


class _Interrupted(BaseException):
    """Ctrl-C while a command ran."""


class LazyGroup(click.Group):
    """A group that imports a command's module when that command is called, so that `--help` stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import `actionvit.commands.NAME` and return its `command`."""
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"actionvit.commands.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an interruption passes click's own handling."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise _Interrupted from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, "-V", "--version", prog_name="actionvit")
def cli() -> None:
    """Cache video-transformer embeddings of action videos once, then train and compare classifier heads in seconds.

    Exit codes: 0 success; 1 error, or Ctrl-C; 2 wrong usage; 3 finished, but some videos failed (listed in
    failures.csv).
    """


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line. An `ActionVitError`, or an unusable file, becomes one line and an exit code.

    The code is 2 for a wrong setting, such as a store or device that does not exist, and otherwise 1.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=ENCODE_ERRORS)
    configure_logging()
    try:
        cli.main(args=list(args) if args is not None else None, prog_name="actionvit", standalone_mode=True)
    except _Interrupted:
        _leave()
    except ActionVitError as error:
        _fail(str(error), WRONG_USAGE if isinstance(error, SettingError) else 1)
    except OSError as error:
        if error.filename is not None:
            _fail(f"{os.fsdecode(error.filename)}: {error.strerror}; fix this, or choose another path")
        if error.errno not in DISK_ERRORS:
            raise
        _fail(f"{error.strerror}; check the disk and the limits of this process, and run the command again")


def _leave() -> NoReturn:
    """End an interrupted process with exit code 1, without waiting for threads that still compute.

    Otherwise a thread in compiled code could outlive the interpreter and abort the process (`terminate called`).
    """
    click.echo("\nAborted!", err=True)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(1)


def _fail(message: str, code: int = 1) -> NoReturn:
    click.echo(f"error: {message}", err=True)
    sys.exit(code)
