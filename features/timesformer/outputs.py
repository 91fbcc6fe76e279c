"""What an encoder gives for a video, and what its numbers depend on; no torch, so that a rerun can skip it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

from actionvit.errors import ActionVitError
from actionvit.features.sampling import ClipSpec
from actionvit.features.timesformer.checkpoint import Weights
from actionvit.features.timesformer.variants import ModelShape

Precision = Literal["auto", "fp32", "tf32", "bf16", "fp16"]
FramePool = Literal["cls", "mean"]
RESIZE = "short side, antialiased bilinear, 8 bit"
"""Names `transforms.resized` in a cache's key: change it whenever that gives other numbers."""
Quantities = dict[str, tuple[tuple[int, ...], str]]


def quantities(
    shape: ModelShape,
    spec: ClipSpec,
    *,
    layers: Collection[int] = (),
    tokens_after: int | None = None,
) -> Quantities:
    """Return name -> (shape, dtype) of every array an encoder gives for one video.

    Raises
    ------
    ActionVitError
        If a block is asked for that the model has not, or the size is no whole number of patches.
    """
    K, T, D, P = spec.views, spec.num_frames, shape.width, (spec.size // shape.patch) ** 2
    if spec.size % shape.patch:
        raise ActionVitError(f"--size: got {spec.size}, expected a multiple of the model's patch, {shape.patch} pixels")
    given: Quantities = {"clip": ((K, D), "float32"), "frame": ((K, T, D), "float32"), "index": ((K, T), "int32")}
    for layer in sorted(set(layers)):
        if not 1 <= layer <= shape.depth:
            raise ActionVitError(f"--save-layers: got {layer}, expected 1 to {shape.depth}, the model's blocks")
        given[f"layer{layer}"] = ((K, D), "float32")
    if tokens_after is not None:
        if not 0 <= tokens_after < shape.depth:
            raise ActionVitError(f"--save-tokens-after: got {tokens_after}, expected 0 to {shape.depth - 1}")
        given[f"tokens{tokens_after}"] = ((K, T, 1 + P, D), "float16")
    return given


def encoder_key(
    weights: Weights,
    spec: ClipSpec,
    *,
    precision: str,
    frame_pool: FramePool = "cls",
    layers: Collection[int] = (),
    tokens_after: int | None = None,
    compiled: bool = False,
) -> dict[str, Any]:
    """Return everything of an encoder that changes its numbers, as plain values.

    Parameters
    ----------
    weights, spec : Weights, ClipSpec
        The encoder's.
    precision : str
        A resolved one (`resolve`), never `auto`: the cache must say what was computed.
    frame_pool, layers, tokens_after
        As given to `Encoder`.
    compiled : bool
        Whether `torch.compile` made the forward: it orders sums and rounds otherwise.
    """
    assert precision != "auto"
    return {
        "weights": weights.digest,
        "model": asdict(weights.shape),
        "clip": asdict(spec),
        "preprocessing": {"resize": RESIZE, "mean": list(weights.mean), "std": list(weights.std)},
        "precision": f"{precision}, compiled" if compiled else precision,
        "outputs": {"frame_pool": frame_pool, "layers": sorted(set(layers)), "tokens_after": tokens_after},
    }


def resolve(device: str = "auto", precision: Precision = "auto") -> tuple[str, Precision]:
    """Return the device and the precision that `auto` stands for here; torch is imported only if a GPU may be there.

    `auto` is the first CUDA (or ROCm) device, else the CPU; bf16 on GPUs that compute in it, else fp32.

    Raises
    ------
    ActionVitError
        If the device is not there, or cannot do the precision.
    """
    if precision not in get_args(Precision):
        raise ActionVitError(f"--precision: got {precision!r}, expected one of {', '.join(get_args(Precision))}")
    if device == "auto":
        device = "cuda" if _may_have_gpu() and _cuda_devices() else "cpu"
    kind, number = _parsed(device)
    if kind == "cuda":
        count = _cuda_devices()
        if not count:
            raise ActionVitError(
                "--device cuda: torch finds no GPU here; leave it out, or install a CUDA build of torch"
            )
        if number >= count:
            raise ActionVitError(f"--device {device}: torch finds {count} GPUs here, cuda:0 to cuda:{count - 1}")
    if kind == "mps" and not _mps_works():
        raise ActionVitError("--device mps: torch finds no Apple GPU here; leave it out")
    if precision == "tf32" and kind != "cuda":
        raise ActionVitError(f"--precision tf32: is for CUDA GPUs, and the device is {device}; use fp32")
    if precision == "auto":
        precision = "bf16" if kind == "cuda" and _cuda_has_bf16(number) else "fp32"
    return device, precision


def _may_have_gpu() -> bool:
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or sys.platform == "darwin":
        return False
    if not sys.platform.startswith("linux"):
        return True
    return any(Path(node).exists() for node in ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg"))


def _parsed(device: str) -> tuple[str, int]:
    """Return a device's kind and number."""
    found = re.fullmatch(r"(cpu|cuda|mps)(?::(\d+))?", device)
    if not found:
        raise ActionVitError(f"--device: got {device!r}, expected auto, cpu, cuda, cuda:N or mps")
    return found[1], int(found[2] or 0)


def _cuda_devices() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _mps_works() -> bool:
    import torch

    return torch.backends.mps.is_available()


def _cuda_has_bf16(number: int) -> bool:
    import torch

    with torch.cuda.device(number):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
