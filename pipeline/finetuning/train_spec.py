"""What is asked of a training, what it tells on its way, and how its epochs are judged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from actionvit.pipeline.finetuning.loss import LossSpec, view_mean
from actionvit.pipeline.finetuning.sampling import SamplingSpec
from actionvit.pipeline.finetuning.schedule import OptimSpec

Criterion = Literal["accuracy", "mean_class_accuracy", "log_loss"]


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
    """Chance of the last but one block to be left out of a clip's way; blocks below have less, in proportion."""
    autocast: bool = False
    """Compute products in bf16, weights stay fp32."""
    sampling: SamplingSpec
    optim: OptimSpec = field(default_factory=OptimSpec)
    loss: LossSpec = field(default_factory=LossSpec)


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


def judged(logits: NDArray[np.float64], known: NDArray[np.bool_], y: NDArray[np.intp]) -> dict[str, float]:
    """Return accuracy, mean class accuracy and log-loss of clips with logits (n, K, C)."""
    scores, y = view_mean(logits)[known], y[known]
    if not len(y):
        return {"accuracy": 0.0, "mean_class_accuracy": 0.0, "log_loss": 0.0}
    hit, there = scores.argmax(1) == y, np.bincount(y)
    own = np.maximum(scores[np.arange(len(y)), y], np.finfo(np.float32).eps)
    recall = np.bincount(y, weights=hit)[there > 0] / there[there > 0]
    return {
        "accuracy": float(hit.mean()),
        "mean_class_accuracy": float(recall.mean()),
        "log_loss": float(-np.log(own).mean()),
    }
