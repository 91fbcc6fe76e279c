"""Settings of a fine-tuning, its progress, and the state that checkpoints hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from actionvit.errors import ActionVitError
from actionvit.features.sampling import ClipSpec
from actionvit.pipeline.datasets.dataset import Protocol
from actionvit.pipeline.finetuning.augment import AugmentSpec
from actionvit.pipeline.finetuning.loss import LossSpec
from actionvit.pipeline.finetuning.sampling import SamplingSpec
from actionvit.pipeline.finetuning.schedule import OptimSpec

Criterion = Literal["accuracy", "mean_class_accuracy", "log_loss"]
HeadInit = Literal["probe", "zero"]
TokenDtype = Literal["fp16", "fp32"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSpec:
    """Settings of the training loop."""

    epochs: int = 20
    """Maximum number of epochs."""
    patience: int = 8
    """Epochs without a better validation score after which training stops; 0 disables early stopping."""
    criterion: Criterion = "accuracy"
    """Validation metric that selects the epoch; ties are broken by the lower log loss."""
    micro_batch: int | None = None
    """Clips computed at once on a rank; gradients are accumulated over a step. By default all of the rank's clips."""
    drop_path: float = 0.1
    """Stochastic-depth rate of the second-to-last block; earlier trained blocks scale down linearly, to 0 for the first
    block. The last block is never dropped."""
    autocast: bool = False
    """Compute matmuls in bf16; weights stay fp32."""
    sampling: SamplingSpec
    optim: OptimSpec = field(default_factory=OptimSpec)
    loss: LossSpec = field(default_factory=LossSpec)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneSpec:
    """Settings of a fine-tuning; together with the dataset and the weights they determine every number."""

    variant: str
    train: str = "last:1"
    """`head`, `last:K` blocks with everything above, or `all`."""
    clip: ClipSpec
    """The plain views, which are validated and tested on; scores are averaged over the K views."""
    augment: AugmentSpec | None = field(default_factory=AugmentSpec)
    views: int = 0
    """Different training views per clip; 0 draws a new one each time, which cannot be cached."""
    tokens: TokenDtype | None = None
    """Train from cached tokens of this precision; None to decode and to run the frozen blocks each time."""
    start: HeadInit = "probe"
    """`probe`: the head starts as the linear probe of the training set (Kumar et al., ICLR 2022). `zero`: at 0."""
    validation: float = 0.2
    """Fraction of the training set, by source, that selects the epoch and fits the temperature."""
    checkpointing: bool = False
    """Activation checkpointing."""
    training: TrainSpec
    protocol: Protocol | None = None
    folds: int = 5
    test_fraction: float = 0.3
    splits: tuple[str, ...] = ()
    """Names of the splits to train on; empty for all."""

    def __post_init__(self) -> None:
        """Validate the combination of fields."""
        mixes = self.training.sampling.mixup or self.training.sampling.cutmix
        if self.tokens and mixes:
            raise ActionVitError("--mixup and --cutmix blend pixels, which cached tokens do not hold: add --no-tokens")
        if self.tokens and self.train == "all":
            raise ActionVitError("--train all trains every block, so tokens cannot be cached: add --no-tokens")
        if self.tokens and self.augment and not self.views:
            raise ActionVitError(
                "--cached-views 0 draws new views, and cached tokens hold fixed ones: use --cached-views 4"
            )
        if not 0 < self.validation < 1:
            raise ActionVitError(f"--val-fraction: got {self.validation}, expected between 0 and 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Running values of an epoch, after a step."""

    epoch: int
    step: int
    steps: int
    loss: float
    """Mean over this epoch's clips so far, on this rank."""
    accuracy: float
    lr: float
    clips_per_second: float


@dataclass(slots=True, kw_only=True)
class TrainerState:
    """The part of a checkpoint that is not tensors."""

    epoch: int = -1
    """Last finished epoch; 0 is the initial model, scored before the first step."""
    best_epoch: int = 0
    best_score: tuple[float, float] = (float("-inf"), float("-inf"))
    history: list[dict[str, float]] = field(default_factory=list)
    averaged: int = 0
    """Steps in the EMA."""
    failures: dict[str, str] = field(default_factory=dict)
    """Reason by id of the clips that did not decode so far; a resumed training does not decode them again."""
