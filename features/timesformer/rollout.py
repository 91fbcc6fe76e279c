"""Attention rollout for divided space-time attention: how much each patch of each frame contributes to an embedding.

Abnar & Zuidema (ACL 2020) treat a layer of attention as the matrix ½(I + A), with A the mean over heads and I the
residual connection, and multiply these from the first layer to the last. A divided block mixes its tokens twice, first
over time, then over space, so it is the product of two such matrices, space · time:

- time: each patch attends to its position in all T frames; the CLS token does not attend, its row is that of I;
- space: each patch attends to its own frame and the CLS token; the CLS token attends to each frame through a copy of
  its own, and the T results are averaged.

Only the row of the CLS token is needed. It is carried from the last block to the first, which takes T·N² + N·T²
multiply-adds per block and never forms a matrix over all T·N tokens.

Shape letters: B views, T frames, N = 1 + P tokens per frame (the CLS token first), S pixels per side.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actionvit.features.device import resolve_device
from actionvit.features.encoder import VideoFrames
from actionvit.features.sampling import ClipSpec, clip_indices
from actionvit.features.timesformer.checkpoint import Weights
from actionvit.features.timesformer.forward import (
    FoldedBlock,
    FoldedModel,
    PatchEmbedding,
    embed_patches,
    run_blocks,
)
from actionvit.features.timesformer.fused_linear import FusedLinear
from actionvit.features.timesformer.model import TimeSformer, load_timesformer
from actionvit.features.timesformer.outputs import output_spec
from actionvit.features.transforms import views


class AttentionRollout:
    """A TimeSformer that computes the contribution of each patch to its embedding of a video.

    Parameters
    ----------
    weights, spec : Weights, ClipSpec
        As for `Encoder`.
    device : str
        `auto`, `cpu`, `cuda`, `cuda:N` or `mps`; arithmetic is float32.

    Raises
    ------
    ActionVitError
        If the weights do not load, or the size is not a whole number of patches.
    """

    def __init__(self, weights: Weights, spec: ClipSpec, *, device: str = "auto") -> None:
        output_spec(weights.config, spec)
        self.weights, self.spec = weights, spec
        self.device = torch.device(resolve_device(device, "fp32")[0])
        model = load_timesformer(weights)
        with torch.inference_mode():
            embedding, folded = model.patch_embedding(spec.num_frames, spec.size), model.fold()
            tokens = spec.num_frames * (1 + embedding.side**2)
            self._embedding = embedding.to(self.device, torch.float32).prepack()
            self._folded = folded.to(self.device, torch.float32).prepack(tokens)

    def __call__(self, frames: VideoFrames) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return the views as 8-bit pixels (K, T, S, S, 3), and each patch's contribution (K, T, side, side).

        The contributions are those of `attention_rollout`.
        """
        index = clip_indices(frames.count, self.spec)
        data, rows = torch.from_numpy(frames.data).to(self.device), torch.from_numpy(frames.positions(index))
        with torch.inference_mode():
            unscaled = views(data, rows, self.spec, (0.0,) * 3, (1 / 255,) * 3)  # 0 to 255
            pixels = views(data, rows, self.spec, self.weights.mean, self.weights.std)
            shares = torch.cat([_rollout(self._embedding, self._folded, view[None]) for view in pixels])
        return unscaled.permute(0, 1, 3, 4, 2).round().to(torch.uint8).cpu().numpy(), shares.cpu().numpy()


def attention_rollout(model: TimeSformer, pixels: Tensor) -> Tensor:
    """Return each patch's contribution to the CLS token, (B, T, side, side).

    Contributions are at least 0 and sum to 1 minus the CLS token's own. A time attention behind a zero projection, as
    inflation leaves it, adds nothing to the stream and counts as I.

    Parameters
    ----------
    model : TimeSformer
    pixels : Tensor of shape (B, T, 3, S, S)
        Normalized; any frame count, and any size that is a whole number of patches.

    References
    ----------
    Abnar & Zuidema, Quantifying attention flow in transformers, ACL 2020.
    """
    return _rollout(model.patch_embedding(pixels.shape[1], pixels.shape[-1]), model.fold(), pixels)


def _rollout(embedding: PatchEmbedding, folded: FoldedModel, pixels: Tensor) -> Tensor:
    B, T = pixels.shape[:2]
    time: list[Tensor] = []
    space: list[Tensor] = []
    blocks = tuple(_record_attention(block, folded.heads, time, space) for block in folded.blocks)
    # Requesting all tokens disables the CLS-only form of the last block, which skips the attention recorded here.
    run_blocks(embed_patches(pixels, embedding), replace(folded, blocks=blocks), tokens_after=len(blocks))
    cls, patches = pixels.new_ones(B), pixels.new_zeros(T, B, embedding.side**2)
    for over_time, over_space, block in zip(time[::-1], space[::-1], folded.blocks[::-1], strict=True):
        cls, patches = _through_space(cls, patches, over_space)
        if block.time_out.weight.any():
            patches = _through_time(patches, over_time)
    return patches.transpose(0, 1).reshape(B, T, embedding.side, embedding.side)


def _through_space(cls: Tensor, patches: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
    """Carry the shares of CLS (B,) and patches (T, B, P) through attention (T, B, N, N) within frames."""
    T = len(patches)
    shares = torch.cat([(cls / T).expand(T, -1)[..., None], patches], 2)  # 1/T for each copy of the CLS token
    shares = (shares + (shares[:, :, None] @ attention)[:, :, 0]) / 2
    return shares[:, :, 0].sum(0), shares[:, :, 1:]


def _through_time(patches: Tensor, attention: Tensor) -> Tensor:
    """Carry the shares of patches (T, B, P) through attention (B, N, T, T) over frames."""
    shares = patches.permute(1, 2, 0)
    moved = (shares[:, :, None] @ attention[:, 1:])[:, :, 0]
    return ((shares + moved) / 2).permute(2, 0, 1)


def _record_attention(block: FoldedBlock, heads: int, time: list[Tensor], space: list[Tensor]) -> FoldedBlock:
    """Return a block with the same output that appends its attention to the two lists."""
    return replace(
        block,
        time_qkv=_RecordingLinear(block.time_qkv, heads, (1, 2, 0), time),
        space_qkv=_RecordingLinear(block.space_qkv, heads, (0, 1, 2), space),
    )


class _RecordingLinear(FusedLinear):
    """A layer that computes queries, keys and values, and records their attention."""

    def __init__(self, linear: FusedLinear, heads: int, axes: tuple[int, int, int], records: list[Tensor]) -> None:
        super().__init__(linear.weight, linear.bias, linear.act)
        self.linear, self.heads, self.axes, self.records = linear, heads, axes, records

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return the layer's output; record attention over the last of `axes`, a permutation of (T, B, N)."""
        qkv = self.linear(x, residual)
        self.records.append(_mean_attention(qkv.permute(*self.axes, 3), self.heads))
        return qkv


def _mean_attention(qkv: Tensor, heads: int) -> Tensor:
    """Return attention (X, Y, n, n), averaged over heads, of sequences (X, Y, n, 3D)."""
    X, Y, n, D3 = qkv.shape
    d = D3 // (3 * heads)
    q, k, _ = qkv.reshape(X, Y, n, 3, heads, d).permute(3, 0, 1, 4, 2, 5)  # (X, Y, H, n, d) each
    # One of X at a time: all heads of all frames of an HR clip at once would take 12 times the memory of the result.
    rows = [((a @ b.transpose(-1, -2)) * d**-0.5).softmax(-1).mean(1) for a, b in zip(q, k, strict=True)]
    return torch.stack(rows)
