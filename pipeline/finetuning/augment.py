"""Augmentation of training views: random segment in time, random crop, mirroring and color changes.

One draw holds for all frames of a view: a crop that jumped from frame to frame would be motion. All randomness comes
from the generator passed in, so the same generator gives the same view on every machine and rank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from actionvit.pipeline.finetuning.spec import AugmentSpec

CANDIDATES = 4
"""Frames decoded per frame of a training view; random segments in time are taken from them."""


def draw_times(count: int, frames: int, shortest: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return increasing frame positions, (frames,): one at random in each equal part of a random segment.

    Parameters
    ----------
    count : int
        Frames to choose from.
    frames : int
        Number of positions.
    shortest : float
        Minimum duration of the segment, as a fraction of the video.
    rng : numpy.random.Generator
    """
    duration = rng.uniform(shortest, 1)
    start = rng.uniform(0, 1 - duration)
    place = start + duration * (np.arange(frames) + rng.uniform(0, 1, frames)) / frames
    return np.minimum((place * count).astype(np.int64), count - 1)


def draw_box(height: int, width: int, smallest: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Return (top, left, height, width) of a crop in pixels, of random area and an aspect ratio up to 4 : 3.

    Parameters
    ----------
    height, width : int
        Size of the frame in pixels.
    smallest : float
        Minimum area, as a fraction of the largest square of the frame.
    rng : numpy.random.Generator
    """
    area, ratio = rng.uniform(smallest, 1), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    side = np.sqrt(area) * min(height, width)
    h, w = (
        int(min(max(round(side * stretch), 1), limit))
        for stretch, limit in ((ratio**-0.5, height), (ratio**0.5, width))
    )
    return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w


def draw_view(
    frames: Tensor, spec: AugmentSpec, rng: np.random.Generator, *, num_frames: int, size: int, label: str
) -> Tensor:
    """Return one training view, (T, 3, S, S), float, 0 to 255.

    Parameters
    ----------
    frames : Tensor of shape (F, 3, h, w), uint8
        Candidate frames, evenly spaced over the video.
    spec : AugmentSpec
    rng : numpy.random.Generator
        Source of all randomness.
    num_frames, size : int
        T and S.
    label : str
        The video's class, for `spec.keep_sides`.
    """
    rows = draw_times(len(frames), num_frames, spec.window, rng)
    top, left, h, w = draw_box(frames.shape[2], frames.shape[3], spec.area, rng)
    mirrored = rng.random() < 0.5  # always drawn, so that `flip` does not change the other draws
    cut = frames[torch.from_numpy(rows), :, top : top + h, left : left + w]
    view = F.interpolate(cut.float(), size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    if spec.flip and mirrored and label not in spec.keep_sides:
        view = view.flip(-1)
    for number in rng.permutation(len(COLOR_OPS))[: spec.colours]:
        view = COLOR_OPS[number](view, spec.strength * rng.uniform(-1, 1))
    return view.clamp_(0, 255)


def normalize(view: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return normalized pixels, from values of 0 to 255; channels on the third axis from the end."""
    scale = torch.tensor([1 / (255 * s) for s in std]).view(3, 1, 1)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)]).view(3, 1, 1)
    return view * scale + shift


def _brightness(view: Tensor, by: float) -> Tensor:
    return view * (1 + 0.8 * by)


def _contrast(view: Tensor, by: float) -> Tensor:
    gray = view.mean()
    return gray + (view - gray) * (1 + 0.8 * by)


def _saturation(view: Tensor, by: float) -> Tensor:
    gray = _gray(view)
    return gray + (view - gray) * (1 + 1.6 * by)


def _gamma(view: Tensor, by: float) -> Tensor:
    return 255 * (view.clamp(0, 255) / 255) ** float(np.exp(by))


def _tint(view: Tensor, by: float) -> Tensor:
    """Shift the white balance: red against blue."""
    return view * torch.tensor([1 + 0.4 * by, 1.0, 1 - 0.4 * by]).view(3, 1, 1)


def _sharpness(view: Tensor, by: float) -> Tensor:
    """Blur or sharpen by the difference to a 3 × 3 mean."""
    soft = F.avg_pool2d(F.pad(view, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return view + 1.5 * by * (view - soft)


def _drain(view: Tensor, by: float) -> Tensor:
    """Blend towards gray."""
    return view + abs(by) * (_gray(view) - view)


def _gray(view: Tensor) -> Tensor:
    return (view * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)


COLOR_OPS: tuple[Callable[[Tensor, float], Tensor], ...] = (
    _brightness,
    _contrast,
    _saturation,
    _gamma,
    _tint,
    _sharpness,
    _drain,
)
"""Color operations that keep shapes in place, each with a magnitude from -1 to 1 (after RandAugment, 2020)."""
