"""A model's weights as the forward pass wants them: folded, moved, laid out. Plain containers of linear layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from actionvit.features.timesformer.attention import attend_time
from actionvit.features.timesformer.fused_linear import Linear


@dataclass(frozen=True, slots=True)
class FoldedBlock:
    """One block's linear layers, LayerNorm and scaling inside."""

    time_qkv: Linear
    time_out: Linear
    space_qkv: Linear
    space_out: Linear
    mlp_in: Linear
    mlp_out: Linear

    def each(self, change: Callable[[Linear], Linear]) -> FoldedBlock:
        """Return the block with every linear layer changed."""
        return FoldedBlock(*(change(getattr(self, each.name)) for each in fields(self)))


def normalise(x: Tensor, eps: float) -> Tensor:
    """LayerNorm of each row (..., D); scale and shift are in the linear layer behind."""
    return F.layer_norm(x, x.shape[-1:], eps=eps)


@dataclass(frozen=True, slots=True)
class Folded:
    """The blocks' weights from some block on, ready for `run`."""

    blocks: tuple[FoldedBlock, ...]
    norm: tuple[Tensor, Tensor]
    heads: int
    eps: float
    first: int = 0
    """Blocks left out before these."""
    attend_time: Callable[[Tensor, int], Tensor] = attend_time
    """What attends over frames; for a GPU there is a kernel of our own."""
    normalise: Callable[[Tensor, float], Tensor] = normalise
    """What normalises rows; likewise."""

    def to(self, device: torch.device, dtype: torch.dtype) -> Folded:
        """Return the weights elsewhere, unpacked."""
        blocks = tuple(block.each(lambda linear: linear.to(device, dtype)) for block in self.blocks)
        weight, bias = self.norm
        return replace(self, blocks=blocks, norm=(weight.to(device, dtype), bias.to(device, dtype)))

    def pack(self, rows: int) -> Folded:
        """Return the weights laid out for products of about `rows` rows; for inference."""
        return replace(self, blocks=tuple(block.each(lambda linear: linear.pack(rows)) for block in self.blocks))


@dataclass(frozen=True, slots=True)
class Stem:
    """What makes a residual stream of pixels, for one frame count and size."""

    patch: Linear
    """From a patch's 3·p·p pixels to D."""
    side: int
    """Patches a row."""
    cls: Tensor
    """(D,): the CLS token with its position, through `pre_norm` already."""
    table: Tensor
    """(T or 1, 1, P, D): added to the patches; position, and time too unless a LayerNorm stands between."""
    pre_norm: tuple[Tensor, Tensor] | None = None
    time: Tensor | None = None
    """(T, 1, 1, D): added after `pre_norm`."""
    eps: float = 1e-6

    def to(self, device: torch.device, dtype: torch.dtype) -> Stem:
        """Return the stem elsewhere, unpacked."""
        weight, bias = self.pre_norm or (None, None)
        moved = [None if each is None else each.to(device, dtype) for each in (weight, bias, self.time)]
        norm = None if moved[0] is None or moved[1] is None else (moved[0], moved[1])
        cls, table = self.cls.to(device, dtype), self.table.to(device, dtype)
        return Stem(self.patch.to(device, dtype), self.side, cls, table, norm, moved[2], self.eps)

    def pack(self) -> Stem:
        """Return the stem with its product laid out for inference."""
        return replace(self, patch=self.patch.pack(self.table.shape[0] * self.table.shape[2]))
