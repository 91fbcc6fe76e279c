"""Options that several commands share. Each is defined once, so that its name has the same meaning in every command."""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from actionvit import escape
from actionvit.commands.command import command_warnings
from actionvit.errors import SettingError

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)
DEFAULTS = {"root": "data/hmdb51", "cache": "features-cache", "runs": "runs"}


class FiniteRange(click.FloatRange):
    """A finite number in a range: `inf` and `nan` are refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number, or fail with a one-line error."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"got {value}, expected a finite number", param, ctx)
        return number


def setting(name: str) -> Path:
    """Return the path of root, cache or runs: from `ACTIONVIT_*`, else from `actionvit.toml`, else the default."""
    if value := os.environ.get(f"ACTIONVIT_{name.upper()}"):
        return Path(value)
    file = Path("actionvit.toml")
    if file.is_file():
        import tomllib

        from actionvit.pipeline.datasets.textfile import read_text

        try:
            settings = tomllib.loads(read_text(file, strict=True))
        except (OSError, ValueError) as error:
            raise click.UsageError(f"actionvit.toml: {error}") from error
        if unknown := sorted(settings.keys() - DEFAULTS.keys()):
            raise click.UsageError(f"actionvit.toml: got {unknown[0]}, expected {', '.join(DEFAULTS)}")
        if name in settings:
            if not isinstance(settings[name], str):
                raise click.UsageError(f"actionvit.toml: {name}: got {settings[name]!r}, expected a path in quotes")
            return Path(os.path.expanduser(settings[name]))  # noqa: PTH111 - an unknown user is left as it is
    return Path(DEFAULTS[name])


MAXIMUM = 1_000_000
"""Of the numbers in a comma list."""


def numbers(kind: Callable[[str], Any], minimum: float = 1) -> Callable[..., tuple[Any, ...]]:
    """Return a callback for a repeatable option of numbers that also takes comma lists, such as `4,8,16`."""

    def parse(_ctx: click.Context, _param: click.Parameter, words: Sequence[str]) -> tuple[Any, ...]:
        texts = [part.strip() for text in words for part in text.split(",") if part.strip()]
        try:
            values = tuple(dict.fromkeys(kind(text) for text in texts))
        except ValueError:
            values = ()
        if words and (not values or not all(minimum <= value <= MAXIMUM for value in values)):
            example = max(minimum, 4)
            expected = f"numbers of at least {minimum:g} and at most {MAXIMUM:,}, such as {example:g},{2 * example:g}"
            raise click.BadParameter(f"got {','.join(words)!r}, expected {expected}")
        return values

    return parse


def words(choices: Sequence[str] | None = None) -> Callable[..., tuple[str, ...]]:
    """Return a callback for a repeatable option of words that also takes comma lists, such as `base,hr`."""

    def parse(_ctx: click.Context, _param: click.Parameter, words: Sequence[str]) -> tuple[str, ...]:
        values = tuple(dict.fromkeys(part.strip() for text in words for part in text.split(",") if part.strip()))
        if (words and not values) or (choices is not None and set(values) - set(choices)):
            expected = f"some of {', '.join(choices)}" if choices is not None else "a word, or several such as A,B"
            raise click.BadParameter(f"got {','.join(words)!r}, expected {expected}")
        return values

    return parse


def several(*names: str, choices: Sequence[str] | None = None, **kwargs: Any) -> Callable[[F], F]:
    """Return an option that takes several words, repeated or as a comma list."""
    return click.option(*names, multiple=True, callback=words(choices), **kwargs)


def several_numbers(
    *names: str, kind: Callable[[str], Any] = int, minimum: float = 1, **kwargs: Any
) -> Callable[[F], F]:
    """Return an option that takes several numbers, repeated or as a comma list."""
    return click.option(*names, multiple=True, callback=numbers(kind, minimum), **kwargs)


def together(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Return one decorator that adds several options in the order given."""

    def add(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return add


def packed(name: str, kind: Callable[..., Any], fields: Sequence[str], *options: Callable[[F], F]) -> Callable[[F], F]:
    """Return a decorator that adds options and passes their values, `fields`, on as one object, `name=kind(...)`."""

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def call(*args: Any, **values: Any) -> Any:
            settings = {field: values.pop(field) for field in fields}
            try:
                values[name] = kind(**settings)
            except ValueError as error:
                raise SettingError(str(error)) from error
            return function(*args, **values)

        return together(*options)(call)  # type: ignore[arg-type]

    return decorate


def root_argument(function: F) -> F:
    """Add ROOT, the dataset's folder or list file."""
    return click.argument("root", type=PATH, required=False, default=lambda: setting("root"))(function)


seed_option = click.option(
    "--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Random seed."
)
cache_option = click.option(
    "--cache",
    type=PATH,
    default=lambda: setting("cache"),
    help="Folder of cached embeddings.  [default: features-cache]",
)
runs_option = click.option(
    "--runs", type=PATH, default=lambda: setting("runs"), help="Folder of runs.  [default: runs]"
)
run_name_option = click.option(
    "--run-name",
    help="Name of the new run.  [default: built from the non-default options, e.g. base-linear-balanced]",
)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace an existing run or file of that name.")
jobs_option = click.option(
    "--jobs", type=click.IntRange(1), default=2, show_default=True, help="Splits that are processed in parallel."
)


def output_option(default: str = "", *, required: bool = False, **kwargs: Any) -> Callable[[F], F]:
    """Return `-o/--output`, the file or folder that a command writes."""
    text = "Where to write." + (f"  [default: {default}]" if default else "")
    return click.option("-o", "--output", "out", type=PATH, required=required, help=text, **kwargs)


VARIANT_HELP = "Encoder variant: base, hr, large, tiny or tiny-hr."
variant_option = click.option("--variant", default="base", show_default=True, help=VARIANT_HELP)
weights_option = click.option(
    "--weights",
    metavar="SRC",
    help="Encoder weights: local folder, hub id, .pyth file or `untrained`.  [default: the variant's]",
)
stored_options = packed(
    "stored",
    dict,
    ("num_frames", "size", "stores"),
    click.option("--num-frames", type=click.IntRange(1), help="Frames per view (T).  [default: those cached]"),
    click.option("--size", type=click.IntRange(1), help="Side of a view in pixels (S).  [default: the one cached]"),
    click.option(
        "--store",
        "stores",
        multiple=True,
        metavar="NAME",
        help="Store to read: its folder's name (see `cache ls`), or the name or sha256 of its weights.",
    ),
)
"""Choice among a variant's stores, passed to the command as `stored`, a `StoreChoice`."""

balanced_option = click.option(
    "--balanced", is_flag=True, help="Weight classes equally; same as --class-weight balanced."
)


def device_option(default: str = "auto") -> Callable[[F], F]:
    """Return `--device`."""
    return click.option("--device", default=default, show_default=True, help="Device: cpu, cuda, cuda:1 or auto.")


def precision_option(*choices: str) -> Callable[[F], F]:
    """Return `--precision` with these choices, all by default."""
    return click.option(
        "--precision",
        type=click.Choice(choices or ("auto", "fp32", "tf32", "bf16", "fp16")),
        default="auto",
        show_default=True,
        help="Precision of the forward pass. auto: bf16 on GPUs that support it, otherwise fp32.",
    )


flush_option = click.option(
    "--flush-seconds",
    type=FiniteRange(0),
    default=5.0,
    show_default=True,
    help="Publish embeddings at least this often; a kill loses at most that much work.",
)
decoding_options = packed(
    "decoding",
    dict,
    ("workers", "timeout"),
    click.option(
        "--workers", type=click.IntRange(0), help="Decoding processes; 0: in this one.  [default: one per core]"
    ),
    click.option(
        "--timeout", type=FiniteRange(0.1), default=60.0, show_default=True, help="Seconds allowed to decode one video."
    ),
)
"""How videos are decoded, passed to the command as `decoding`, a `DecodingOptions`."""
wait_option = click.option("--wait", is_flag=True, help="Wait for another writer of the same store instead of failing.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def echo_json(value: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
    """Print a record, or a list of them, as JSON, each with the command's warnings in the field `warnings`.

    Keys keep their order; undecodable bytes of paths are escaped.
    """
    warnings = {"warnings": command_warnings()}
    full = {**value, **warnings} if isinstance(value, Mapping) else [{**record, **warnings} for record in value]
    click.echo(escape.encode(json.dumps(full, indent=2, ensure_ascii=False)))
