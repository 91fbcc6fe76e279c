"""Options and small habits that several commands share."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from actionvit.pipeline.datasets.dataset import Dataset

F = TypeVar("F", bound=Callable[..., Any])

DEFAULTS = {"root": "data/hmdb51", "cache": "features-cache", "runs": "runs"}


class FiniteRange(click.FloatRange):
    """A number in a range; neither `inf` nor `nan`, which no comparison finds out of it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number, or refuse it in one line."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"got {value}, expected a finite number", param, ctx)
        return number


def setting(name: str) -> Path:
    """Return ROOT, cache or runs: what `ACTIONVIT_*` says, else `actionvit.toml` here, else the default."""
    if value := os.environ.get(f"ACTIONVIT_{name.upper()}"):
        return Path(value)
    file = Path("actionvit.toml")
    if file.is_file():
        try:
            import tomllib
        except ModuleNotFoundError:  # Python 3.10
            import tomli as tomllib
        try:
            settings = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:  # of which what TOML and UTF-8 raise are kinds
            raise click.UsageError(f"actionvit.toml: {error}") from error
        if unknown := sorted(settings.keys() - DEFAULTS.keys()):
            raise click.UsageError(f"actionvit.toml: got {unknown[0]}, expected {', '.join(DEFAULTS)}")
        if name in settings:
            if not isinstance(settings[name], str):
                raise click.UsageError(f"actionvit.toml: {name}: got {settings[name]!r}, expected a path in quotes")
            return Path(os.path.expanduser(settings[name]))  # noqa: PTH111 - which leaves a user that is not as it stands
    return Path(DEFAULTS[name])


def root_argument(function: F) -> F:
    """Add ROOT, the dataset's folder or CSV file."""
    return click.argument("root", type=click.Path(path_type=Path), required=False, default=lambda: setting("root"))(
        function
    )


def dataset_options(function: F) -> F:
    """Add `--splits-dir`, `--dataset-name` and `--layout`: how ROOT is read; `open_dataset` takes them."""
    for option in (
        click.option("--layout", type=click.Choice(["hmdb51", "frames", "folder", "csv"]), help="Insist on a layout."),
        click.option(
            "--dataset-name", "name", help="The dataset's name in the cache and in reports.  [default: the folder's]"
        ),
        click.option("--splits-dir", type=click.Path(path_type=Path), help="The official lists' folder.  [found]"),
    ):
        function = option(function)
    return function


def split_options(default: str) -> Callable[[F], F]:
    """Return a decorator that adds `--protocol` and `--folds`; `default` says what is taken without a protocol."""

    def add(function: F) -> F:
        for option in (
            click.option("--folds", type=click.IntRange(2), default=5, show_default=True, help="Folds, or repeats."),
            click.option(
                "--protocol",
                type=click.Choice(["official", "grouped", "stratified", "random"]),
                help=f"Splits.  [default: {default}]",
            ),
        ):
            function = option(function)
        return function

    return add


def test_fraction_option(function: F) -> F:
    """Add `--test-fraction`, which stratified and random splits take."""
    return click.option(
        "--test-fraction",
        type=FiniteRange(0, 1, min_open=True, max_open=True),
        default=0.3,
        show_default=True,
        help="Of stratified and random splits.",
    )(function)


