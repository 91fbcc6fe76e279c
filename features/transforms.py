"""Views of decoded frames as model input: each frame resized once, each view cropped and normalized, on any device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from actionvit.features import resizing
from actionvit.features.sampling import ClipSpec

Resize = Callable[[Tensor], Tensor]
"""Frames (F, H, W, 3) uint8 -> (F, 3, h, w) uint8."""


def resize_short_side(frames: Tensor, size: int) -> Tensor:
    """Return frames (F, H, W, 3) uint8 as (F, 3, h, w) uint8 with min(h, w) = size.

    The long side is rounded down, the filter is PIL's and torchvision's antialiased triangle: each pixel within 1/255
    of theirs, and the same on every device.
    """
    height, width = frames.shape[1:3]
    short = min(height, width)
    shape = (height * size // short, width * size // short)
    small = frames if (height, width) == shape else resizing.resize(frames, *shape)
    return small.permute(0, 3, 1, 2)  # a view: channels stay last in memory


def crop_corners(height: int, width: int, size: int, crops: int) -> list[tuple[int, int]]:
    """Return (top, left) of each crop: the center, or start, center and end along the long side."""
    top, left = height - size, width - size
    center = (top // 2, left // 2)
    return [center] if crops == 1 else [(0, 0), center, (top, left)]


def views(
    frames: Tensor,
    positions: Tensor,
    spec: ClipSpec,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype = torch.float32,
    resize: Resize | None = None,
) -> Tensor:
    """Return every view of a video, or of several videos of one size, normalized.

    Parameters
    ----------
    frames : Tensor of shape (F, H, W, 3), uint8
        Decoded frames, RGB; those of several videos concatenated.
    positions : Tensor of shape (V·K, T), int64
        Rows of `frames` that make each view: videos outermost, then clips, then crops, then flipped.
    spec : ClipSpec
        Gives size, crops and flip.
    mean, std : sequence of 3 floats
        Per channel, of pixel values in [0, 1].
    dtype : torch.dtype
        Type of the result; arithmetic is float32.
    resize : callable, optional
        Resizes the frames; by default `resized` to the size of `spec`.

    Returns
    -------
    Tensor of shape (V·K, T, 3, S, S)
        On the device of `frames`.
    """
    if len(positions) % spec.views or positions.shape[1:] != (spec.num_frames,):
        raise ValueError(f"positions: got {tuple(positions.shape)}, expected {(spec.views, spec.num_frames)} per video")
    small = resize(frames) if resize else resize_short_side(frames, spec.size)
    S, corners = spec.size, crop_corners(small.shape[2], small.shape[3], spec.size, spec.crops)
    flips = 2 if spec.flip else 1
    cut = []
    for view, rows in enumerate(positions.view(-1, spec.views, spec.num_frames).unbind(1)):
        top, left = corners[view // flips % spec.crops]
        pixels = small[rows, :, top : top + S, left : left + S]
        cut.append(pixels.flip(-1) if view % flips else pixels)
    scale, shift = _scale_and_shift(tuple(mean), tuple(std), frames.device)
    return torch.stack(cut, 1).flatten(0, 1).float().mul_(scale).add_(shift).to(dtype)


@lru_cache(maxsize=16)
def _scale_and_shift(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return scale and shift (3, 1, 1) for 8-bit pixels; cached, as a copy to a GPU waits for its queue."""
    scale = torch.tensor([1 / (255 * s) for s in std], device=device).view(3, 1, 1)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device).view(3, 1, 1)
    return scale, shift
