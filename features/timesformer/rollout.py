"""Attention rollout for divided space-time attention: which patches of which frames a clip's embedding draws on.

Abnar & Zuidema (ACL 2020) read a layer of attention as a matrix ½(I + A), A the mean over the heads and I the residual
connection, and multiply these from the first layer to the last. A divided block mixes its tokens twice, first over
time, then over space, so that it stands for the product of two such matrices, space · time:

- time: each patch looks at the same place in all T frames; the CLS token looks at nothing, its row is I's;
- space: each patch looks at its own frame and at the CLS token; the CLS token looks at each frame through a copy of
  its own, and the T results are averaged.

Only the row of the CLS token is wanted. It is carried through the steps from the last block to the first, which takes
T·N² + N·T² products a block and never forms a matrix of all T·N tokens.

Shape letters: B views, T frames, N = 1 + P tokens a frame (the CLS token first), S pixels a side.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actionvit.features.decoding.frames import Frames
from actionvit.features.sampling import ClipSpec, clip_indices
from actionvit.features.timesformer.checkpoint import Weights
from actionvit.features.timesformer.folded import Folded, FoldedBlock, Stem
from actionvit.features.timesformer.forward import embed, run
from actionvit.features.timesformer.fused_linear import Linear
from actionvit.features.timesformer.model import TimeSformer, pretrained
from actionvit.features.timesformer.outputs import quantities, resolve
from actionvit.features.transforms import views


class Attention:
    """An encoder that says where its embedding of a video comes from.

    Parameters
    ----------
    weights, spec : Weights, ClipSpec
        As for `Encoder`.
    device : str
        `auto`, `cpu`, `cuda`, `cuda:N` or `mps`; arithmetic is float32.

    Raises
    ------
    ActionVitError
        If the weights do not load, or the size is no whole number of patches.
    """

    def __init__(self, weights: Weights, spec: ClipSpec, *, device: str = "auto") -> None:
        quantities(weights.shape, spec)
        self.weights, self.spec = weights, spec
        self.device = torch.device(resolve(device, "fp32")[0])
        model = pretrained(weights)
        with torch.inference_mode():
            stem, folded = model.stem(spec.num_frames, spec.size), model.fold()
            tokens = spec.num_frames * (1 + stem.side**2)
            self._stem = stem.to(self.device, torch.float32).pack()
            self._folded = folded.to(self.device, torch.float32).pack(tokens)

    def __call__(self, frames: Frames) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return what the encoder sees of a video, (K, T, S, S, 3), and the share of each patch, (K, T, side, side).

        The shares are those of `rollout`.
        """
        index = clip_indices(frames.count, self.spec)
        data, rows = torch.from_numpy(frames.data).to(self.device), torch.from_numpy(frames.positions(index))
        with torch.inference_mode():
            plain = views(data, rows, self.spec, (0.0,) * 3, (1 / 255,) * 3)  # the pixels as they are, 0 to 255
            pixels = views(data, rows, self.spec, self.weights.mean, self.weights.std)
            shares = torch.cat([_rollout(self._stem, self._folded, view[None]) for view in pixels])
        return plain.permute(0, 1, 3, 4, 2).round().to(torch.uint8).cpu().numpy(), shares.cpu().numpy()


def rollout(model: TimeSformer, pixels: Tensor) -> Tensor:
    """Return each patch's share in the CLS token, (B, T, side, side), for pixels (B, T, 3, S, S), normalised.

    Shares are not negative and sum to 1 less what the CLS token draws on itself. Any frame count and any size of whole
    patches will do. A time attention behind a zero projection, as inflation leaves it, adds nothing to the stream and
    counts as I.

    References
    ----------
    Abnar & Zuidema, Quantifying attention flow in transformers, ACL 2020.
    """
    return _rollout(model.stem(pixels.shape[1], pixels.shape[-1]), model.fold(), pixels)


def _rollout(stem: Stem, folded: Folded, pixels: Tensor) -> Tensor:
    B, T = pixels.shape[:2]
    time: list[Tensor] = []
    space: list[Tensor] = []
    heard = tuple(_listening(block, folded.heads, time, space) for block in folded.blocks)
    # `tokens_after` the last block: the whole of it, for the shortcut to its CLS tokens skips what is to be heard.
    run(embed(pixels, stem), replace(folded, blocks=heard), tokens_after=len(heard))
    cls, patches = pixels.new_ones(B), pixels.new_zeros(T, B, stem.side**2)
    for over_time, over_space, block in zip(time[::-1], space[::-1], folded.blocks[::-1], strict=True):
        cls, patches = _through_space(cls, patches, over_space)
        if block.time_out.plain()[0].any():
            patches = _through_time(patches, over_time)
    return patches.transpose(0, 1).reshape(B, T, stem.side, stem.side)


def _through_space(cls: Tensor, patches: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
    """Carry shares of CLS (B,) and patches (T, B, P) through attention (T, B, N, N) within frames."""
    T = len(patches)
    shares = torch.cat([(cls / T).expand(T, -1)[..., None], patches], 2)  # a T-th of the CLS token's a copy
    shares = (shares + (shares[:, :, None] @ attention)[:, :, 0]) / 2
    return shares[:, :, 0].sum(0), shares[:, :, 1:]


def _through_time(patches: Tensor, attention: Tensor) -> Tensor:
    """Carry shares of patches (T, B, P) through attention (B, N, T, T) over frames."""
    shares = patches.permute(1, 2, 0)
    moved = (shares[:, :, None] @ attention[:, 1:])[:, :, 0]
    return ((shares + moved) / 2).permute(2, 0, 1)


def _listening(block: FoldedBlock, heads: int, time: list[Tensor], space: list[Tensor]) -> FoldedBlock:
    """Return a block that computes the same and puts its attentions on the two lists."""
    return replace(
        block,
        time_qkv=_Heard(block.time_qkv, heads, (1, 2, 0), time),
        space_qkv=_Heard(block.space_qkv, heads, (0, 1, 2), space),
    )


class _Heard(Linear):
    """A layer that gives queries, keys and values, and keeps the attention that follows from them."""

    def __init__(self, linear: Linear, heads: int, order: tuple[int, int, int], kept: list[Tensor]) -> None:
        super().__init__(*linear.plain(), linear.act)
        self.linear, self.heads, self.order, self.kept = linear, heads, order, kept

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return the layer's product; attention is over the last of the axes (T, B, N) in `order`."""
        qkv = self.linear(x, residual)
        self.kept.append(_mean_attention(qkv.permute(*self.order, 3), self.heads))
        return qkv


def _mean_attention(qkv: Tensor, heads: int) -> Tensor:
    """Return attention (X, Y, n, n), the mean over the heads, of sequences (X, Y, n, 3D)."""
    X, Y, n, D3 = qkv.shape
    d = D3 // (3 * heads)
    q, k, _ = qkv.reshape(X, Y, n, 3, heads, d).permute(3, 0, 1, 4, 2, 5)  # (X, Y, H, n, d) each
    # One of X at a time: all heads of all frames of an HR clip at once would take 12 times what is kept of them.
    parts = [((one @ other.transpose(-1, -2)) * d**-0.5).softmax(-1).mean(1) for one, other in zip(q, k, strict=True)]
    return torch.stack(parts)
