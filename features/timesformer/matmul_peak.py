"""The machine's limit for a forward: how many multiply-adds a second its matrix products reach."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from actionvit.features.timesformer.fused_linear import Linear
from actionvit.features.timesformer.outputs import Precision

Product = tuple[int, int, int]
# (rows, in, out): a base view's own products, and a square that no cache holds.
BASE: tuple[Product, ...] = ((1576, 768, 768), (1576, 768, 2304), (1576, 768, 3072), (1576, 3072, 768))
SQUARES: dict[str, tuple[Product, ...]] = {
    "cpu": ((2048, 2048, 2048),),
    "cuda": ((8192, 8192, 8192), (16384, 4096, 4096)),
    "mps": ((4096, 4096, 4096),),
}


def products(
    device: str, precision: Precision, *, shapes: Sequence[Product] | None = None, seconds: float = 0.2
) -> dict[Product, float]:
    """Return 10⁹ multiply-adds a second of each product, the best of some repetitions.

    Parameters
    ----------
    device, precision : str
        Resolved ones, as `outputs.resolve` returns them.
    shapes : sequence of (rows, in, out), optional
        By default a base view's four products and large squares.
    seconds : float
        For each shape; at least three repetitions are made.
    """
    from actionvit.features.timesformer.encoder import DTYPES

    place, dtype = torch.device(device), DTYPES[precision]
    found = {}
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        for rows, wide, out in shapes or (*BASE, *SQUARES[place.type]):
            x = torch.randn(rows, wide, device=place).to(dtype)
            weight, bias = torch.randn(out, wide, device=place).to(dtype), torch.zeros(out, device=place, dtype=dtype)
            found[rows, wide, out] = rows * wide * out / _best(_ways(x, weight, bias), place, seconds) / 1e9
    finally:
        torch.set_float32_matmul_precision(before)
    return found


def peak(device: str, precision: Precision, *, seconds: float = 0.2) -> float:
    """Return the most 10⁹ multiply-adds a second that any of `products` reaches."""
    return max(products(device, precision, seconds=seconds).values())


def _ways(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> list[Callable[[], object]]:
    """Return the products that a machine may have for one shape: torch's own, and oneDNN's prepacked one."""
    plain, packed = Linear(weight, bias), Linear(weight, bias).pack(len(x))
    return [lambda: plain(x)] if x.device.type != "cpu" else [lambda: plain(x), lambda: packed(x)]


def _best(ways: Sequence[Callable[[], object]], device: torch.device, seconds: float) -> float:
    times: list[float] = []
    with torch.inference_mode():
        for way in ways:
            way()  # the first call sets up
            end = time.perf_counter() + seconds / len(ways)
            while len(times) < 3 or time.perf_counter() < end:
                _wait(device)
                began = time.perf_counter()
                way()
                _wait(device)
                times.append(time.perf_counter() - began)
    return min(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
