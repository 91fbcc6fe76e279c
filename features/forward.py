"""The forward pass of a TimeSformer over folded weights: the same numbers in fewer products and passes.

Shape letters: B views, T frames, N = 1 + P tokens a frame (the CLS token first), D width, H heads, d = D / H.

The residual stream lies in memory as (T, B, N, D): time attention reads it as sequences (B·N, T), space attention as
sequences (T·B, N), both by strides alone. Each frame carries its own copy of the clip's CLS token, equal in all frames
between blocks; that costs 1/N more tokens and spares every split, repeat and concatenation.

What is exact, and done once when weights are folded:

- `temporal_dense(temporal_proj(x))` is one matrix;
- a LayerNorm's scale and shift belong to the linear layer behind it;
- quick_gelu(x) = x·sigmoid(1.702x) is silu with 1.702 moved into the matrices around it;
- in the last block only CLS tokens are wanted: their queries go through the keys' matrix and their weighted sums
  through the values' matrix (H vectors a frame, instead of keys and values for all N tokens), and the MLP sees T + 1.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from actionvit.features.linear import Linear

# CUDA's attention kernels put the batch into a grid dimension of 65,535.
_MAX_SEQUENCES = 32768


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


@dataclass(frozen=True, slots=True)
class Folded:
    """The blocks' weights from some block on, ready for `run`."""

    blocks: tuple[FoldedBlock, ...]
    norm: tuple[Tensor, Tensor]
    heads: int
    eps: float
    first: int = 0
    """Blocks left out before these."""

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


@dataclass(frozen=True, slots=True)
class Embedding:
    """What a forward gives for B views."""

    clip: Tensor
    """(B, D): the CLS token after the final LayerNorm; transformers' `last_hidden_state[:, 0]`."""
    frame: Tensor
    """(B, T, D): each frame's CLS token of the last block before their mean, through MLP and final LayerNorm."""
    layers: dict[int, Tensor] = field(default_factory=dict)
    """By block number from 1: (B, D), the CLS token of the residual stream after that block, not normalised."""
    tokens: Tensor | None = None
    """(B, T, N, D): the residual stream after block `tokens_after`."""


