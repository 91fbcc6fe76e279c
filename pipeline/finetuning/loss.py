"""Training loss: cross-entropy with soft targets, class weights, logit adjustment and focal weighting."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actionvit.heads.loss import weighted_loss
from actionvit.heads.weighting import class_weights, log_prior
from actionvit.pipeline.finetuning.clips import Batch
from actionvit.pipeline.finetuning.spec import LossSpec


class Loss:
    """Per-clip loss, with class weights and priors estimated from the training labels.

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
        # A class without clips is given the prior of one clip: with a prior near 0, label smoothing would raise its
        # logit in every step.
        shift = spec.logit_adjust * np.maximum(log_prior(y, n_classes), -np.log(len(y)))
        self.weight = torch.from_numpy(weight.astype(np.float32)).to(device)
        self.shift = torch.from_numpy(shift.astype(np.float32)).to(device)

    def targets(self, batch: Batch, y: NDArray[np.intp]) -> Tensor:
        """Return class probabilities of each input, (b, C), before label smoothing; y holds each video's class."""
        target = np.zeros((len(batch.samples), self.n_classes), dtype=np.float32)
        for row, (sample, weight) in enumerate(zip(batch.samples, batch.weight, strict=True)):
            target[row, y[sample.video]] += weight
            if sample.mix is not None:
                target[row, y[sample.mix.video]] += 1 - weight
        return torch.from_numpy(target).to(self.weight.device)

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each clip, (b,), from logits and targets (b, C)."""
        return weighted_loss(
            logits,
            target,
            weight=self.weight,
            shift=self.shift,
            focal=self.spec.focal,
            label_smoothing=self.spec.label_smoothing,
        )


def num_correct(logits: Tensor, target: Tensor) -> int:
    """Return the number of rows whose highest logit is at the highest target."""
    return int((logits.argmax(1) == target.argmax(1)).sum())
