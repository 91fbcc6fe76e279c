"""The device and number format that `auto` stands for; torch is imported only where a GPU may be present."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Literal, get_args

from actionvit.errors import SettingError

Precision = Literal["auto", "fp32", "tf32", "bf16", "fp16"]


def resolve_device(device: str = "auto", precision: Precision = "auto") -> tuple[str, Precision]:
    """Return the device and the precision to compute with.

    Parameters
    ----------
    device : str
        `auto` (the first CUDA or ROCm device, otherwise the CPU), `cpu`, `cuda`, `cuda:N` or `mps`.
    precision : str
        `auto` is bf16 on GPUs that compute in it, otherwise fp32.

    Raises
    ------
    ActionVitError
        If the device is absent or does not support the precision.
    """
    if precision not in get_args(Precision):
        raise SettingError(f"precision: got {precision!r}, expected one of {', '.join(get_args(Precision))}")
    if device == "auto":
        device = "cuda" if _may_have_gpu() and _cuda_devices() else "cpu"
    kind, number = _parse(device)
    if kind == "cuda":
        count = _cuda_devices()
        if not count:
            raise SettingError("device cuda: torch finds no GPU here; leave it out, or install a CUDA build of torch")
        if number >= count:
            raise SettingError(f"device {device}: torch finds {count} GPUs here, cuda:0 to cuda:{count - 1}")
    if kind == "mps" and not _mps_available():
        raise SettingError("device mps: torch finds no Apple GPU here; leave it out")
    if precision == "tf32" and kind != "cuda":
        raise SettingError(f"precision tf32: is for CUDA GPUs, and the device is {device}; use fp32")
    if precision == "auto":
        precision = "bf16" if kind == "cuda" and _cuda_has_bf16(number) else "fp32"
    return device, precision


def _may_have_gpu() -> bool:
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or sys.platform == "darwin":
        return False
    if not sys.platform.startswith("linux"):
        return True
    return any(Path(node).exists() for node in ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg"))


def _parse(device: str) -> tuple[str, int]:
    """Return a device's kind and number."""
    match = re.fullmatch(r"(cpu|cuda|mps)(?::(\d+))?", device)
    if not match:
        raise SettingError(f"device: got {device!r}, expected auto, cpu, cuda, cuda:N or mps")
    return match[1], int(match[2] or 0)


def _cuda_devices() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _mps_available() -> bool:
    import torch

    return torch.backends.mps.is_available()


def _cuda_has_bf16(number: int) -> bool:
    import torch

    with torch.cuda.device(number):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
