"""8-bit pictures resized to the same bytes on every device.

torch's kernel for 8-bit pixels on the CPU is Pillow's antialiased triangle filter in 16-bit fixed point: rows first,
then columns, rounded to 8 bits after each. Other devices have a floating-point kernel only, whose pixels are off by
one here and there; on dim, flat frames that moves a CLIP embedding by more than half precision does. So they add up
the same integers instead, which come out the same wherever they are added.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def resize(pictures: Tensor, height: int, width: int) -> Tensor:
    """Return pictures (F, H, W, 3), uint8, as (F, height, width, 3), uint8, on their device."""
    if pictures.device.type == "cpu":
        planes = pictures.permute(0, 3, 1, 2)  # a view: channels stay last in memory, which the kernel likes best
        scaled = F.interpolate(planes, size=(height, width), mode="bilinear", antialias=True, align_corners=False)
        return scaled.permute(0, 2, 3, 1)
    return resize_by_integers(pictures, height, width)


def resize_by_integers(pictures: Tensor, height: int, width: int) -> Tensor:
    """As `resize`, by sums of integers on any device."""
    for dim, size in ((2, width), (1, height)):
        if pictures.shape[dim] != size:
            pictures = _along(pictures, dim, size)
    return pictures


def _along(pictures: Tensor, dim: int, size: int) -> Tensor:
    places, weights, bits = _taps(pictures.shape[dim], size, pictures.device)
    shape = [-1 if axis == dim else 1 for axis in range(4)]
    total = weights.new_full((), 1 << (bits - 1))  # a half: what follows rounds down
    for place, weight in zip(places, weights, strict=True):
        total = total + pictures.index_select(dim, place).int().mul_(weight.view(shape))
    return total.bitwise_right_shift_(bits).clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=64)
def _taps(size: int, wanted: int, device: torch.device) -> tuple[Tensor, Tensor, int]:
    """Return places (K, wanted) and weights (K, wanted) of the K pixels that make each new one, and the weights' bits.

    Kept: a copy to a GPU waits for all that is queued there.
    """
    scale = size / wanted
    support = max(scale, 1.0)
    centre = scale * (np.arange(wanted) + 0.5)
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int64), size)
    places = first + np.arange(2 * math.ceil(support) + 1)[:, None]
    weights = np.maximum(0, 1 - np.abs((places - centre + 0.5) / support)) * (places < last)
    weights /= weights.sum(axis=0)
    bits = 0  # as many as keep the largest weight within 16, with its sign
    while bits < 22 and int(0.5 + weights.max() * (1 << (bits + 1))) < 1 << 15:
        bits += 1
    whole = np.floor(weights * (1 << bits) + 0.5).astype(np.int32)
    return torch.from_numpy(np.minimum(places, size - 1)).to(device), torch.from_numpy(whole).to(device), bits
