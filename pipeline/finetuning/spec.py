"""What is asked of a fine-tuning, and what a training tells on its way."""

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
Start = Literal["probe", "zero"]
Kept = Literal["fp16", "fp32"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSpec:
    """Everything of a training but the data and the model."""

    epochs: int = 20
    patience: int = 8
    """Epochs without a better score after which training stops; 0 to go to the end."""
    criterion: Criterion = "accuracy"
    """What the best epoch is the best in, on the validation part; of equals the lower log-loss."""
    micro_batch: int | None = None
    """Clips computed at once on a rank; a step adds up as many as it takes. By default the rank's whole share."""
    drop_path: float = 0.1
    """Chance of the last but one block to be left out of a clip's way; trained blocks below have less, in proportion,
    down to 0 for the first. The last block is never left out."""
    autocast: bool = False
    """Compute products in bf16, weights stay fp32."""
    sampling: SamplingSpec
    optim: OptimSpec = field(default_factory=OptimSpec)
    loss: LossSpec = field(default_factory=LossSpec)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneSpec:
    """What is asked of a fine-tuning; with the dataset and the weights it decides every number."""

    variant: str
    train: str = "last:1"
    """`head`, `last:K` blocks with everything above, or `all`."""
    clip: ClipSpec
    """The plain views: what is validated and tested on, averaged over its K views."""
    augment: AugmentSpec | None = field(default_factory=AugmentSpec)
    views: int = 0
    """Different training views a clip; 0 for a fresh one every time, which no cache can hold."""
    tokens: Kept | None = None
    """Train from cached tokens, kept in this precision; None to decode and to run the frozen blocks every time."""
    start: Start = "probe"
    """Whether the head starts as the linear probe of the training part (LP-FT: Kumar et al., ICLR 2022), or at zero."""
    validation: float = 0.2
    """Share of the training set, by source, that chooses the epoch and the temperature."""
    checkpointing: bool = False
    training: TrainSpec
    protocol: Protocol | None = None
    folds: int = 5
    test_fraction: float = 0.3
    splits: tuple[str, ...] = ()
    """Names of the splits to do; all of them where it is empty."""

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        mixes = self.training.sampling.mixup or self.training.sampling.cutmix
        if self.tokens and mixes:
            raise ActionVitError("--mixup and --cutmix blend pixels, and cached tokens have none: add --no-tokens")
        if self.tokens and self.train == "all":
            raise ActionVitError("--train all trains every block, and no token outlives a step: add --no-tokens")
        if self.tokens and self.augment and not self.views:
            raise ActionVitError(
                "--cached-views 0 draws fresh views, and cached tokens hold fixed ones: give --cached-views 4, say"
            )
        if not 0 < self.validation < 1:
            raise ActionVitError(f"--val-fraction: got {self.validation}, expected between 0 and 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a training stands, after each step."""

    epoch: int
    step: int
    steps: int
    loss: float
    """Mean over this epoch's clips so far, on this rank."""
    accuracy: float
    lr: float
    clips_per_second: float


@dataclass(slots=True, kw_only=True)
class State:
    """What a checkpoint holds beside tensors."""

    epoch: int = -1
    """Last finished epoch; 0 is the start, scored before any step."""
    best_epoch: int = 0
    best_score: tuple[float, float] = (float("-inf"), float("-inf"))
    history: list[dict[str, float]] = field(default_factory=list)
    averaged: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    """Clips that did not decode so far, and why: a training that goes on after its end decodes none."""
