"""The class of every command: options in groups, examples at the end of its help, and `-v` and `-q`."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import click
from click.core import ParameterSource

from actionvit.errors import ActionVitError, SettingError

GROUPS: dict[str, tuple[str, ...]] = {
    "Data": (
        *("--dataset-name", "--format", "--list", "--skip-missing", "--splits-dir", "--root", "--videos", "--from"),
        *("--count", "--length", "--window-stride", "--decode"),
    ),
    "Splits": (
        "--protocol",
        "--folds",
        "--test-fraction",
        "--split",
        "--test-split",
        "--select-on",
        "--seed",
        "--seeds",
    ),
    "Cache": (
        *("--cache", "--flush-seconds", "--flush-mib", "--wait", "--verify", "--repair", "--retry-failed", "--shard"),
        *("--store", "--include", "--tokens", "--cached-views", "--token-precision", "--frame-cache-gib"),
    ),
    "Views": (
        *("--num-frames", "--size", "--sampling", "--stride", "--num-clips", "--crops", "--flip"),
        *("--view-aggregation", "--features"),
    ),
    "Model": (
        *("--variant", "--encoder", "--weights", "--head", "--head-init", "--frame-pool", "--save-layers"),
        *("--save-tokens-after", "--train", "--fuse", "--final", "--refit"),
    ),
    "Classes": (
        *("--balanced", "--class-weight", "--sampler", "--logit-adjustment", "--focal-gamma", "--label-smoothing"),
        *("--long-tail", "--shots", "--factors"),
    ),
    "Selection": ("--selection-metric", "--grid", "--calibrate", "--val-fraction", "--epochs", "--patience"),
    "Optimizer": (
        *("--batch-size", "--micro-batch-size", "--lr", "--layer-decay", "--weight-decay", "--warmup-fraction"),
        *("--stochastic-depth", "--max-grad-norm", "--ema-decay"),
    ),
    "Augmentation": (
        *("--augment", "--min-duration", "--min-crop-area", "--augment-flip", "--no-flip-class", "--color-ops"),
        *("--magnitude", "--mixup", "--cutmix"),
    ),
    "Machine": (
        *("--device", "--precision", "--compile", "--activation-checkpointing", "--workers", "--timeout", "--backend"),
        *(
            "--on-corrupt",
            "--jobs",
            "--engine",
            "--address",
            "--shards",
            "--rank-sampling",
            "--rank-timeout",
            "--checkpoint-every",
        ),
    ),
    "Output": (
        *("--output", "--runs", "--run", "--run-name", "--overwrite", "--restart", "--resume", "--dry-run", "--top"),
        *("--thumbnails", "--embeddings", "--attention", "--projection", "--animate", "--push", "--yes", "--json"),
        *("--verbose", "--quiet", "--help"),
    ),
}
"""The group of every option; a name means the same in every command."""

GROUP_OF = {name: group for group, names in GROUPS.items() for name in names}


WARNINGS = "actionvit.warnings"
"""Key of the context's `meta` that holds the collector of a command's warnings."""


def long_name(option: click.Parameter) -> str:
    """Return an option's first long name, such as `--num-frames`."""
    return next((name for name in option.opts if name.startswith("--")), option.opts[0])


OTHER_NAMES = {"name": "dataset_name", "lists": "list", "weights": "source"}
"""Settings of the library whose option or argument has another name."""

SETTING = r"""
    `[^`]*` | (?<!\w)'[^']*'(?!\w) | (?<!\w)"[^"]*"(?!\w)  # a path, a name or a whole command: not translated
    | ^(?P<field>[a-z][a-z_]*)(?=:\ )
    | (?<![\w./-])(?P<name>[a-z][a-z_]*)=(?P<value>(?:[^\s,;()`]*[^\s,;:()`])?)"""
"""Verbose pattern of a setting in a message, and of quoted text."""


def with_options(text: str, command: click.Command | None = None) -> str:
    """Return a library's message with the settings that the command takes written as its options.

    A message writes a setting as `size: got ...` at its start, and as `run_name=`, `size=224` or `wait=True`
    elsewhere; these become `--size: got ...`, `--run-name`, `--size 224` and `--wait`. Quoted text and the values that
    the user gave are not translated. `command` is the running one by default.
    """
    command = command or Command.running
    if command is None:
        return text
    options = {long_name(option).lstrip("-").replace("-", "_"): option for option in command.params}

    def translate(match: re.Match[str]) -> str:
        name, value = match["field"] or match["name"], match["value"]
        if not name or (match["field"] in Command.values and not text.startswith(f"{name}: got ")):
            return match[0]
        option = options.get(name) or options.get(OTHER_NAMES.get(name, ""))
        if option is None:
            return match[0]
        if isinstance(option, click.Argument):
            return f"{value} as {option.human_readable_name}" if value else option.human_readable_name
        if value == "False" and option.secondary_opts:
            return option.secondary_opts[0]
        return long_name(option) + (f" {value}" if value and value != "True" else "")

    given = [re.escape(value) for value in sorted(Command.values, key=len, reverse=True) if "=" in value]
    return re.sub(" | ".join([*given, SETTING]), translate, text, flags=re.VERBOSE)


def _values(context: click.Context) -> frozenset[str]:
    """Return the texts and paths that the user gave, and the names of the paths, which become names of datasets."""
    texts = set()
    for value in context.params.values():
        for part in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(part, Path):
                texts |= {str(part), part.absolute().name, part.absolute().stem}
            elif isinstance(part, str):
                texts.add(part)
    return frozenset(texts)


@contextmanager
def usage_errors() -> Iterator[None]:
    """Raise a library's ValueError as a usage error that names the options."""
    try:
        yield
    except ValueError as error:
        raise click.UsageError(with_options(str(error))) from error


