"""A network with one hidden layer on clip embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from actionvit.heads.gradient import Dropout, GradientHead
from actionvit.heads.weighting import ClassWeight, Sampler

if TYPE_CHECKING:
    from torch import Generator, Tensor


class MLPProbe(GradientHead):
    """Linear, GELU, dropout, linear.

    Parameters
    ----------
    width : int
        Hidden units.
    epochs, batch : int
        Passes over the training rows; rows per step.
    lr, weight_decay : float
        Parameters of AdamW.
    dropout : float
        Fraction of hidden units dropped in training.
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
        `hidden (D, width)`, `hidden_bias`, `out (width, C)`, `out_bias`.
    mean_, scale_ : ndarray of shape (D,)
    """

    accepts_frames = False
    default_grid: ClassVar[dict[str, tuple[Any, ...]]] = {"width": (64, 256), "epochs": (10, 30, 100)}

    def __init__(
        self,
        *,
        width: int = 256,
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
        self.width = width
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
        if self.width < 1:
            raise ValueError(f"width: got {self.width}, expected at least 1")

    def _initial(self, shape: tuple[int, ...], n_classes: int, generator: Generator) -> dict[str, Tensor]:
        import torch

        return {
            "hidden": torch.randn(shape[0], self.width, generator=generator) / shape[0] ** 0.5,
            "hidden_bias": torch.zeros(self.width),
            "out": torch.randn(self.width, n_classes, generator=generator) / self.width**0.5,
            "out_bias": torch.zeros(n_classes),
        }

    def _logits(self, params: dict[str, Tensor], x: Tensor, drop: Dropout | None) -> Tensor:
        from torch.nn.functional import gelu

        hidden = gelu(x @ params["hidden"] + params["hidden_bias"])
        return (drop(hidden) if drop else hidden) @ params["out"] + params["out_bias"]
