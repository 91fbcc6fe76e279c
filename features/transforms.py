"""Decoded frames -> what a model takes in: resized once a frame, cropped and normalised a view, on any device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from actionvit.features import resizing
from actionvit.features.sampling import ClipSpec

Resize = Callable[[Tensor], Tensor]
"""Frames (F, H, W, 3) uint8 -> (F, 3, h, w) uint8."""


def resized(frames: Tensor, size: int) -> Tensor:
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
    """Return (top, left) of each crop: the centre, or start, centre and end along the long side."""
    top, left = height - size, width - size
    centre = (top // 2, left // 2)
    return [centre] if crops == 1 else [(0, 0), centre, (top, left)]


def views(
    frames: Tensor,
    positions: Tensor,
    spec: ClipSpec,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype = torch.float32,
    resize: Resize | None = None,
) -> Tensor:
    """Return every view of a video, or of several of one size, normalised.

    Parameters
    ----------
    frames : Tensor of shape (F, H, W, 3), uint8
        Decoded frames, RGB; several videos' behind each other.
    positions : Tensor of shape (V·K, T), int64
        Where in `frames` each view's frames lie: videos outermost, then clips, then crops, then mirrored.
    spec : ClipSpec
        Gives size, crops and mirroring.
    mean, std : sequence of 3 floats
        Of pixel values in [0, 1], by channel.
    dtype : torch.dtype
        Of the result; arithmetic is float32.
    resize : callable, optional
        Resizes the frames; by default `resized` to the size of `spec`.

    Returns
    -------
    Tensor of shape (V·K, T, 3, S, S)
        On the device of `frames`.
    """
    if len(positions) % spec.views or positions.shape[1:] != (spec.num_frames,):
        raise ValueError(f"positions: got {tuple(positions.shape)}, expected {(spec.views, spec.num_frames)} a video")
    small = resize(frames) if resize else resized(frames, spec.size)
    S, corners = spec.size, crop_corners(small.shape[2], small.shape[3], spec.size, spec.crops)
    mirrorings = 2 if spec.flip else 1
    cut = []
    for view, rows in enumerate(positions.view(-1, spec.views, spec.num_frames).unbind(1)):
        top, left = corners[view // mirrorings % spec.crops]
        pixels = small[rows, :, top : top + S, left : left + S]
        cut.append(pixels.flip(-1) if view % mirrorings else pixels)
    scale, shift = _normaliser(tuple(mean), tuple(std), frames.device)
    return torch.stack(cut, 1).flatten(0, 1).float().mul_(scale).add_(shift).to(dtype)


@lru_cache(maxsize=16)
def _normaliser(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return scale and shift (3, 1, 1) of 8-bit pixels; kept: a copy to a GPU waits for all that is queued there."""
    scale = torch.tensor([1 / (255 * s) for s in std], device=device).view(3, 1, 1)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device).view(3, 1, 1)
    return scale, shift
