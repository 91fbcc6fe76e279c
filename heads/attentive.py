"""Attention over frames: learned queries pool frame-level embeddings before a linear classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from actionvit.heads.gradient import Dropout, GradientHead
from actionvit.heads.weighting import ClassWeight, Sampler

if TYPE_CHECKING:
    from torch import Generator, Tensor


class AttentiveProbe(GradientHead):
    """Attention pooling by learned queries over the frames of a clip, followed by a linear classifier.

    The smallest form of the attentive probe for frozen video encoders (Bardes et al., V-JEPA, 2024): keys and values
    are linear in the frames, so their matrices are folded into the queries and the classifier. A bias per query
    and position can express, for example, attention to the end of the clip. Queries start near 0 and the classifier at
    0, so training starts from the mean over frames with uniform predictions.

    Parameters
    ----------
    queries : int
        Q, weighted means per clip.
    epochs, batch : int
        Passes over the training rows; rows per step.
    lr, weight_decay : float
        Parameters of AdamW.
    dropout : float
        Fraction of pooled features dropped in training.
    class_weight, sampler, logit_adjust
        See `weighting`; the loss is computed on logits + τ log π (Menon et al., ICLR 2021).
    focal : float
        γ of the focal loss (Lin et al., ICCV 2017); 0 is cross-entropy.
    device : str
        Device for training; predictions are computed on the CPU.
    random_state : int
        Seed of initial weights, row order and dropout.

    Attributes
    ----------
    weights_ : dict of ndarray
        `query (D, Q)`, `position (T, Q)`, `out (Q, D, C)`, `out_bias (C,)`.
    mean_, scale_ : ndarray of shape (D,)
    """

    default_grid: ClassVar[dict[str, tuple[Any, ...]]] = {"queries": (1, 4), "epochs": (10, 30, 100)}

    def __init__(
        self,
        *,
        queries: int = 4,
        epochs: int = 30,
        lr: float = 1e-3,
        weight_decay: float = 0.3,
        batch: int = 128,
        dropout: float = 0.3,
        class_weight: ClassWeight | Mapping[Any, float] | None = None,
        sampler: Sampler = "uniform",
        logit_adjust: float = 0.0,
        focal: float = 0.0,
        device: str = "cpu",
        random_state: int = 0,
    ) -> None:
        self.queries = queries
        self.epochs = epochs
        self.lr = lr
        self.weight_decay = weight_decay
        self.batch = batch
        self.dropout = dropout
        self.class_weight = class_weight
        self.sampler = sampler
        self.logit_adjust = logit_adjust
        self.focal = focal
        self.device = device
        self.random_state = random_state

    def _check_params(self, checkpoints: Sequence[int]) -> None:
        super()._check_params(checkpoints)
        if self.queries < 1:
            raise ValueError(f"queries: got {self.queries}, expected at least 1")

    def _initial(self, shape: tuple[int, ...], n_classes: int, generator: Generator) -> dict[str, Tensor]:
        import torch

        width, frames = shape[-1], shape[0] if len(shape) > 1 else 1
        return {
            # Not exactly 0: equal queries would receive equal gradients and stay equal.
            "query": torch.randn(width, self.queries, generator=generator) * 1e-2,
            "position": torch.zeros(frames, self.queries),
            "out": torch.zeros(self.queries, width, n_classes),
            "out_bias": torch.zeros(n_classes),
        }

    def _logits(self, params: dict[str, Tensor], x: Tensor, drop: Dropout | None) -> Tensor:
        frames = x if x.ndim == 3 else x[:, None]  # (B, T, D); a clip embedding counts as one frame
        score = frames @ params["query"] / x.shape[-1] ** 0.5 + params["position"]
        pooled = score.softmax(dim=1).transpose(1, 2) @ frames  # (B, Q, D)
        pooled = drop(pooled) if drop else pooled
        return pooled.flatten(1) @ params["out"].flatten(0, 1) + params["out_bias"]
