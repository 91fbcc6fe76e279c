"""The options of `actionvit finetune` that configure the training."""

from __future__ import annotations

import click

from actionvit.commands.options import (
    F,
    FiniteRange,
    balanced_option,
    crops_option,
    decoding_options,
    device_option,
    num_clips_option,
    num_frames_option,
    precision_option,
    selection_metric_option,
    several,
    size_option,
    split_options,
    together,
)

_FRACTION = FiniteRange(0, 1, min_open=True)

_CACHE = (
    click.option(
        "--tokens/--no-tokens",
        default=None,
        help="Train from cached outputs of the frozen blocks.  [default: --tokens, except for --train all]",
    ),
    click.option(
        "--cached-views",
        "views",
        type=click.IntRange(0),
        help="Augmented views cached per clip; 0: new views in every epoch.  [default: 4 with tokens, else 0]",
    ),
    click.option(
        "--token-precision",
        type=click.Choice(["fp16", "fp32"]),
        default="fp16",
        show_default=True,
        help="Precision of cached tokens; fp32 gives the same numbers as --no-tokens.",
    ),
    click.option(
        "--frame-cache-gib",
        "memory",
        type=FiniteRange(0),
        default=2.0,
        show_default=True,
        help="Memory for decoded frames or tokens, in GiB.",
    ),
)
_MODEL = (
    click.option(
        "--head-init",
        "start",
        type=click.Choice(["probe", "zero"]),
        default="probe",
        show_default=True,
        help="Initial head: the linear probe of the training set, or zeros.",
    ),
    balanced_option,
    click.option("--augment/--no-augment", default=True, show_default=True, help="Augment training views."),
    click.option(
        "--augment-flip/--no-augment-flip", "flip", default=True, show_default=True, help="Mirror half of the views."
    ),
)
_VIEWS = (num_frames_option, size_option, num_clips_option, crops_option("3"))
_SPLITS = (
    click.option(
        "--val-fraction",
        "validation",
        type=_FRACTION,
        default=0.2,
        show_default=True,
        help="Fraction of the training set that selects the epoch.",
    ),
    selection_metric_option,
    click.option(
        "--refit/--no-refit",
        default=True,
        show_default=True,
        help="Then train on training and validation set together for that many epochs.",
    ),
    click.option("--final", is_flag=True, help="Also train a model on all videos, for predict and export."),
    split_options(),
    several("--split", "splits", metavar="NAME", help="Only this split.  [default: all; repeatable]"),
)
_MACHINE = (
    click.option(
        "--rank-timeout",
        type=FiniteRange(0, min_open=True),
        default=600.0,
        show_default=True,
        help="Seconds to wait for a rank that does not answer.",
    ),
    click.option(
        "--activation-checkpointing",
        "checkpointing",
        is_flag=True,
        help="Recompute activations in the backward pass: less memory, more time.",
    ),
    precision_option("auto", "fp32", "bf16"),
    device_option(),
    decoding_options,
    click.option(
        "--checkpoint-every",
        "flush_seconds",
        type=FiniteRange(0),
        default=0.0,
        show_default=True,
        help="Minimum seconds between checkpoints; 0: after every epoch.",
    ),
)


def training_options(function: F) -> F:
    """Add them all; those of the specs come from the specs' fields."""
    from actionvit.commands.spec_options import spec_options
    from actionvit.pipeline.finetuning.spec import AugmentSpec, LossSpec, OptimSpec, SamplingSpec, TrainSpec

    specs = [spec_options(spec) for spec in (OptimSpec, TrainSpec, SamplingSpec, LossSpec, AugmentSpec)]
    return together(*_CACHE, *_MODEL, *specs, *_VIEWS, *_SPLITS, *_MACHINE)(function)