def numbers(kind: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str], tuple[Any, ...]]:
    """Return a callback that parses `1,2,4`; without a value there are none."""

    def parse(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[Any, ...]:
        if text is None:
            return ()
        try:
            values = tuple(dict.fromkeys(kind(part) for part in text.split(",") if part.strip()))
        except ValueError:
            values = ()
        if not values or min(values) < 1:
            raise click.BadParameter(f"got {text!r}, expected numbers of at least 1 such as 1,2,4")
        return values

    return parse


def words(choices: Sequence[str]) -> Callable[[click.Context, click.Parameter, str], tuple[str, ...]]:
    """Return a callback that parses `linear,knn`."""

    def parse(_ctx: click.Context, _param: click.Parameter, text: str) -> tuple[str, ...]:
        values = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
        if not values or set(values) - set(choices):
            raise click.BadParameter(f"got {text!r}, expected some of {', '.join(choices)}")
        return values

    return parse


def open_dataset(root: Path, options: Mapping[str, Any]) -> Dataset:
    """Read the dataset that ROOT and `dataset_options` name, and say on stderr what a user must know of it."""
    from actionvit.pipeline.datasets import load_dataset

    dataset = load_dataset(root, splits_dir=options["splits_dir"], name=options["name"], layout=options["layout"])
    for note in dataset.notes:
        click.echo(f"note: {note}", err=True)
    return dataset


def cache_option(function: F) -> F:
    """Add `--cache DIR`, where feature stores live."""
    text = "Where embeddings are cached.  [default: features-cache]"
    return click.option("--cache", type=click.Path(path_type=Path), default=lambda: setting("cache"), help=text)(
        function
    )


def runs_option(function: F) -> F:
    """Add `--runs DIR`, where runs are written."""
    text = "Where runs are written.  [default: runs]"
    return click.option("--runs", type=click.Path(path_type=Path), default=lambda: setting("runs"), help=text)(function)


def embedding_options(function: F) -> F:
    """Add `--num-frames` and `--size`, which select among several stores of a variant."""
    for option in (
        click.option("--size", type=click.IntRange(1), help="Side of the embedded views.  [default: that cached]"),
        click.option(
            "--num-frames",
            "frames",
            type=click.IntRange(1),
            help="Frames of the embedded views.  [default: those cached]",
        ),
    ):
        function = option(function)
    return function


def embeddings_wanted(options: Mapping[str, Any]) -> dict[str, int]:
    """Return what `--num-frames` and `--size` ask of a store's key, as `find_store` takes it."""
    asked = {"clip__num_frames": options["frames"], "clip__size": options["size"]}
    return {name: value for name, value in asked.items() if value is not None}


def device_option(of: str = "", default: str = "auto") -> Callable[[F], F]:
    """Return a decorator that adds `--device`; `of` says what runs there, where that is not plain."""
    text = f"{of} cpu, cuda, cuda:1, or auto.".strip()
    return click.option("--device", default=default, show_default=True, help=text)


def precision_option(function: F) -> F:
    """Add `--precision`, of a forward."""
    return click.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "tf32", "bf16", "fp16"]),
        default="auto",
        show_default=True,
        help="Of the forward; auto: bf16 on GPUs that have it, else fp32.",
    )(function)


def flush_option(function: F) -> F:
    """Add `--flush-seconds`, of embeddings."""
    return click.option(
        "--flush-seconds",
        type=FiniteRange(0),
        default=5.0,
        show_default=True,
        help="Publish embeddings at least this often: what a kill costs.",
    )(function)


def decoding_options(function: F) -> F:
    """Add `--workers` and `--timeout`: how videos are decoded."""
    for option in (
        click.option(
            "--timeout",
            type=FiniteRange(0.1),
            default=60.0,
            show_default=True,
            help="Seconds a video may take to decode.",
        ),
        click.option(
            "--workers", type=click.IntRange(0), help="Decoding processes; 0: in this one.  [default: by cores]"
        ),
    ):
        function = option(function)
    return function


def json_option(function: F) -> F:
    """Add `--json`, for machines."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")(function)


def echo_json(value: object) -> None:
    """Print a value as JSON, keys in the order given; what of a path is no text is escaped, as `json` reads it."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace"))


FIELD_OPTIONS = {
    "batch": "--batch-size",
    "micro_batch": "--micro-batch-size",
    "warmup": "--warmup-fraction",
    "clip_norm": "--max-grad-norm",
    "ema": "--ema-decay",
    "drop_path": "--stochastic-depth",
    "criterion": "--selection-metric",
    "focal": "--focal-gamma",
    "logit_adjust": "--logit-adjustment",
    "window": "--min-duration",
    "area": "--min-crop-area",
    "colours": "--color-ops",
    "strength": "--magnitude",
    "deal": "--rank-sampling",
    "validation": "--val-fraction",
    "views": "--cached-views",
    "frames": "--num-frames",
    "clips": "--num-clips",
}


def option_error(error: ValueError) -> str:
    """Return the message of a spec's ValueError with the field names before its colon written as options."""
    fields, colon, rest = str(error).partition(": ")
    options = [FIELD_OPTIONS.get(name, f"--{name.replace('_', '-')}") for name in fields.split(", ")]
    return f"{', '.join(options)}{colon}{rest}"