def attend_time(qkv: Tensor, heads: int) -> Tensor:
    """Attention of each token over the frames: (T, B, N, 3D) -> (T, B, N, D)."""
    T, B, N, D3 = qkv.shape
    q, k, v = qkv.view(T, B * N, 3, heads, D3 // (3 * heads)).permute(2, 1, 3, 0, 4)  # 3 × (B·N, H, T, d)
    if B * N > _MAX_SEQUENCES:
        parts = zip(q.split(_MAX_SEQUENCES), k.split(_MAX_SEQUENCES), v.split(_MAX_SEQUENCES), strict=True)
        out = torch.cat([F.scaled_dot_product_attention(*part) for part in parts])
    else:
        out = F.scaled_dot_product_attention(q, k, v)
    return out.permute(2, 0, 1, 3).reshape(T, B, N, D3 // 3)


def attend_space(qkv: Tensor, heads: int) -> Tensor:
    """Attention within each frame: (T, B, N, 3D) -> (T, B, N, D)."""
    T, B, N, D3 = qkv.shape
    q, k, v = qkv.view(T * B, N, 3, heads, D3 // (3 * heads)).permute(2, 0, 3, 1, 4)  # 3 × (T·B, H, N, d)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(T, B, N, D3 // 3)


def _normed(x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=eps)


def _over_time(x: Tensor, block: FoldedBlock, heads: int, eps: float) -> Tensor:
    cls = x[:, :, 0].clone()  # the CLS token takes no part in time attention
    x = block.time_out(attend_time(block.time_qkv(_normed(x, eps)), heads), residual=x)
    x[:, :, 0] = cls
    return x


def full_block(x: Tensor, block: FoldedBlock, heads: int, eps: float) -> tuple[Tensor, Tensor]:
    """Return the residual stream (T, B, N, D) after a block, and each frame's CLS (T, B, D) before MLP and mean."""
    x = _over_time(x, block, heads, eps)
    x = block.space_out(attend_space(block.space_qkv(_normed(x, eps)), heads), residual=x)
    frames = x[:, :, 0].clone()
    x[:, :, 0] = frames.mean(0)
    return block.mlp_out(block.mlp_in(_normed(x, eps)), residual=x), frames


def cls_block(x: Tensor, block: FoldedBlock, heads: int, eps: float) -> Tensor:
    """Return each frame's CLS (T, B, D) of a last block, before MLP and mean, without computing the patches' share."""
    T, B, N, D = x.shape
    x = _over_time(x, block, heads, eps)
    weight, bias = block.space_qkv.plain()
    wq, wk, wv = weight.view(3, heads, D // heads, D)
    bq, _, bv = bias.view(3, heads, D // heads)  # a key's bias shifts all logits of a query alike: no effect
    y = _normed(x, eps).view(T * B, N, D)
    q = torch.einsum("td,hed->the", y[:, 0], wq) + bq
    logits = torch.einsum("the,hed->thd", q, wk) @ y.transpose(1, 2)  # (T·B, H, N)
    sums = (logits * (D // heads) ** -0.5).softmax(-1) @ y  # (T·B, H, D)
    out = torch.einsum("thd,hed->the", sums, wv) + bv
    return block.space_out(out.reshape(T, B, D), residual=x[:, :, 0])


def _mlp(x: Tensor, block: FoldedBlock, eps: float) -> Tensor:
    return block.mlp_out(block.mlp_in(_normed(x, eps)), residual=x)


def embed(pixels: Tensor, stem: Stem) -> Tensor:
    """Return the residual stream (T, B, 1 + P, D) before the first block for pixels (B, T, 3, S, S)."""
    B, T, C, S, _ = pixels.shape
    side = stem.side
    p = S // side
    cut = pixels.view(B, T, C, side, p, side, p).permute(1, 0, 3, 5, 2, 4, 6)
    x = stem.patch(cut.reshape(T, B, side * side, C * p * p)) + stem.table
    if stem.pre_norm is not None:
        x = F.layer_norm(x, x.shape[-1:], *stem.pre_norm, eps=stem.eps)
    if stem.time is not None:
        x = x + stem.time
    return torch.cat([stem.cls.expand(T, B, 1, -1), x], 2)


def run(
    x: Tensor,
    model: Folded,
    *,
    mean_pool: bool = False,
    layers: Collection[int] = (),
    tokens_after: int | None = None,
) -> Embedding:
    """Run the blocks over a residual stream (T, B, N, D) that has seen `model.first` blocks.

    Parameters
    ----------
    x : Tensor of shape (T, B, N, D)
        The stream; not written to.
    model : Folded
        The weights.
    mean_pool : bool
        `frame` is the mean patch token of each frame instead of its CLS token.
    layers : collection of int
        Blocks, counted from 1, whose CLS token is wanted.
    tokens_after : int, optional
        Blocks, counted from 1, after which the whole stream is wanted; 0 means the embeddings.
    """
    first, depth, heads, eps = model.first, model.first + len(model.blocks), model.heads, model.eps
    hidden: dict[int, Tensor] = {}
    tokens = x if tokens_after == first else None
    for number, block in enumerate(model.blocks[:-1], start=first + 1):
        x, _ = full_block(x, block, heads, eps)
        if number in layers:
            hidden[number] = x[0, :, 0]
        if number == tokens_after:
            tokens = x
    last = model.blocks[-1]
    if mean_pool or tokens_after == depth:
        x, frames = full_block(x, last, heads, eps)
        cls, frames = x[0, :, 0], _mlp(frames, last, eps)
        tokens = x if tokens_after == depth else tokens
    else:
        frames = cls_block(x, last, heads, eps)
        both = _mlp(torch.cat([frames, frames.mean(0, keepdim=True)]), last, eps)
        frames, cls = both[:-1], both[-1]
    if depth in layers:
        hidden[depth] = cls
    final = torch.cat([frames, cls[None]])
    final = F.layer_norm(final, final.shape[-1:], *model.norm, eps=eps)
    frame, clip = final[:-1].transpose(0, 1), final[-1]
    if mean_pool:
        frame = F.layer_norm(x[:, :, 1:], x.shape[-1:], *model.norm, eps=eps).mean(2).transpose(0, 1)
    return Embedding(clip, frame, hidden, None if tokens is None else tokens.transpose(0, 1))
