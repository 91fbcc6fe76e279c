"""8-bit pictures resized to the same bytes on every device.

torch's kernel for 8-bit pixels on the CPU is Pillow's antialiased triangle filter in 16-bit fixed point: rows first,
then columns, rounded to 8 bits after each. Other devices have a floating-point kernel only, whose pixels are off by
one here and there; on dim, flat frames that moves a CLIP embedding by more than half precision does. So they add up
the same integers instead, which come out the same wherever they are added.
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


def resize(pictures: Tensor, height: int, width: int) -> Tensor:
    """Return pictures (F, H, W, 3), uint8, as (F, height, width, 3), uint8, on their device."""
    if pictures.device.type == "cpu":
        planes = pictures.permute(0, 3, 1, 2)  # a view: channels stay last in memory, which the kernel likes best
        scaled = F.interpolate(planes, size=(height, width), mode="bilinear", antialias=True, align_corners=False)
        return scaled.permute(0, 2, 3, 1)
    return resize_by_integers(pictures, height, width)


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


def resize_by_integers(pictures: Tensor, height: int, width: int, filter: Filter | None = None) -> Tensor:
    """As `resize`, or with a filter as `resize_pillow`, by sums of integers on any device."""
    for dim, size in ((2, width), (1, height)):
        if pictures.shape[dim] != size:
            pictures = _along(pictures, dim, size, filter)
    return pictures


def _along(pictures: Tensor, dim: int, size: int, filter: Filter | None) -> Tensor:
    places, weights, bits = _taps(pictures.shape[dim], size, pictures.device, filter)
    shape = [-1 if axis == dim else 1 for axis in range(4)]
    total = weights.new_full((), 1 << (bits - 1))  # a half: what follows rounds down
    for place, weight in zip(places, weights, strict=True):
        total = total + pictures.index_select(dim, place).int().mul_(weight.view(shape))
    return total.bitwise_right_shift_(bits).clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=64)
def _taps(size: int, wanted: int, device: torch.device, filter: Filter | None) -> tuple[Tensor, Tensor, int]:
    """Return places (K, wanted) and weights (K, wanted) of the K pixels that make each new one, and the weights' bits.

    Kept: a copy to a GPU waits for all that is queued there.
    """
    scale = size / wanted
    stretch = max(scale, 1.0)
    support = stretch * (2.0 if filter == "bicubic" else 1.0)
    centre = scale * (np.arange(wanted) + 0.5)
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int64), size)
    places = first + np.arange(2 * math.ceil(support) + 1)[:, None]
    kernel = _bicubic if filter == "bicubic" else _triangle
    weights = kernel(np.abs((places - centre + 0.5) / stretch)) * (places < last)
    weights /= weights.sum(axis=0)
    bits = 22 if filter else 0  # torch: as many as keep the largest weight within 16 bits, with its sign
    while bits < 22 and int(0.5 + weights.max() * (1 << (bits + 1))) < 1 << 15:
        bits += 1
    whole = np.trunc(weights * (1 << bits) + np.copysign(0.5, weights)).astype(np.int32)
    return torch.from_numpy(np.minimum(places, size - 1)).to(device), torch.from_numpy(whole).to(device), bits


def _triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(0, 1 - x)


def _bicubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution with a = -1/2, as in Pillow."""
    inner, outer = ((1.5 * x - 2.5) * x) * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, inner, np.where(x < 2, outer, 0.0))
