"""The forward pass of a TimeSformer over folded weights: the same numbers in fewer matmuls and fewer memory passes.

Shape letters: B views, T frames, N = 1 + P tokens per frame (the CLS token first), D width, H heads, d = D / H.

The residual stream lies in memory as (T, B, N, D): time attention reads it as sequences (B·N, T), space attention as
sequences (T·B, N), both by strides alone. Each frame carries its own copy of the clip's CLS token, equal in all frames
between blocks; that costs 1/N more tokens and avoids every split, repeat and concatenation.

Exact identities, applied once when weights are folded:

- `temporal_dense(temporal_proj(x))` is one matrix;
- a LayerNorm's scale and shift belong to the linear layer that follows it;
- quick_gelu(x) = x·sigmoid(1.702x) is silu with 1.702 moved into the matrices around it;
- the last block needs only CLS tokens: their queries go through the keys' matrix and their weighted sums through the
  values' matrix (H vectors per frame, instead of keys and values for all N tokens), and the MLP sees T + 1 tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from actionvit.features.timesformer.attention import attend_space, attend_time, normalize
from actionvit.features.timesformer.fused_linear import FusedLinear


@dataclass(frozen=True, slots=True)
class PatchEmbedding:
    """Weights that turn pixels into the residual stream, for one frame count and size."""

    patch: FusedLinear
    """From a patch's 3·p·p pixels to D."""
    side: int
    """Patches per row."""
    cls: Tensor
    """(D,): the CLS token with its position, after `pre_norm`."""
    table: Tensor
    """(T or 1, 1, P, D): position embedding of the patches, including time unless `pre_norm` comes between."""
    pre_norm: tuple[Tensor, Tensor] | None = None
    time: Tensor | None = None
    """(T, 1, 1, D): time embedding, added after `pre_norm`."""
    eps: float = 1e-6

    def to(self, device: torch.device, dtype: torch.dtype) -> PatchEmbedding:
        """Return the weights on another device, not prepacked."""
        norm = self.pre_norm and (self.pre_norm[0].to(device, dtype), self.pre_norm[1].to(device, dtype))
        time = None if self.time is None else self.time.to(device, dtype)
        cls, table = self.cls.to(device, dtype), self.table.to(device, dtype)
        return PatchEmbedding(self.patch.to(device, dtype), self.side, cls, table, norm, time, self.eps)

    def prepack(self) -> PatchEmbedding:
        """Return the weights laid out for inference."""
        return replace(self, patch=self.patch.prepack(self.table.shape[0] * self.table.shape[2]))


@dataclass(frozen=True, slots=True)
class FoldedBlock:
    """One block's linear layers, with LayerNorms and scaling folded in."""

    time_qkv: FusedLinear
    time_out: FusedLinear
    space_qkv: FusedLinear
    space_out: FusedLinear
    mlp_in: FusedLinear
    mlp_out: FusedLinear

    def map(self, change: Callable[[FusedLinear], FusedLinear]) -> FoldedBlock:
        """Return the block with `change` applied to every linear layer."""
        return FoldedBlock(*(change(getattr(self, layer.name)) for layer in fields(self)))


@dataclass(frozen=True, slots=True)
class FoldedModel:
    """Folded weights of the blocks from block `first` on, as `run_blocks` takes them."""

    blocks: tuple[FoldedBlock, ...]
    norm: tuple[Tensor, Tensor]
    heads: int
    eps: float
    first: int = 0
    """Number of blocks before these."""

    def to(self, device: torch.device, dtype: torch.dtype) -> FoldedModel:
        """Return the weights on another device, not prepacked."""
        blocks = tuple(block.map(lambda linear: linear.to(device, dtype)) for block in self.blocks)
        weight, bias = self.norm
        return replace(self, blocks=blocks, norm=(weight.to(device, dtype), bias.to(device, dtype)))

    def prepack(self, rows: int) -> FoldedModel:
        """Return the weights laid out for matmuls of about `rows` rows; for inference."""
        return replace(self, blocks=tuple(block.map(lambda linear: linear.prepack(rows)) for block in self.blocks))


@dataclass(frozen=True, slots=True)
class EncoderOutput:
    """Embeddings of B views."""

    clip: Tensor
    """(B, D): the CLS token after the final LayerNorm; transformers' `last_hidden_state[:, 0]`."""
    frame: Tensor
    """(B, T, D): each frame's CLS token of the last block before their mean, through MLP and final LayerNorm."""
    layers: dict[int, Tensor] = field(default_factory=dict)
    """Block number, from 1 -> (B, D), the CLS token of the residual stream after that block, not normalized."""
    tokens: Tensor | None = None
    """(B, T, N, D): the residual stream after `tokens_after` blocks."""


