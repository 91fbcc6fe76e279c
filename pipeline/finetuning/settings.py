"""The spec of a fine-tuning from settings under their public names, with the defaults that depend on other settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from actionvit.features.timesformer.variants import clip_spec
from actionvit.features.view_settings import ViewSettings
from actionvit.heads.criteria import Criterion
from actionvit.pipeline.datasets.dataset import Protocol
from actionvit.pipeline.finetuning.spec import (
    AugmentSpec,
    FinetuneSpec,
    HeadInit,
    LossSpec,
    OptimSpec,
    SamplingSpec,
    TokenDtype,
    TrainSpec,
)
from actionvit.settings import check_settings, make_spec, public_names, setting

S = TypeVar("S")


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneSettings:
    """Settings of a fine-tuning beside those of its loop, loss and augmentation; None: depends on other settings."""

    train: str = setting(
        "last:1",
        "Trained part: the classifier, the last K blocks and everything above, or all.",
        metavar="head|last:K|all",
    )
    num_frames: int | None = setting(None, "Frames per view (T).  [default: the variant's]", minimum=1)
    size: int | None = setting(None, "Side of a view in pixels (S).  [default: the variant's]", minimum=16)
    num_clips: int = setting(1, "Clips per video (temporal views).", minimum=1)
    crops: Literal[1, 3] = setting(3, "Spatial views: center, or three along the longer side.")
    tokens: bool | None = setting(
        None, "Train from cached outputs of the frozen blocks.  [default: on, unless all is trained]"
    )
    cached_views: int | None = setting(
        None,
        "Augmented views cached per clip; 0: new views in every epoch.  [default: 4 with tokens, else 0]",
        minimum=0,
    )
    token_precision: TokenDtype = setting(
        "fp16", "Precision of cached tokens; fp32 gives the same numbers as training without them."
    )
    augment: bool = setting(True, "Augment training views.")
    head_init: HeadInit = setting("probe", "Initial head: the linear probe of the training set, or zeros.")
    select_on: Literal["train", "val"] = setting(
        "train", "Choose on parts of the training set, or (val) on the validation set that came with the data."
    )
    val_fraction: float = setting(
        0.2, "Fraction of the training set that selects the epoch.", minimum=0, above=True, maximum=1, below=True
    )
    refit: bool = setting(True, "Then train on training and validation set together for that many epochs.")
    final: bool = setting(False, "Also train a model on all videos, for predict and export.")
    activation_checkpointing: bool = setting(
        False, "Recompute activations in the backward pass: less memory, more time."
    )
    selection_metric: Criterion | None = setting(
        None, "Metric that selection maximizes.  [default: accuracy; mean_class_accuracy if classes are balanced]"
    )
    protocol: Protocol | None = setting(None, "How videos are split.")
    folds: int = setting(5, "Number of folds, or of repeats.", minimum=2)
    test_fraction: float = setting(
        0.3, "Fraction of videos in the test set.", minimum=0, above=True, maximum=1, below=True
    )
    split: tuple[str, ...] = setting((), "Only this split.  [default: all; repeatable]", metavar="NAME")

    def __post_init__(self) -> None:
        """Check choices and ranges."""
        check_settings(self)


def make_finetune_spec(
    variant: str, settings: FinetuneSettings, training: TrainSpec, augmentation: AugmentSpec
) -> FinetuneSpec:
    """Return a checked spec; the criterion of `training` is set here.

    Raises
    ------
    ActionVitError
        If settings contradict each other.
    """
    loss, sampling = training.loss, training.sampling
    balances = loss.class_weight != "none" or sampling.sampler == "balanced" or loss.logit_adjust > 0
    tokens, views = settings.tokens, settings.cached_views
    if tokens is None:
        tokens = not (sampling.mixup or sampling.cutmix) and settings.train != "all"
    if views is None:
        views = 4 if tokens and settings.augment else 0
    shape = ViewSettings(
        num_frames=settings.num_frames, size=settings.size, num_clips=settings.num_clips, crops=settings.crops
    )
    criterion = settings.selection_metric or ("mean_class_accuracy" if balances else "accuracy")
    return FinetuneSpec(
        variant=variant,
        train=settings.train,
        clip=clip_spec(variant, shape),
        augment=augmentation if settings.augment else None,
        views=views,
        tokens=settings.token_precision if tokens else None,
        start=settings.head_init,
        validation=settings.val_fraction,
        select_on=settings.select_on,
        refit=settings.refit,
        final=settings.final,
        checkpointing=settings.activation_checkpointing,
        training=replace(training, criterion=criterion),
        protocol=settings.protocol,
        folds=settings.folds,
        test_fraction=settings.test_fraction,
        splits=settings.split,
    )


def spec_from_settings(variant: str, settings: Mapping[str, Any], *, bf16: bool) -> FinetuneSpec:
    """Return a checked spec from all settings in one mapping, under their public names.

    Raises
    ------
    ActionVitError
        If a setting does not exist or is out of range, or if settings contradict each other.
    """
    rest = dict(settings)

    def part(spec: type[S], **more: Any) -> S:
        return make_spec(spec, {name: rest.pop(name) for name in public_names(spec) if name in rest}, **more)

    training = part(TrainSpec, autocast=bf16, sampling=part(SamplingSpec), optim=part(OptimSpec), loss=part(LossSpec))
    augmentation = part(AugmentSpec)
    return make_finetune_spec(variant, make_spec(FinetuneSettings, rest), training, augmentation)
