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

from collections.abc import Collection
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from actionvit.features.timesformer.attention import attend_space
from actionvit.features.timesformer.folded import Folded, FoldedBlock, Stem


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


def _over_time(x: Tensor, block: FoldedBlock, model: Folded) -> Tensor:
    cls = x[:, :, 0].clone()  # the CLS token takes no part in time attention
    x = block.time_out(model.attend_time(block.time_qkv(model.normalise(x, model.eps)), model.heads), residual=x)
    x[:, :, 0] = cls
    return x


def full_block(x: Tensor, block: FoldedBlock, model: Folded) -> tuple[Tensor, Tensor]:
    """Return the residual stream (T, B, N, D) after a block, and each frame's CLS (T, B, D) before MLP and mean."""
    x = _over_time(x, block, model)
    x = block.space_out(attend_space(block.space_qkv(model.normalise(x, model.eps)), model.heads), residual=x)
    frames = x[:, :, 0].clone()
    x[:, :, 0] = frames.mean(0)
    return _mlp(x, block, model), frames


def cls_block(x: Tensor, block: FoldedBlock, model: Folded) -> Tensor:
    """Return each frame's CLS (T, B, D) of a last block, before MLP and mean, without computing the patches' share."""
    (T, B, N, D), heads = x.shape, model.heads
    x = _over_time(x, block, model)
    weight, bias = block.space_qkv.plain()
    wq, wk, wv = weight.view(3, heads, D // heads, D)
    bq, _, bv = bias.view(3, heads, D // heads)  # a key's bias shifts all logits of a query alike: no effect
    y = model.normalise(x, model.eps).view(T * B, N, D)
    q = torch.einsum("td,hed->the", y[:, 0], wq) + bq
    logits = torch.einsum("the,hed->thd", q, wk) @ y.transpose(1, 2)  # (T·B, H, N)
    sums = (logits * (D // heads) ** -0.5).softmax(-1) @ y  # (T·B, H, D)
    out = torch.einsum("thd,hed->the", sums, wv) + bv
    return block.space_out(out.reshape(T, B, D), residual=x[:, :, 0])


def _mlp(x: Tensor, block: FoldedBlock, model: Folded) -> Tensor:
    return block.mlp_out(block.mlp_in(model.normalise(x, model.eps)), residual=x)


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
    first, depth, eps = model.first, model.first + len(model.blocks), model.eps
    hidden: dict[int, Tensor] = {}
    tokens = x if tokens_after == first else None
    for number, block in enumerate(model.blocks[:-1], start=first + 1):
        x, _ = full_block(x, block, model)
        if number in layers:
            hidden[number] = x[0, :, 0].clone()  # not a view, which would keep the whole stream
        if number == tokens_after:
            tokens = x
    last = model.blocks[-1]
    if mean_pool or tokens_after == depth:
        x, frames = full_block(x, last, model)
        cls, frames = x[0, :, 0], _mlp(frames, last, model)
        tokens = x if tokens_after == depth else tokens
    else:
        frames = cls_block(x, last, model)
        both = _mlp(torch.cat([frames, frames.mean(0, keepdim=True)]), last, model)
        frames, cls = both[:-1], both[-1]
    if depth in layers:
        hidden[depth] = cls
    final = torch.cat([frames, cls[None]])
    final = F.layer_norm(final, final.shape[-1:], *model.norm, eps=eps)
    frame, clip = final[:-1].transpose(0, 1), final[-1]
    if mean_pool:
        frame = F.layer_norm(x[:, :, 1:], x.shape[-1:], *model.norm, eps=eps).mean(2).transpose(0, 1)
    return Embedding(clip, frame, hidden, None if tokens is None else tokens.transpose(0, 1))