def embed_patches(pixels: Tensor, embedding: PatchEmbedding) -> Tensor:
    """Return the residual stream (T, B, 1 + P, D) before the first block for pixels (B, T, 3, S, S)."""
    B, T, C, S, _ = pixels.shape
    side = embedding.side
    p = S // side
    patches = pixels.view(B, T, C, side, p, side, p).permute(1, 0, 3, 5, 2, 4, 6)
    x = embedding.patch(patches.reshape(T, B, side * side, C * p * p)) + embedding.table
    if embedding.pre_norm is not None:
        x = F.layer_norm(x, x.shape[-1:], *embedding.pre_norm, eps=embedding.eps)
    if embedding.time is not None:
        x = x + embedding.time
    return torch.cat([embedding.cls.expand(T, B, 1, -1), x], 2)


def apply_block(x: Tensor, block: FoldedBlock, model: FoldedModel) -> tuple[Tensor, Tensor]:
    """Return the residual stream (T, B, N, D) after a block, and each frame's CLS (T, B, D) before MLP and mean."""
    x = _time_attention(x, block, model)
    x = block.space_out(attend_space(block.space_qkv(normalize(x, model.eps)), model.heads), residual=x)
    frames = x[:, :, 0].clone()
    x[:, :, 0] = frames.mean(0)
    return _mlp(x, block, model), frames


def apply_last_block_cls(x: Tensor, block: FoldedBlock, model: FoldedModel) -> Tensor:
    """Return each frame's CLS (T, B, D) of a last block, before MLP and mean, without computing its patch tokens."""
    (T, B, N, D), heads = x.shape, model.heads
    x = _time_attention(x, block, model)
    wq, wk, wv = block.space_qkv.weight.view(3, heads, D // heads, D)
    bq, _, bv = block.space_qkv.bias.view(3, heads, D // heads)  # softmax is invariant to the key bias
    y = normalize(x, model.eps).view(T * B, N, D)
    q = torch.einsum("td,hed->the", y[:, 0], wq) + bq
    logits = torch.einsum("the,hed->thd", q, wk) @ y.transpose(1, 2)  # (T·B, H, N)
    sums = (logits * (D // heads) ** -0.5).softmax(-1) @ y  # (T·B, H, D)
    out = torch.einsum("thd,hed->the", sums, wv) + bv
    return block.space_out(out.reshape(T, B, D), residual=x[:, :, 0])


def _time_attention(x: Tensor, block: FoldedBlock, model: FoldedModel) -> Tensor:
    cls = x[:, :, 0].clone()  # the CLS token takes no part in time attention
    x = block.time_out(attend_time(block.time_qkv(normalize(x, model.eps)), model.heads), residual=x)
    x[:, :, 0] = cls
    return x


def _mlp(x: Tensor, block: FoldedBlock, model: FoldedModel) -> Tensor:
    return block.mlp_out(block.mlp_in(normalize(x, model.eps)), residual=x)


def run_blocks(
    x: Tensor,
    model: FoldedModel,
    *,
    mean_pool: bool = False,
    layers: Collection[int] = (),
    tokens_after: int | None = None,
) -> EncoderOutput:
    """Run the blocks over a residual stream that has passed `model.first` blocks.

    Parameters
    ----------
    x : Tensor of shape (T, B, N, D)
        The residual stream; not modified.
    model : FoldedModel
        The weights.
    mean_pool : bool
        `frame` is the mean patch token of each frame instead of its CLS token.
    layers : collection of int
        Blocks, counted from 1, whose CLS token is returned.
    tokens_after : int, optional
        Number of blocks after which the whole stream is returned; 0 means the embeddings. The depth turns off the
        CLS-only form of the last block.
    """
    first, depth, eps = model.first, model.first + len(model.blocks), model.eps
    hidden: dict[int, Tensor] = {}
    tokens = x if tokens_after == first else None
    for number, block in enumerate(model.blocks[:-1], start=first + 1):
        x, _ = apply_block(x, block, model)
        if number in layers:
            hidden[number] = x[0, :, 0].clone()  # a view would keep the whole stream in memory
        if number == tokens_after:
            tokens = x
    last = model.blocks[-1]
    if mean_pool or tokens_after == depth:
        x, frames = apply_block(x, last, model)
        cls, frames = x[0, :, 0], _mlp(frames, last, model)
        tokens = x if tokens_after == depth else tokens
    else:
        frames = apply_last_block_cls(x, last, model)
        both = _mlp(torch.cat([frames, frames.mean(0, keepdim=True)]), last, model)
        frames, cls = both[:-1], both[-1]
    if depth in layers:
        hidden[depth] = cls
    final = torch.cat([frames, cls[None]])
    final = F.layer_norm(final, final.shape[-1:], *model.norm, eps=eps)
    frame, clip = final[:-1].transpose(0, 1), final[-1]
    if mean_pool:
        frame = F.layer_norm(x[:, :, 1:], x.shape[-1:], *model.norm, eps=eps).mean(2).transpose(0, 1)
    return EncoderOutput(clip, frame, hidden, None if tokens is None else tokens.transpose(0, 1))
