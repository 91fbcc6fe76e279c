"""Options that several commands share. Each is stated once, so that its name means the same everywhere."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)
DEFAULTS = {"root": "data/hmdb51", "cache": "features-cache", "runs": "runs"}


class FiniteRange(click.FloatRange):
    """A finite number in a range: `inf` and `nan` are refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number, or refuse it in one line."""
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


def numbers(kind: Callable[[str], Any], minimum: float = 1) -> Callable[..., tuple[Any, ...]]:
    """Return a callback for a repeatable option of numbers that also takes comma lists, such as `4,8,16`."""

    def parse(_ctx: click.Context, _param: click.Parameter, given: Sequence[str]) -> tuple[Any, ...]:
        texts = [part.strip() for text in given for part in text.split(",") if part.strip()]
        try:
            values = tuple(dict.fromkeys(kind(text) for text in texts))
        except ValueError:
            values = ()
        if given and (not values or min(values) < minimum):
            expected = f"numbers of at least {minimum:g}, such as 4,8"
            raise click.BadParameter(f"got {','.join(given)!r}, expected {expected}")
        return values

    return parse


def words(choices: Sequence[str] | None = None) -> Callable[..., tuple[str, ...]]:
    """Return a callback for a repeatable option of words that also takes comma lists, such as `base,hr`."""

    def parse(_ctx: click.Context, _param: click.Parameter, given: Sequence[str]) -> tuple[str, ...]:
        values = tuple(dict.fromkeys(part.strip() for text in given for part in text.split(",") if part.strip()))
        if choices is not None and (set(values) - set(choices) or (given and not values)):
            raise click.BadParameter(f"got {','.join(given)!r}, expected some of {', '.join(choices)}")
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


def root_argument(function: F) -> F:
    """Add ROOT, the dataset's folder or list file."""
    return click.argument("root", type=PATH, required=False, default=lambda: setting("root"))(function)


PROTOCOLS = ("official", "grouped", "stratified", "random")


def split_options(
    default: str = "official if ROOT has lists, else grouped if sources are known, else stratified",
    more: tuple[str, ...] = (),
) -> Callable[[F], F]:
    """Return a decorator that adds `--protocol`, `--folds` and `--test-fraction`."""
    return together(
        click.option(
            "--protocol", type=click.Choice((*PROTOCOLS, *more)), help=f"How videos are split.  [default: {default}]"
        ),
        click.option(
            "--folds", type=click.IntRange(2), default=5, show_default=True, help="Number of folds, or of repeats."
        ),
        click.option(
            "--test-fraction",
            type=FiniteRange(0, 1, min_open=True, max_open=True),
            default=0.3,
            show_default=True,
            help="Fraction of videos in the test set of stratified and random splits.",
        ),
    )


def seeds_option(default: int | None = None, note: str = "") -> Callable[[F], F]:
    """Return `--seeds`, how many repetitions."""
    text = "Number of repetitions with different seeds." + (f"  [default: {note}]" if note else "")
    return click.option("--seeds", type=click.IntRange(1), default=default, show_default=default is not None, help=text)


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
    "run",
    help="Name of the new run.  [default: built from the non-default options, e.g. base-linear-balanced]",
)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace an existing run of that name.")
jobs_option = click.option(
    "--jobs", type=click.IntRange(1), default=2, show_default=True, help="Splits that are processed in parallel."
)


def output_option(default: str = "", *, required: bool = False, **kwargs: Any) -> Callable[[F], F]:
    """Return `-o/--output`, where a command writes."""
    text = "Where to write." + (f"  [default: {default}]" if default else "")
    return click.option("-o", "--output", "out", type=PATH, required=required, help=text, **kwargs)


VARIANT_HELP = "Encoder variant: base, hr, large, tiny or tiny-hr."
variant_option = click.option("--variant", default="base", show_default=True, help=VARIANT_HELP)
variants_option = several(
    "--variant", "variants", default=("base",), help=f"{VARIANT_HELP}  [default: base; repeatable]"
)
weights_option = click.option(
    "--weights",
    metavar="SRC",
    help="Encoder weights: local folder, hub id, .pyth file or `untrained`.  [default: the variant's]",
)
weights_options = click.option(
    "--weights",
    "sources",
    multiple=True,
    metavar="[VARIANT=]SRC",
    help="Encoder weights: local folder, hub id, .pyth file or `untrained`.  [default: the variant's; repeatable]",
)
encoders_option = click.option(
    "--encoder",
    "encoders",
    multiple=True,
    metavar="[NAME=]SRC",
    help="Frozen transformers encoder: local folder or hub id (VideoMAE, ViViT, V-JEPA 2, ViT, CLIP, SigLIP, DINO;"
    " repeatable).",
)


