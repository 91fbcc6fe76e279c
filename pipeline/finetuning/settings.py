"""The spec of a fine-tuning from settings under their public names, with the defaults that depend on other settings."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from actionvit.features.timesformer.variants import clip_spec
from actionvit.features.view_settings import ViewSettings
from actionvit.heads.criteria import Criterion
from actionvit.pipeline.datasets.splits import SplitSpec
from actionvit.pipeline.finetuning.spec import AugmentSpec, FinetuneSpec, HeadInit, TokenDtype, TrainSpec
from actionvit.settings import check_settings, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneSettings(SplitSpec):
    """Settings of a fine-tuning as a user gives them; None: depends on other settings."""

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
    split: tuple[str, ...] = setting((), "Only this split.  [default: all; repeatable]", metavar="NAME")
    training: TrainSpec = field(default_factory=TrainSpec)
    augmentation: AugmentSpec = field(default_factory=AugmentSpec)

    def __post_init__(self) -> None:
        """Check choices and ranges."""
        check_settings(self)


def make_finetune_spec(variant: str, settings: FinetuneSettings, *, bf16: bool) -> FinetuneSpec:
    """Return a checked spec.

    Parameters
    ----------
    variant : str
        Encoder variant to start from.
    settings : FinetuneSettings
    bf16 : bool
        Compute matmuls in bf16.

    Raises
    ------
    ActionVitError
        If settings contradict each other.
    """
    loss, sampling = settings.training.loss, settings.training.sampling
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
        augment=settings.augmentation if settings.augment else None,
        views=views,
        tokens=settings.token_precision if tokens else None,
        start=settings.head_init,
        validation=settings.val_fraction,
        select_on=settings.select_on,
        refit=settings.refit,
        final=settings.final,
        checkpointing=settings.activation_checkpointing,
        training=replace(settings.training, criterion=criterion, autocast=bf16),
        protocol=settings.protocol,
        folds=settings.folds,
        test_fraction=settings.test_fraction,
        splits=settings.split,
    )
