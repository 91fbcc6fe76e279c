"""TimeSformer (Bertasius et al., ICML 2021) with divided space-time attention: parameters, and folding them.

`TimeSformer.fold` is differentiable and cheap, so training and inference share one forward. For inference, fold once
and keep the result, as `features.timesformer.encoder` does.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actionvit.features.timesformer.checkpoint import Weights
from actionvit.features.timesformer.config import TimeSformerConfig
from actionvit.features.timesformer.forward import (
    EncoderOutput,
    FoldedBlock,
    FoldedModel,
    PatchEmbedding,
    embed_patches,
    run_blocks,
)
from actionvit.features.timesformer.fused_linear import FusedLinear


class Block(nn.Module):
    """The parameters of one block, under the names of `state_dict.tensor_shapes`."""

    def __init__(self, config: TimeSformerConfig) -> None:
        super().__init__()
        D = config.width
        self.act = config.act
        self.time_norm = nn.LayerNorm(D, eps=config.eps)
        self.time_qkv = nn.Linear(D, 3 * D, bias=config.qkv_bias)
        self.time_proj = nn.Linear(D, D)
        self.time_dense = nn.Linear(D, D)
        self.space_norm = nn.LayerNorm(D, eps=config.eps)
        self.space_qkv = nn.Linear(D, 3 * D, bias=config.qkv_bias)
        self.space_proj = nn.Linear(D, D)
        self.mlp_norm = nn.LayerNorm(D, eps=config.eps)
        self.mlp_in = nn.Linear(D, config.mlp)
        self.mlp_out = nn.Linear(config.mlp, D)

    def fold(self) -> FoldedBlock:
        """Return the block's six matmuls; `features.timesformer.forward` explains why they are exact."""
        # quick_gelu(x) = x·sigmoid(1.702x) = silu(1.702x) / 1.702
        scale, act = (1.702, "swish") if self.act == "quick_gelu" else (1.0, "gelu")
        weight, bias = _fold_norm(self.mlp_norm, self.mlp_in)
        dense = self.time_dense.weight
        return FoldedBlock(
            time_qkv=FusedLinear(*_fold_norm(self.time_norm, self.time_qkv)),
            time_out=FusedLinear(dense @ self.time_proj.weight, dense @ self.time_proj.bias + self.time_dense.bias),
            space_qkv=FusedLinear(*_fold_norm(self.space_norm, self.space_qkv)),
            space_out=FusedLinear(self.space_proj.weight, self.space_proj.bias),
            mlp_in=FusedLinear(weight * scale, bias * scale, act),
            mlp_out=FusedLinear(self.mlp_out.weight / scale, self.mlp_out.bias),
        )


def _fold_norm(norm: nn.LayerNorm, linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a linear layer with the scale and shift of the LayerNorm before it."""
    bias = linear.weight @ norm.bias
    return linear.weight * norm.weight, bias if linear.bias is None else bias + linear.bias


class TimeSformer(nn.Module):
    """Parameters of a model, and a forward for any frame count and any size that is a whole number of patches.

    Position and time embeddings stored for another size or frame count are resampled to the nearest, as in the
    published code.
    """

    def __init__(self, config: TimeSformerConfig) -> None:
        super().__init__()
        self.config = config
        D = config.width
        self.cls = nn.Parameter(torch.zeros(1, 1, D))
        self.position = nn.Parameter(torch.zeros(1, 1 + config.patches, D))
        self.time = nn.Parameter(torch.zeros(1, config.num_frames, D))
        self.patch = nn.Conv2d(3, D, config.patch, config.patch, bias=config.patch_bias)
        self.pre_norm = nn.LayerNorm(D, eps=config.eps) if config.pre_norm else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(D, eps=config.eps)

    def positions(self, side: int) -> Tensor:
        """Return the position embedding (1 + side², D) for a grid of side × side patches."""
        stored = round((self.position.shape[1] - 1) ** 0.5)
        if side == stored:
            return self.position[0]
        grid = self.position[0, 1:].T.reshape(1, self.config.width, stored, stored)
        grid = F.interpolate(grid, size=(side, side), mode="nearest").flatten(2).transpose(1, 2)
        return torch.cat([self.position[0, :1], grid[0]])

    def times(self, num_frames: int) -> Tensor:
        """Return the time embedding (num_frames, D)."""
        if num_frames == self.time.shape[1]:
            return self.time[0]
        return F.interpolate(self.time.transpose(1, 2), size=num_frames, mode="nearest")[0].T

    def patch_embedding(self, num_frames: int, size: int) -> PatchEmbedding:
        """Return the weights that embed views of `num_frames` frames of `size` pixels; differentiable."""
        side, time = size // self.config.patch, self.times(num_frames)[:, None, None]
        position = self.positions(side)
        cls, table = self.cls[0, 0] + position[0], position[None, None, 1:]
        bias = self.patch.bias if self.patch.bias is not None else position.new_zeros(self.config.width)
        patch = FusedLinear(self.patch.weight.flatten(1), bias)
        if self.pre_norm is None:
            return PatchEmbedding(patch, side, cls, table + time)
        norm = (self.pre_norm.weight, self.pre_norm.bias)
        return PatchEmbedding(patch, side, self.pre_norm(cls), table, norm, time, self.config.eps)

    def fold(self, first: int = 0) -> FoldedModel:
        """Return the folded weights of the blocks from `first` (counted from 0) on; differentiable."""
        if not 0 <= first < self.config.depth:
            raise ValueError(f"first: got {first}, expected 0 to {self.config.depth - 1}")
        blocks = tuple(block.fold() for block in self.blocks[first:] if isinstance(block, Block))
        return FoldedModel(blocks, (self.norm.weight, self.norm.bias), self.config.heads, self.config.eps, first)

    def forward(
        self,
        pixels: Tensor,
        *,
        mean_pool: bool = False,
        layers: Collection[int] = (),
        tokens_after: int | None = None,
    ) -> EncoderOutput:
        """Embed normalized pixels (B, T, 3, S, S); see `forward.run_blocks` for the options."""
        x = embed_patches(pixels, self.patch_embedding(pixels.shape[1], pixels.shape[-1]))
        return run_blocks(x, self.fold(), mean_pool=mean_pool, layers=layers, tokens_after=tokens_after)


def load_timesformer(weights: Weights) -> TimeSformer:
    """Return the model with its weights, without drawing random ones first."""
    tensors = {name: tensor for name, tensor in weights.load().items() if not name.startswith("head.")}
    with torch.device("meta"):
        model = TimeSformer(weights.config)
    model.load_state_dict(tensors, assign=True)
    return model
