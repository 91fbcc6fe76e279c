"""TimeSformer (Bertasius et al., ICML 2021) with divided space-time attention: parameters, embeddings, folding.

Trainable: the folding in `TimeSformer.fold` is differentiable and cheap, so that training and inference share one
forward. For inference fold once and keep the result, as `features.timesformer.encoder` does.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actionvit.features.timesformer.checkpoint import Weights
from actionvit.features.timesformer.folded import Folded, FoldedBlock, Stem
from actionvit.features.timesformer.forward import Embedding, embed, run
from actionvit.features.timesformer.fused_linear import Linear
from actionvit.features.timesformer.variants import ModelShape


class Block(nn.Module):
    """The parameters of one block, under the names that weights are stored by."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        D = shape.width
        self.act = shape.act
        self.time_norm = nn.LayerNorm(D, eps=shape.eps)
        self.time_qkv = nn.Linear(D, 3 * D, bias=shape.qkv_bias)
        self.time_proj = nn.Linear(D, D)
        self.time_dense = nn.Linear(D, D)
        self.space_norm = nn.LayerNorm(D, eps=shape.eps)
        self.space_qkv = nn.Linear(D, 3 * D, bias=shape.qkv_bias)
        self.space_proj = nn.Linear(D, D)
        self.mlp_norm = nn.LayerNorm(D, eps=shape.eps)
        self.mlp_in = nn.Linear(D, shape.mlp)
        self.mlp_out = nn.Linear(shape.mlp, D)

    def fold(self) -> FoldedBlock:
        """Return the block's six products; see `features.timesformer.forward` for why they are exact."""
        # quick_gelu(x) = x·sigmoid(1.702x) = silu(1.702x) / 1.702
        scale, act = (1.702, "swish") if self.act == "quick_gelu" else (1.0, "gelu")
        weight, bias = _behind_norm(self.mlp_norm, self.mlp_in)
        dense = self.time_dense.weight
        return FoldedBlock(
            time_qkv=Linear(*_behind_norm(self.time_norm, self.time_qkv)),
            time_out=Linear(dense @ self.time_proj.weight, dense @ self.time_proj.bias + self.time_dense.bias),
            space_qkv=Linear(*_behind_norm(self.space_norm, self.space_qkv)),
            space_out=Linear(self.space_proj.weight, self.space_proj.bias),
            mlp_in=Linear(weight * scale, bias * scale, act),
            mlp_out=Linear(self.mlp_out.weight / scale, self.mlp_out.bias),
        )


def _behind_norm(norm: nn.LayerNorm, linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a linear layer that takes in the LayerNorm's scale and shift."""
    bias = linear.weight @ norm.bias
    return linear.weight * norm.weight, bias if linear.bias is None else bias + linear.bias


class TimeSformer(nn.Module):
    """Parameters of a model of some shape; a forward for any frame count and any size of whole patches.

    Position and time embeddings stored for another size or frame count are resampled to the nearest, as the
    published code does.
    """

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        D = shape.width
        self.cls = nn.Parameter(torch.zeros(1, 1, D))
        self.position = nn.Parameter(torch.zeros(1, 1 + shape.patches, D))
        self.time = nn.Parameter(torch.zeros(1, shape.num_frames, D))
        self.patch = nn.Conv2d(3, D, shape.patch, shape.patch, bias=shape.patch_bias)
        self.pre_norm = nn.LayerNorm(D, eps=shape.eps) if shape.pre_norm else None
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(D, eps=shape.eps)

    def positions(self, side: int) -> Tensor:
        """Return the position embedding (1 + side², D) for a grid of side × side patches."""
        own = round((self.position.shape[1] - 1) ** 0.5)
        if side == own:
            return self.position[0]
        grid = self.position[0, 1:].T.reshape(1, self.shape.width, own, own)
        grid = F.interpolate(grid, size=(side, side), mode="nearest").flatten(2).transpose(1, 2)
        return torch.cat([self.position[0, :1], grid[0]])

    def times(self, frames: int) -> Tensor:
        """Return the time embedding (T, D) for T = `frames`."""
        if frames == self.time.shape[1]:
            return self.time[0]
        return F.interpolate(self.time.transpose(1, 2), size=frames, mode="nearest")[0].T

    def stem(self, frames: int, size: int) -> Stem:
        """Return what embeds views of `frames` frames at `size` pixels; differentiable."""
        side, time = size // self.shape.patch, self.times(frames)[:, None, None]
        position = self.positions(side)
        cls, table = self.cls[0, 0] + position[0], position[None, None, 1:]
        bias = self.patch.bias if self.patch.bias is not None else position.new_zeros(self.shape.width)
        patch = Linear(self.patch.weight.flatten(1), bias)
        if self.pre_norm is None:
            return Stem(patch, side, cls, table + time)
        norm = (self.pre_norm.weight, self.pre_norm.bias)
        return Stem(patch, side, self.pre_norm(cls), table, norm, time, self.shape.eps)

    def fold(self, first: int = 0) -> Folded:
        """Return the blocks' weights from block `first` (counted from 0) on, folded; differentiable."""
        if not 0 <= first < self.shape.depth:
            raise ValueError(f"first block: got {first}, expected 0 to {self.shape.depth - 1}")
        blocks = tuple(block.fold() for block in self.blocks[first:] if isinstance(block, Block))
        return Folded(blocks, (self.norm.weight, self.norm.bias), self.shape.heads, self.shape.eps, first)

    def forward(
        self,
        pixels: Tensor,
        *,
        mean_pool: bool = False,
        layers: Collection[int] = (),
        tokens_after: int | None = None,
    ) -> Embedding:
        """Embed pixels (B, T, 3, S, S), normalised; see `forward.run` for the options."""
        x = embed(pixels, self.stem(pixels.shape[1], pixels.shape[-1]))
        return run(x, self.fold(), mean_pool=mean_pool, layers=layers, tokens_after=tokens_after)

    def forward_from(self, tokens: Tensor, block: int, *, mean_pool: bool = False) -> Embedding:
        """Go on from tokens (B, T, 1 + P, D) kept after `block` blocks; gradients reach the blocks behind them."""
        return run(tokens.transpose(0, 1), self.fold(block), mean_pool=mean_pool)


def pretrained(weights: Weights) -> TimeSformer:
    """Return the model with its weights, without drawing random ones first."""
    tensors = {name: tensor for name, tensor in weights.load().items() if not name.startswith("head.")}
    with torch.device("meta"):
        model = TimeSformer(weights.shape)
    model.load_state_dict(tensors, assign=True)
    return model
