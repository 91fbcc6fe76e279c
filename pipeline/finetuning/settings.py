"""The spec of a fine-tuning from settings under their public names, with the defaults that depend on other settings."""

from __future__ import annotations

import inspect
from typing import Any, Literal

from actionvit.features.timesformer.variants import clip_spec
from actionvit.pipeline.finetuning.spec import (
    AugmentSpec,
    FinetuneSpec,
    LossSpec,
    OptimSpec,
    SamplingSpec,
    TrainSpec,
)
from actionvit.settings import public_names

SPECS = (OptimSpec, TrainSpec, SamplingSpec, LossSpec, AugmentSpec)


def setting_names() -> frozenset[str]:
    """Return the names that `make_finetune_spec` takes as keywords, but for `train` and `bf16`."""
    own = inspect.signature(make_finetune_spec).parameters.keys() - {"variant", "train", "bf16", "settings"}
    return frozenset(own).union(*(public_names(spec) for spec in SPECS))


def make_finetune_spec(
    variant: str,
    *,
    train: str = "last:1",
    bf16: bool = False,
    num_frames: int | None = None,
    size: int | None = None,
    num_clips: int = 1,
    crops: int = 3,
    tokens: bool | None = None,
    cached_views: int | None = None,
    token_precision: Literal["fp16", "fp32"] = "fp16",
    augment: bool = True,
    augment_flip: bool = True,
    head_init: Literal["probe", "zero"] = "probe",
    val_fraction: float = 0.2,
    refit: bool = True,
    final: bool = False,
    activation_checkpointing: bool = False,
    selection_metric: str | None = None,
    protocol: Any = None,
    folds: int = 5,
    test_fraction: float = 0.3,
    split: tuple[str, ...] = (),
    **settings: Any,
) -> FinetuneSpec:
    """Return a checked spec.

    Parameters
    ----------
    variant, train
        What is trained; see `FinetuneSpec`.
    bf16 : bool
        Compute matmuls in bf16.
    num_frames, size, num_clips, crops
        The test views.
    tokens : bool, optional
        Train from cached tokens; by default unless everything is trained or clips are blended.
    cached_views : int, optional
        By default 4 with tokens and augmentation, otherwise 0.
    selection_metric : str, optional
        By default accuracy, or mean class accuracy if classes are balanced.
    split : tuple of str
        Names of the splits to train on; empty for all.
    **settings
        Fields of `OptimSpec`, `TrainSpec`, `SamplingSpec`, `LossSpec` and `AugmentSpec` under their public names.

    Raises
    ------
    ValueError
        `name: got …`, for a setting that does not exist or is out of range.
    ActionVitError
        If settings contradict each other.
    """
    parts: dict[type, dict[str, Any]] = {}
    for spec in SPECS:
        fields = public_names(spec)
        parts[spec] = {fields[name]: settings.pop(name) for name in list(settings) if name in fields}
    if settings:
        raise ValueError(f"{min(settings)}: no such setting")
    loss, sampling = LossSpec(**parts[LossSpec]), SamplingSpec(**parts[SamplingSpec])
    balances = loss.class_weight != "none" or sampling.sampler == "balanced" or loss.logit_adjust > 0
    if tokens is None:
        tokens = not (sampling.mixup or sampling.cutmix) and train != "all"
    if cached_views is None:
        cached_views = 4 if tokens and augment else 0
    augmentation = AugmentSpec(flip=augment_flip, **parts[AugmentSpec])
    criterion: Any = selection_metric or ("mean_class_accuracy" if balances else "accuracy")
    return FinetuneSpec(
        variant=variant,
        train=train,
        clip=clip_spec(variant, frames=num_frames, size=size, clips=num_clips, crops=crops),
        augment=augmentation if augment else None,
        views=cached_views,
        tokens=token_precision if tokens else None,
        start=head_init,
        validation=val_fraction,
        refit=refit,
        final=final,
        checkpointing=activation_checkpointing,
        training=TrainSpec(
            **parts[TrainSpec],
            criterion=criterion,
            autocast=bf16,
            sampling=sampling,
            optim=OptimSpec(**parts[OptimSpec]),
            loss=loss,
        ),
        protocol=protocol,
        folds=folds,
        test_fraction=test_fraction,
        splits=split,
    )
