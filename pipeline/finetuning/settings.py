"""The spec of a fine-tuning from settings under their public names, with the defaults that depend on other settings."""

from __future__ import annotations

import inspect
from typing import Any, Literal, TypeVar

from actionvit.errors import ActionVitError
from actionvit.features.timesformer.variants import clip_spec
from actionvit.pipeline.finetuning.spec import (
    AugmentSpec,
    FinetuneSpec,
    LossSpec,
    OptimSpec,
    SamplingSpec,
    TrainSpec,
)
from actionvit.settings import make_spec, public_names

S = TypeVar("S")
SPECS = (OptimSpec, TrainSpec, SamplingSpec, LossSpec, AugmentSpec)


def setting_names() -> frozenset[str]:
    """Return the names that `make_finetune_spec` takes as keywords, but for `train` and `bf16`."""
    parameters = inspect.signature(make_finetune_spec).parameters.keys() - {"variant", "train", "bf16", "settings"}
    return frozenset(parameters).union(*(public_names(spec) for spec in SPECS))


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
        The encoder and its trained part; see `FinetuneSpec`.
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
    ActionVitError
        If a setting does not exist or is out of range, or if settings contradict each other.
    """

    def part(spec: type[S], **more: Any) -> S:
        fields = {name: settings.pop(name) for name in public_names(spec) if name in settings}
        return make_spec(spec, fields, **more)

    loss, sampling, optim = part(LossSpec), part(SamplingSpec), part(OptimSpec)
    augmentation = part(AugmentSpec, flip=augment_flip)
    balances = loss.class_weight != "none" or sampling.sampler == "balanced" or loss.logit_adjust > 0
    if tokens is None:
        tokens = not (sampling.mixup or sampling.cutmix) and train != "all"
    if cached_views is None:
        cached_views = 4 if tokens and augment else 0
    criterion: Any = selection_metric or ("mean_class_accuracy" if balances else "accuracy")
    training = part(TrainSpec, criterion=criterion, autocast=bf16, sampling=sampling, optim=optim, loss=loss)
    if settings:
        raise ActionVitError(f"{min(settings)}: no such setting")
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
        training=training,
        protocol=protocol,
        folds=folds,
        test_fraction=test_fraction,
        splits=split,
    )