class Command(click.Command):
    """A command whose help lists its options by group, and that takes `-v` and `-q`."""

    running: ClassVar[click.Command | None] = None
    """The command invoked last; log messages of all threads use its option names."""
    values: ClassVar[frozenset[str]] = frozenset()
    """The texts and paths given to it."""

    def __init__(self, *args: Any, examples: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = [line for line in examples.strip().splitlines() if line.strip()]
        self.params += [
            click.Option(
                ["-v", "--verbose"],
                count=True,
                expose_value=False,
                callback=_verbose,
                help="Log more; -vv: everything.",
            ),
            click.Option(
                ["-q", "--quiet"], is_flag=True, expose_value=False, callback=_quiet, help="No progress, no notes."
            ),
        ]

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, collecting the warnings that it logs; the library's errors name its options."""
        Command.running, Command.values = self, _values(ctx)
        collector, logger = _Collector(), logging.getLogger("actionvit")
        ctx.meta[WARNINGS] = collector
        logger.addHandler(collector)
        try:
            return super().invoke(ctx)
        except ActionVitError as error:
            kind = SettingError if isinstance(error, SettingError) else ActionVitError
            raise kind(with_options(str(error))) from error
        finally:
            logger.removeHandler(collector)

    def get_help_option_names(self, ctx: click.Context) -> list[str]:
        """Return the names of the help option, the same in every context."""
        return ["-h", "--help"]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section per group of options, in the order of `GROUPS`."""
        rows: dict[str, list[tuple[str, str]]] = {group: [] for group in (*GROUPS, "Options")}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Argument):
                continue
            record = parameter.get_help_record(ctx)
            if record is not None:
                rows[GROUP_OF.get(long_name(parameter), "Options")].append(record)
        for group, records in rows.items():
            if records:
                with formatter.section(group):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples unchanged, one per line."""
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{line.strip()}\n")


def given_options(names: Collection[str]) -> dict[str, str]:
    """Return the options among some parameters of the running command that were given to it, by parameter."""
    context = click.get_current_context()
    return {
        option.name: long_name(option)
        for option in context.command.params
        if option.name in names and context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE
    }


def refuse_options(reason: str, *names: str) -> None:
    """Raise a usage error if one of these parameters was given, which has no effect for the reason stated."""
    for option in given_options(names).values():
        raise click.UsageError(f"{reason}; leave out {option}")


class Group(click.Group):
    """A group whose commands are of class `Command`."""

    command_class = Command
    group_class = type


def is_quiet(ctx: click.Context | None = None) -> bool:
    """Return whether `-q` was given to the running command."""
    context = ctx or click.get_current_context(silent=True)
    return bool(context and context.find_root().meta.get("actionvit.quiet"))


def is_verbose() -> bool:
    """Return whether `-v` was given to the running command."""
    return bool(click.get_current_context().find_root().meta.get("actionvit.verbose"))


def _verbose(ctx: click.Context, _param: click.Parameter, count: int) -> None:
    if count:
        ctx.find_root().meta["actionvit.verbose"] = True
        set_level(logging.INFO if count == 1 else logging.DEBUG)


def _quiet(ctx: click.Context, _param: click.Parameter, quiet: bool) -> None:
    if quiet:
        ctx.find_root().meta["actionvit.quiet"] = True
        set_level(logging.ERROR)


def message_line(text: str) -> str:
    """Return a message as one line that names the command's options."""
    return with_options(" ".join(text.splitlines()))


class _Collector(logging.Handler):
    """Keep the texts of a command's warnings, each once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.add(message_line(record.getMessage()))

    def add(self, line: str) -> bool:
        """Keep a warning; return whether it is new."""
        if new := line not in self.texts:
            self.texts.append(line)
        return new


def command_warnings() -> list[str]:
    """Return the warnings of the running command so far."""
    collector: _Collector = click.get_current_context().meta[WARNINGS]
    return list(collector.texts)


def warn(text: str) -> None:
    """Write a warning to stderr once, and keep it for the command's JSON."""
    line = message_line(text)
    if click.get_current_context().meta[WARNINGS].add(line) and not is_quiet():
        write_line(f"warning: {line}")


def note(text: str) -> None:
    """Write information to stderr, unless `-q` is given."""
    if not is_quiet():
        write_line(text)


class _Lines(logging.Handler):
    """Write log records to stderr as `warning: text`, each text once, above a progress bar if there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.written: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = message_line(record.getMessage())
        if text in self.written:
            return
        self.written.add(text)
        prefix = {logging.INFO: "info", logging.DEBUG: "debug"}.get(record.levelno, record.levelname.lower())
        write_line(f"{prefix}: {text}")


def write_line(text: str, *, err: bool = True) -> None:
    """Write a line to stderr or stdout; a progress bar on the terminal moves below it."""
    import sys

    tqdm = sys.modules.get("tqdm")
    if tqdm is not None and getattr(tqdm.tqdm, "_instances", None):
        with tqdm.tqdm.external_write_mode(file=sys.stderr):
            click.echo(text, err=err)
    else:
        click.echo(text, err=err)


def configure_logging() -> None:
    """Send the package's log to stderr, warnings and above until `-v` or `-q` changes that."""
    logger = logging.getLogger("actionvit")
    if not any(isinstance(handler, _Lines) for handler in logger.handlers):
        logger.addHandler(_Lines())
        logger.propagate = False
    logger.setLevel(logging.WARNING)


def set_level(level: int) -> None:
    """Write the package's records from this level on; warnings are collected at any level."""
    logger = logging.getLogger("actionvit")
    logger.setLevel(min(level, logging.WARNING))
    for handler in logger.handlers:
        if isinstance(handler, _Lines):
            handler.setLevel(level)
