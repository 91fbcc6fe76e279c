"""What a training clip costs: cross-entropy with soft targets, class weights, logit adjustment and focus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actionvit.heads.weighting import ClassWeight, class_weights, log_prior
from actionvit.pipeline.finetuning.clips import Loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSpec:
    """The same choices as a probe's, and label smoothing."""

    class_weight: ClassWeight = "none"
    logit_adjust: float = 0.0
    """τ: τ · log frequency is added to training logits (Menon et al., ICLR 2021)."""
    focal: float = 0.0
    """γ of the focal loss (Lin et al., ICCV 2017)."""
    label_smoothing: float = 0.1
    """Share of every target that goes to all classes alike."""

    def __post_init__(self) -> None:
        """Refuse what no loss can be."""
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing: got {self.label_smoothing}, expected 0 to below 1")


class Loss:
    """Losses of a training set with these labels.

    Parameters
    ----------
    spec : LossSpec
    y : ndarray of shape (n,)
        Class numbers of the training videos.
    n_classes : int
    device : str
    """

    def __init__(self, spec: LossSpec, y: NDArray[np.intp], n_classes: int, device: str) -> None:
        self.spec, self.n_classes = spec, n_classes
        weight = class_weights(y, n_classes, spec.class_weight)
        # A class without a clip counts as if it had one: with a share near 0 in its place, label smoothing would raise
        # its logit in every step.
        shift = spec.logit_adjust * np.maximum(log_prior(y, n_classes), -np.log(len(y)))
        self.weight = torch.from_numpy(weight.astype(np.float32)).to(device)
        self.shift = torch.from_numpy(shift.astype(np.float32)).to(device)

    def targets(self, loaded: Loaded, y: NDArray[np.intp]) -> Tensor:
        """Return the share of each class in each input, (b, C), not smoothed; y holds the class of each video."""
        share = np.zeros((len(loaded.items), self.n_classes), dtype=np.float32)
        for row, (item, own) in enumerate(zip(loaded.items, loaded.share, strict=True)):
            share[row, y[item.video]] += own
            if item.mix is not None:
                share[row, y[item.mix.video]] += 1 - own
        return torch.from_numpy(share).to(self.weight.device)

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return each clip's loss, (b,), of logits and targets (b, C)."""
        log_proba = (logits.float() + self.shift).log_softmax(1)
        smoothed = target * (1 - self.spec.label_smoothing) + self.spec.label_smoothing / self.n_classes
        loss = -(smoothed * log_proba).sum(1) * (target @ self.weight)
        if self.spec.focal:
            # Not from 0: below γ = 1 the power's slope is infinite there, and the gradient of a sure clip no number.
            missed = (1 - (target * log_proba).sum(1).exp()).clamp_min(torch.finfo(torch.float32).eps)
            loss = loss * missed**self.spec.focal
        return loss


def right(logits: Tensor, target: Tensor) -> int:
    """Return how many of the highest logits stand at the highest target."""
    return int((logits.argmax(1) == target.argmax(1)).sum())
