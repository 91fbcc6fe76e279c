"""The options of `actionvit finetune` that shape the training, by what they are about."""

from __future__ import annotations

import click

from actionvit.commands.options import (
    F,
    FiniteRange,
    decoding_options,
    device_option,
    split_options,
    test_fraction_option,
)

Share = FiniteRange(0, 1, min_open=True)

_CACHE = (
    click.option(
        "--tokens/--no-tokens",
        default=None,
        help="Train from cached outputs of the frozen blocks, or decode and compute all in every epoch."
        "  [default: tokens, unless all is trained]",
    ),
    click.option(
        "--cached-views",
        "views",
        type=click.IntRange(0),
        help="Augmented views a clip; 0: fresh ones every time.  [default: 4 with tokens, else 0]",
    ),
    click.option(
        "--token-precision",
        type=click.Choice(["fp16", "fp32"]),
        default="fp16",
        show_default=True,
        help="How tokens are cached; fp32 takes twice the space and equals --no-tokens --cached-views N exactly.",
    ),
)
_CLASSES = (
    click.option("--balanced", is_flag=True, help="Classes count alike: the same as --class-weight balanced."),
    click.option(
        "--class-weight",
        type=click.Choice(["none", "balanced", "effective"]),
        default="none",
        show_default=True,
        help="By inverse frequency or effective number.",
    ),
    click.option(
        "--sampler",
        type=click.Choice(["uniform", "balanced"]),
        default="uniform",
        show_default=True,
        help="Each clip once an epoch, or classes drawn alike.",
    ),
    click.option(
        "--logit-adjustment",
        "logit_adjust",
        type=FiniteRange(0),
        default=0.0,
        metavar="TAU",
        help="Train with TAU · log frequency added to the logits.",
    ),
    click.option("--focal-gamma", "focal", type=FiniteRange(0), default=0.0, metavar="GAMMA", help="Focal loss."),
    click.option(
        "--label-smoothing",
        type=FiniteRange(0, 1, max_open=True),
        default=0.1,
        show_default=True,
        help="Share of every target that goes to all classes alike.",
    ),
)
_STEPS = (
    click.option("--epochs", type=click.IntRange(0), default=20, show_default=True, help="At most so many."),
    click.option(
        "--patience",
        type=click.IntRange(0),
        default=8,
        show_default=True,
        help="Stop after so many epochs without a better validation score; 0: never.",
    ),
    click.option(
        "--batch-size",
        "batch",
        type=click.IntRange(1),
        default=16,
        show_default=True,
        help="Clips a step, on all ranks.",
    ),
    click.option(
        "--micro-batch-size",
        "micro_batch",
        type=click.IntRange(1),
        help="Clips computed at once.  [default: as fit into memory]",
    ),
    click.option(
        "--lr", type=FiniteRange(0, min_open=True), default=1e-4, show_default=True, help="AdamW's highest rate."
    ),
    click.option(
        "--layer-decay",
        type=Share,
        default=0.75,
        show_default=True,
        help="A block's rate, as a share of the next one's.",
    ),
    click.option("--weight-decay", type=FiniteRange(0), default=0.05, show_default=True, help="Of matrices."),
    click.option(
        "--warmup-fraction",
        "warmup",
        type=FiniteRange(0, 1),
        default=0.1,
        show_default=True,
        help="Share of steps with a rising rate.",
    ),
    click.option(
        "--stochastic-depth",
        "drop_path",
        type=FiniteRange(0, 1, max_open=True),
        default=0.1,
        show_default=True,
        help="Chance of the last block but one to be left out of a clip's way, earlier ones less; from last:2 on.",
    ),
    click.option(
        "--max-grad-norm",
        "clip_norm",
        type=FiniteRange(0),
        default=1.0,
        show_default=True,
        help="Longest gradient; 0: any.",
    ),
    click.option(
        "--ema-decay",
        "ema",
        type=FiniteRange(0, 1, max_open=True),
        default=0.0,
        show_default=True,
        help="Keep a moving average of the weights with this decay a step; 0: the weights themselves.",
    ),
    click.option(
        "--head-init",
        "start",
        type=click.Choice(["probe", "zero"]),
        default="probe",
        show_default=True,
        help="The head starts as the linear probe of the training part, or at zero.",
    ),
)
_VIEWS = (
    click.option("--augment/--no-augment", default=True, show_default=True, help="Augment training views."),
    click.option(
        "--min-duration",
        "window",
        type=Share,
        default=0.7,
        show_default=True,
        help="Shortest stretch of time, as a share of the video.",
    ),
    click.option(
        "--min-crop-area",
        "area",
        type=Share,
        default=0.4,
        show_default=True,
        help="Smallest crop, as a share of the picture's largest square.",
    ),
    click.option("--flip/--no-flip", default=True, show_default=True, help="Mirror every second training view."),
    click.option(
        "--no-flip-class",
        "keep_sides",
        multiple=True,
        metavar="CLASS",
        help="Never mirror this class: left and right tell it; repeat.",
    ),
    click.option(
        "--color-ops", "colours", type=click.IntRange(0), default=2, show_default=True, help="Colour changes a view."
    ),
    click.option(
        "--magnitude", "strength", type=FiniteRange(0, 1), default=0.5, show_default=True, help="How far they go."
    ),
    click.option("--mixup", type=FiniteRange(0), default=0.0, metavar="ALPHA", help="Blend pairs of clips."),
    click.option("--cutmix", type=FiniteRange(0), default=0.0, metavar="ALPHA", help="Paste a box of another clip."),
    click.option("--num-frames", "frames", type=click.IntRange(1), help="T, frames a view.  [default: the variant's]"),
    click.option("--size", type=click.IntRange(16), help="S, side of a view in pixels.  [default: the variant's]"),
    click.option(
        "--num-clips",
        "clips",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="Temporal views a test video.",
    ),
    click.option("--crops", type=click.Choice(["1", "3"]), default="1", show_default=True, help="Spatial test views."),
)
_SPLITS = (
    click.option(
        "--val-fraction",
        "validation",
        type=Share,
        default=0.2,
        show_default=True,
        help="Share of the training set that chooses the epoch.",
    ),
    click.option(
        "--selection-metric",
        "criterion",
        type=click.Choice(["accuracy", "mean_class_accuracy", "log_loss"]),
        help="What the best epoch is best in.  [default: accuracy; mean_class_accuracy where classes count alike]",
    ),
    split_options("official where there are lists, else grouped where sources are known, else stratified"),
    test_fraction_option,
    click.option("--split", "splits", multiple=True, metavar="NAME", help="Only this split; repeat.  [default: all]"),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of everything random."),
)
_MACHINE = (
    click.option(
        "--rank-sampling",
        "deal",
        type=click.Choice(["shuffled", "class-aware", "sharded"]),
        default="shuffled",
        show_default=True,
        help="How clips go to the ranks of a distributed training: in turn, in turn by class, or each a fixed part.",
    ),
    click.option(
        "--activation-checkpointing",
        "checkpointing",
        is_flag=True,
        help="Recompute blocks on the way back: less memory, more time; from last:2 on.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "bf16"]),
        default="auto",
        show_default=True,
        help="auto: bf16 products on GPUs that have them, else fp32.",
    ),
    device_option(),
    decoding_options,
    click.option(
        "--checkpoint-every",
        "flush_seconds",
        type=FiniteRange(0),
        default=0.0,
        show_default=True,
        help="Write a checkpoint at most this often: what a kill costs; 0: after every epoch.",
    ),
    click.option(
        "--frame-cache-gib",
        "memory",
        type=FiniteRange(0),
        default=2.0,
        show_default=True,
        help="GiB of decoded frames, or of tokens, to keep; the rest is decoded or read in every epoch.",
    ),
)


def training_options(function: F) -> F:
    """Add them all, in this order."""
    for option in reversed((*_CACHE, *_CLASSES, *_STEPS, *_VIEWS, *_SPLITS, *_MACHINE)):
        function = option(function)
    return function
