"""The options of `actionvit finetune` that configure the training."""

from __future__ import annotations

import click

from actionvit.commands.options import (
    CLASS_WEIGHT_HELP,
    CLASS_WEIGHTS,
    FiniteRange,
    class_options,
    crops_option,
    decoding_options,
    device_option,
    num_clips_option,
    num_frames_option,
    precision_option,
    seed_option,
    selection_metric_option,
    several,
    size_option,
    split_options,
    together,
)

Fraction = FiniteRange(0, 1, min_open=True)

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
_CLASSES = (
    class_options,
    click.option(
        "--class-weight", type=click.Choice(CLASS_WEIGHTS), default="none", show_default=True, help=CLASS_WEIGHT_HELP
    ),
    click.option(
        "--label-smoothing",
        type=FiniteRange(0, 1, max_open=True),
        default=0.1,
        show_default=True,
        help="Fraction of each target spread over all classes.",
    ),
)
_OPTIMIZER = (
    click.option("--epochs", type=click.IntRange(0), default=20, show_default=True, help="Maximum number of epochs."),
    click.option(
        "--patience",
        type=click.IntRange(0),
        default=8,
        show_default=True,
        help="Stop after this many epochs without improvement on the validation set; 0: never.",
    ),
    click.option(
        "--batch-size",
        "batch",
        type=click.IntRange(1),
        default=16,
        show_default=True,
        help="Clips per step, over all ranks.",
    ),
    click.option(
        "--micro-batch-size",
        "micro_batch",
        type=click.IntRange(1),
        help="Clips per forward pass; gradients accumulate.  [default: as many as fit]",
    ),
    click.option(
        "--lr", type=FiniteRange(0, min_open=True), default=1e-4, show_default=True, help="Peak learning rate (AdamW)."
    ),
    click.option(
        "--layer-decay",
        type=Fraction,
        default=0.75,
        show_default=True,
        help="Learning rate of each block relative to the block above.",
    ),
    click.option(
        "--weight-decay",
        type=FiniteRange(0),
        default=0.05,
        show_default=True,
        help="Weight decay, applied to weight matrices only.",
    ),
    click.option(
        "--warmup-fraction",
        "warmup",
        type=FiniteRange(0, 1),
        default=0.1,
        show_default=True,
        help="Fraction of steps with linear warm-up.",
    ),
    click.option(
        "--stochastic-depth",
        "drop_path",
        type=FiniteRange(0, 1, max_open=True),
        default=0.1,
        show_default=True,
        help="Stochastic-depth rate of the second-to-last block, less below; needs --train last:2 or more.",
    ),
    click.option(
        "--max-grad-norm",
        "clip_norm",
        type=FiniteRange(0),
        default=1.0,
        show_default=True,
        help="Maximum gradient norm; 0 disables clipping.",
    ),
    click.option(
        "--ema-decay",
        "ema",
        type=FiniteRange(0, 1, max_open=True),
        default=0.0,
        show_default=True,
        help="Decay of the exponential moving average of the weights; 0 disables it.",
    ),
    click.option(
        "--head-init",
        "start",
        type=click.Choice(["probe", "zero"]),
        default="probe",
        show_default=True,
        help="Initial head: the linear probe of the training set, or zeros.",
    ),
)
_AUGMENTATION = (
    click.option("--augment/--no-augment", default=True, show_default=True, help="Augment training views."),
    click.option(
        "--min-duration",
        "window",
        type=Fraction,
        default=0.7,
        show_default=True,
        help="Minimum duration of a view, as a fraction of the video.",
    ),
    click.option(
        "--min-crop-area",
        "area",
        type=Fraction,
        default=0.4,
        show_default=True,
        help="Minimum crop area, as a fraction of the largest square.",
    ),
    click.option(
        "--augment-flip/--no-augment-flip", "flip", default=True, show_default=True, help="Mirror half of the views."
    ),
    several("--no-flip-class", "keep_sides", metavar="CLASS", help="Class that is never mirrored.  [repeatable]"),
    click.option(
        "--color-ops",
        "colours",
        type=click.IntRange(0),
        default=2,
        show_default=True,
        help="Color operations per view.",
    ),
    click.option(
        "--magnitude",
        "strength",
        type=FiniteRange(0, 1),
        default=0.5,
        show_default=True,
        help="Their magnitude, 0 to 1.",
    ),
    click.option("--mixup", type=FiniteRange(0), default=0.0, metavar="ALPHA", help="Mixup; 0 disables it."),
    click.option("--cutmix", type=FiniteRange(0), default=0.0, metavar="ALPHA", help="CutMix; 0 disables it."),
)
_VIEWS = (num_frames_option, size_option, num_clips_option, crops_option())
_SPLITS = (
    click.option(
        "--val-fraction",
        "validation",
        type=Fraction,
        default=0.2,
        show_default=True,
        help="Fraction of the training set that chooses the epoch.",
    ),
    selection_metric_option,
    split_options(),
    several("--split", "splits", metavar="NAME", help="Only this split.  [default: all; repeatable]"),
    seed_option,
)
_MACHINE = (
    click.option(
        "--rank-sampling",
        "deal",
        type=click.Choice(["shuffled", "class-aware", "sharded"]),
        default="shuffled",
        show_default=True,
        help="Assignment of clips to ranks: shuffled, class by class, or a fixed shard per rank.",
    ),
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

training_options = together(*_CACHE, *_CLASSES, *_OPTIMIZER, *_AUGMENTATION, *_VIEWS, *_SPLITS, *_MACHINE)
"""All of them."""
