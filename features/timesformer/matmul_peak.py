"""The machine's limit for a forward: its matmul rate in multiply-adds per second."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from actionvit.features.batching import DTYPES
from actionvit.features.device import Precision
from actionvit.features.timesformer.fused_linear import FusedLinear

Shape = tuple[int, int, int]
"""(rows, in, out)"""
# The matmuls of one base view, and squares too large for any cache.
BASE: tuple[Shape, ...] = ((1576, 768, 768), (1576, 768, 2304), (1576, 768, 3072), (1576, 3072, 768))
SQUARES: dict[str, tuple[Shape, ...]] = {
    "cpu": ((2048, 2048, 2048),),
    "cuda": ((8192, 8192, 8192), (16384, 4096, 4096)),
    "mps": ((4096, 4096, 4096),),
}


def matmul_rates(
    device: str, precision: Precision, *, shapes: Sequence[Shape] | None = None, seconds: float = 0.2
) -> dict[Shape, float]:
    """Return the rate of each matmul in 10⁹ multiply-adds per second, the best of several repetitions.

    Parameters
    ----------
    device, precision : str
        Resolved, as `resolve_device` returns them.
    shapes : sequence of (rows, in, out), optional
        By default the four matmuls of a base view and large squares.
    seconds : float
        Time per shape; at least three repetitions are made.
    """
    place, dtype = torch.device(device), DTYPES[precision]
    rates = {}
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        for rows, width, out in shapes or (*BASE, *SQUARES[place.type]):
            x = torch.randn(rows, width, device=place).to(dtype)
            weight, bias = torch.randn(out, width, device=place).to(dtype), torch.zeros(out, device=place, dtype=dtype)
            rates[rows, width, out] = rows * width * out / _best(_kernels(x, weight, bias), place, seconds) / 1e9
    finally:
        torch.set_float32_matmul_precision(before)
    return rates


def peak_matmul_range(
    device: str, precision: Precision, *, rounds: int = 6, seconds: float = 0.1, on_round: Callable[[int], None]
) -> tuple[float, float]:
    """Return the lowest and the highest peak of several rounds of `matmul_rates`, apart where the machine is shared."""
    peaks = []
    for number in range(rounds):
        peaks.append(max(matmul_rates(device, precision, seconds=seconds).values()))
        on_round(number + 1)
    return min(peaks), max(peaks)


def _kernels(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> list[Callable[[], object]]:
    """Return the available kernels for one shape: torch's own, and on CPUs oneDNN's prepacked one."""
    plain, packed = FusedLinear(weight, bias), FusedLinear(weight, bias).prepack(len(x))
    return [lambda: plain(x)] if x.device.type != "cpu" else [lambda: plain(x), lambda: packed(x)]


def _best(kernels: Sequence[Callable[[], object]], device: torch.device, seconds: float) -> float:
    times: list[float] = []
    with torch.inference_mode():
        for kernel in kernels:
            kernel()  # the first call sets up
            end = time.perf_counter() + seconds / len(kernels)
            while len(times) < 3 or time.perf_counter() < end:
                _synchronize(device)
                start = time.perf_counter()
                kernel()
                _synchronize(device)
                times.append(time.perf_counter() - start)
    return min(times)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
