"""The front door: `actionvit COMMAND`. Commands live in `actionvit.commands`, one module each, loaded when called."""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from actionvit import __version__
from actionvit.errors import ActionVitError

COMMANDS = {
    "demo": "the whole of it, offline, on clips it draws itself",
    "data": "fetch a dataset; say what is there, what is broken, what leaks",
    "extract": "stage 1: decode, sample, embed, cache",
    "probe": "stage 2: a classifier head on cached embeddings",
    "finetune": "stage 2: train the head, the last blocks, or all of the encoder",
    "sweep": "frames × sizes × variants × heads: what is not cached is embedded, then one table and one plot",
    "experiment": "heads, class imbalance and splits compared over cached embeddings",
    "report": "stage 3: per-class reports; several runs are compared, paired",
    "predict": "classes of new videos, by what a run learned",
    "attention": "where in a video an encoder looks, as pictures",
    "export": "what a run learned, as a model for transformers",
    "cache": "look at, verify, merge, export and prune cached embeddings",
    "weights": "look at, convert and inflate encoder weights",
    "doctor": "what this machine can do",
}


class LazyGroup(click.Group):
    """A group that imports a command's module when that command is called, so that `--help` stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import `actionvit.commands.NAME` and return its `command`."""
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"actionvit.commands.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, "-V", "--version", prog_name="actionvit")
def cli() -> None:
    """Turn a folder of action videos into cached TimeSformer embeddings once; ask about classifier heads in seconds.

    Exit codes: 0 done; 1 an error, in one line; 2 wrong usage; 3 done, but some clips failed (they are in a ledger).
    """


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; an `ActionVitError`, or a file that cannot be used, becomes one line and exit code 1."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(
            errors="surrogateescape"
        )  # a path may hold bytes that are no text; print them as they are
    try:
        cli.main(args=list(args) if args is not None else None, prog_name="actionvit", standalone_mode=True)
    except ActionVitError as error:
        _fail(str(error))
    except OSError as error:
        if error.filename is None:  # no file that its user could mend
            raise
        _fail(f"{error.filename}: {error.strerror}; mend that, or name another place")


def _fail(message: str) -> NoReturn:
    click.echo(f"error: {message}", err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
