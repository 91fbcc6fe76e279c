"""Resizing of 8-bit images to the same bytes on every device.

torch's kernel for 8-bit pixels on the CPU is Pillow's antialiased triangle filter in 16-bit fixed point: rows first,
then columns, rounded to 8 bits after each. Other devices have only a floating-point kernel, some of whose pixels differ
by one; on dark, flat frames this changes a CLIP embedding by more than half precision does. There the sums of the same
integers are computed instead, which are equal on every device.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Filter = Literal["bilinear", "bicubic"]


def resize(images: Tensor, height: int, width: int) -> Tensor:
    """Resize images (F, H, W, 3), uint8, to (F, height, width, 3), uint8, on their device."""
    if images.device.type == "cpu":
        planes = images.permute(0, 3, 1, 2)  # a view: the kernel is fastest with channels last
        scaled = F.interpolate(planes, size=(height, width), mode="bilinear", antialias=True, align_corners=False)
        return scaled.permute(0, 2, 3, 1)
    return resize_by_integers(images, height, width)


def resize_pillow(images: Tensor, height: int, width: int, filter: Filter) -> Tensor:
    """Resize images (F, H, W, 3), uint8, to exactly Pillow's bytes, on any device.

    Parameters
    ----------
    images : Tensor of shape (F, H, W, 3), uint8
    height, width : int
        Size of the result.
    filter : str
        `bilinear` or `bicubic`, both antialiased.
    """
    if images.device.type == "cpu":
        resample = Image.Resampling[filter.upper()]
        resized = [Image.fromarray(image).resize((width, height), resample) for image in images.numpy()]
        return torch.from_numpy(np.stack([np.asarray(image) for image in resized]))
    return resize_by_integers(images, height, width, filter)


def resize_by_integers(images: Tensor, height: int, width: int, filter: Filter | None = None) -> Tensor:
    """Resize like `resize`, or with a filter like `resize_pillow`, with integer sums on any device."""
    for dim, size in ((2, width), (1, height)):
        if images.shape[dim] != size:
            images = _along(images, dim, size, filter)
    return images


def _along(images: Tensor, dim: int, size: int, filter: Filter | None) -> Tensor:
    positions, weights, bits = _taps(images.shape[dim], size, images.device, filter)
    shape = [-1 if axis == dim else 1 for axis in range(4)]
    total = weights.new_full((), 1 << (bits - 1))  # one half, as the shift rounds down
    for position, weight in zip(positions, weights, strict=True):
        total = total + images.index_select(dim, position).int().mul_(weight.view(shape))
    return total.bitwise_right_shift_(bits).clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=64)
def _taps(size: int, target: int, device: torch.device, filter: Filter | None) -> tuple[Tensor, Tensor, int]:
    """Return positions and weights (K, target) of the K pixels that make each new one, and the weights' bits.

    Cached, as a copy to a GPU waits for its queue.
    """
    scale = size / target
    stretch = max(scale, 1.0)
    support = stretch * (2.0 if filter == "bicubic" else 1.0)
    center = scale * (np.arange(target) + 0.5)
    first = np.maximum((center - support + 0.5).astype(np.int64), 0)
    last = np.minimum((center + support + 0.5).astype(np.int64), size)
    positions = first + np.arange(2 * math.ceil(support) + 1)[:, None]
    kernel = _bicubic if filter == "bicubic" else _triangle
    weights = kernel(np.abs((positions - center + 0.5) / stretch)) * (positions < last)
    weights /= weights.sum(axis=0)
    bits = 22 if filter else 0  # torch: as many as keep the largest weight within signed 16 bits
    while bits < 22 and int(0.5 + weights.max() * (1 << (bits + 1))) < 1 << 15:
        bits += 1
    integers = np.trunc(weights * (1 << bits) + np.copysign(0.5, weights)).astype(np.int32)
    return torch.from_numpy(np.minimum(positions, size - 1)).to(device), torch.from_numpy(integers).to(device), bits


def _triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(0, 1 - x)


def _bicubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution with a = -1/2, as in Pillow."""
    inner, outer = ((1.5 * x - 2.5) * x) * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, inner, np.where(x < 2, outer, 0.0))