def without_default_variant(options: dict[str, Any]) -> None:
    """Drop the default `--variant` where `--encoder` is given and `--variant` is not."""
    source = click.get_current_context().get_parameter_source("variants")
    if options["encoders"] and source == click.core.ParameterSource.DEFAULT:
        options["variants"] = ()


num_frames_option = click.option(
    "--num-frames", "frames", type=click.IntRange(1), help="Frames per view (T).  [default: the variant's]"
)
size_option = click.option(
    "--size", type=click.IntRange(16), help="Side of a view in pixels (S).  [default: the variant's]"
)
sampling_options = together(
    click.option(
        "--sampling",
        type=click.Choice(["uniform", "dense"]),
        default="uniform",
        show_default=True,
        help="Frames spread over the whole video, or with a fixed stride.",
    ),
    click.option(
        "--stride", type=click.IntRange(1), help="Frames between samples of dense sampling.  [default: the variant's]"
    ),
)
num_clips_option = click.option(
    "--num-clips",
    "clips",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Clips per video (temporal views).",
)


def crops_option(default: str = "1") -> Callable[[F], F]:
    """Return `--crops`, the spatial views."""
    return click.option(
        "--crops",
        type=click.Choice(["1", "3"]),
        default=default,
        show_default=True,
        help="Spatial views: center, or three along the longer side.",
    )


embedding_options = together(
    click.option(
        "--num-frames", "frames", type=click.IntRange(1), help="Frames per view (T).  [default: those cached]"
    ),
    click.option("--size", type=click.IntRange(1), help="Side of a view in pixels (S).  [default: the one cached]"),
    click.option(
        "--store",
        "stores",
        multiple=True,
        metavar="NAME",
        help="Store to read: its folder's name (see `cache ls`), or the name or sha256 of its weights.",
    ),
)
"""Which of a variant's stores is meant; `embeddings_wanted` takes them."""

balanced_option = click.option(
    "--balanced", is_flag=True, help="Weight classes equally; same as --class-weight balanced."
)
class_options = together(
    balanced_option,
    click.option(
        "--sampler",
        type=click.Choice(["uniform", "balanced"]),
        default="uniform",
        show_default=True,
        help="Minibatch sampling: every clip once per epoch, or all classes equally often.",
    ),
    click.option(
        "--logit-adjustment",
        "logit_adjust",
        type=FiniteRange(0),
        default=0.0,
        metavar="TAU",
        help="Logit adjustment by TAU times log class frequency.",
    ),
    click.option(
        "--focal-gamma",
        "focal",
        type=FiniteRange(0),
        default=0.0,
        metavar="GAMMA",
        help="Focal loss exponent; 0 is cross-entropy.",
    ),
)
selection_metric_option = click.option(
    "--selection-metric",
    "criterion",
    type=click.Choice(["accuracy", "mean_class_accuracy", "log_loss"]),
    help="Metric that selection maximizes.  [default: accuracy; mean_class_accuracy if classes are balanced]",
)
CLASS_WEIGHTS = ("none", "balanced", "effective")
CLASS_WEIGHT_HELP = "Class weights: none, inverse frequency, or effective number of clips."
HEADS = ("linear", "attentive", "mlp", "knn", "centroid")


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
decoding_options = together(
    click.option(
        "--workers", type=click.IntRange(0), help="Decoding processes; 0: in this one.  [default: one per core]"
    ),
    click.option(
        "--timeout", type=FiniteRange(0.1), default=60.0, show_default=True, help="Seconds allowed to decode one video."
    ),
)
wait_option = click.option("--wait", is_flag=True, help="Wait for another writer of the same store instead of failing.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def embeddings_wanted(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the store selection of `embedding_options`, as `find_store` takes it."""
    selection = {"clip__num_frames": options["frames"], "clip__size": options["size"], "names": options["stores"]}
    return {name: value for name, value in selection.items() if value not in (None, ())}


def echo_json(value: object) -> None:
    """Print a value as JSON, keys in the order given; what of a path is no text is escaped, as `json` reads it."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace"))
