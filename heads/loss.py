"""Cross-entropy with soft targets, class weights, logit adjustment and focal weighting."""

from __future__ import annotations

import torch
from torch import Tensor


def weighted_loss(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor,
    shift: Tensor,
    focal: float = 0.0,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the loss of each row, (B,).

    Parameters
    ----------
    logits, target : Tensor of shape (B, C)
        Targets are class probabilities before label smoothing.
    weight : Tensor of shape (C,)
        Weight of each class.
    shift : Tensor of shape (C,)
        Added to the logits: τ log π for logit adjustment (Menon et al., ICLR 2021).
    focal : float
        γ of the focal loss (Lin et al., ICCV 2017); 0 is cross-entropy.
    label_smoothing : float
        Fraction of every target that is spread evenly over all classes.
    """
    log_proba = (logits.float() + shift).log_softmax(1)
    smoothed = target * (1 - label_smoothing) + label_smoothing / target.shape[1] if label_smoothing else target
    loss = -(smoothed * log_proba).sum(1) * (target @ weight)
    if focal:
        # Clamped above 0: for γ < 1 the slope of x**γ is infinite at 0, and the gradient would be NaN.
        missed = (1 - (target * log_proba).sum(1).exp()).clamp_min(torch.finfo(log_proba.dtype).eps)
        loss = loss * missed**focal
    return loss
