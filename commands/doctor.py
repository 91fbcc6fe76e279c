"""`actionvit doctor`: versions, devices and expected speed of this machine."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import click

from actionvit.commands.command import Command
from actionvit.commands.options import device_option, echo_json, json_option, precision_option

if TYPE_CHECKING:
    from actionvit.features.device import Precision

PACKAGES = ("actionvit", "torch", "transformers", "numpy", "h5py", "scikit-learn", "safetensors", "huggingface_hub")
ROUNDS = 6
"""Measurements of the matmul rate, whose range is shown."""
REACHED = {"cpu": 0.85, "cuda": 0.5, "mps": 0.5}
"""Fraction of the matmul peak that a forward pass reaches: measured on CPUs (docs/explanation/encoder.md), assumed on
GPUs."""


@click.command(cls=Command, examples="actionvit doctor --device cpu")
@device_option()
@precision_option()
@json_option
def command(device: str, precision: Precision, as_json: bool) -> None:
    """Show versions, decoders, device, available weights and the expected extraction speed."""
    import platform

    from actionvit.features.device import resolve_device

    place, resolved = resolve_device(device, precision)
    speed = _speed(place, resolved)
    report = {
        "python": f"{platform.python_version()} on {platform.platform()}",
        "packages": {name: _release(name) for name in PACKAGES},
        "decoders": _decoders(),
        "device": _device(place, resolved),
        "weights": _weights(),
        "peak": f"{_range(speed['peak'], 3)} GMAC/s, the best of matmuls of base's shapes and of large squares",
        "expected": {name: f"{_range(rate)} videos per second" for name, rate in speed.items() if name != "peak"},
    }
    if as_json:
        echo_json({**report, "gmac_per_second": speed.pop("peak"), "videos_per_second": speed})
        return
    for name, value in report.items():
        lines = value.items() if isinstance(value, dict) else [("", value)]
        click.echo(name)
        for key, text in lines:
            click.echo(f"  {key:15} {text}" if key else f"  {text}")


def _range(ends: tuple[float, float], digits: int = 2) -> str:
    """Return `3.1`, or `2.4 to 3.1` where the rounds differ in the digits shown."""
    low, high = (f"{end:,.{digits}g}" if end < 10**digits else f"{end:,.0f}" for end in ends)
    return low if low == high else f"{low} to {high}"


def _release(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _decoders() -> dict[str, str]:
    """Return the version of each decoder, or why it cannot be imported."""
    versions = {}
    try:
        import av

        versions["pyav"] = f"av {_release('av')}, FFmpeg {av.ffmpeg_version_info}"
    except ImportError as error:
        versions["pyav"] = f"does not import: {error}"
    try:
        import decord  # noqa: F401  (tests the import)

        versions["decord"] = f"decord2 {_release('decord2')}"
    except (ImportError, OSError, RuntimeError) as error:  # its library is loaded by hand
        versions["decord"] = f"does not import: {error}"
    return versions


def _device(place: str, precision: str) -> str:
    import torch

    from actionvit.features.decoding import available_cores

    if not place.startswith("cuda"):
        return f"{place}, {precision}; {available_cores()} cores, {torch.get_num_threads()} threads per matmul"
    name, memory = torch.cuda.get_device_name(place), torch.cuda.get_device_properties(place).total_memory
    return f"{place}, {precision}; {name}, {memory / 2**30:.0f} GiB; {torch.cuda.device_count()} GPUs here"


def _weights() -> dict[str, str]:
    from actionvit.features.hub import cached
    from actionvit.features.timesformer.variants import BUILT_IN, VARIANTS

    sources = {}
    for variant in VARIANTS.values():
        if variant.weights is None:
            sources[variant.name] = "none published; give --weights"
        elif variant.weights == BUILT_IN:
            sources[variant.name] = "built in"
        else:
            at_hand = "in the local cache" if cached(variant.weights) else "to be downloaded"
            sources[variant.name] = f"{variant.weights}, {at_hand}"
    return sources


def _speed(place: str, precision: Precision) -> dict[str, tuple[float, float]]:
    """Return ranges of the peak, and of the videos of one view per second of each variant's forward."""
    from actionvit.commands.progress import progress
    from actionvit.features.timesformer.config import TimeSformerConfig
    from actionvit.features.timesformer.matmul_peak import peak_matmul_range
    from actionvit.features.timesformer.variants import BUILT_IN, VARIANTS, clip_spec, gmac

    built_in = [name for name, variant in VARIANTS.items() if variant.weights == BUILT_IN]
    steps = ROUNDS + len(built_in)
    rates: dict[str, tuple[float, float]] = {}
    with progress("measure", "step", delay=1, total=steps) as advance:
        peak = peak_matmul_range(place, precision, rounds=ROUNDS, on_round=lambda done: advance(done, steps))
        reached = REACHED[place.partition(":")[0]]
        for name in VARIANTS:
            if name in built_in:  # too small to reach the peak rate, and fast to measure
                rates[name] = _tried(name, place, precision)
                advance(ROUNDS + built_in.index(name) + 1, steps)
            else:
                cost = gmac(TimeSformerConfig(), clip_spec(name), needed=True)
                rates[name] = peak[0] * reached / cost, peak[1] * reached / cost
    return {"peak": peak, **rates}


def _tried(variant: str, place: str, precision: Precision) -> tuple[float, float]:
    """Return the lowest and the highest rate, in videos per second, of an encoder whose weights are built in.

    One batch warms up, then at least three are timed, for at least a second.
    """
    import time

    import numpy as np

    from actionvit.features.decoding import Frames
    from actionvit.features.timesformer.checkpoint import find_weights
    from actionvit.features.timesformer.encoder import Encoder
    from actionvit.features.timesformer.variants import clip_spec

    spec = clip_spec(variant)
    encoder = Encoder(find_weights(variant), spec, device=place, precision=precision)
    index = np.arange(spec.num_frames)
    frames = Frames(data=np.zeros((len(index), 240, 320, 3), np.uint8), index=index, count=len(index), backend="pyav")
    times = []
    for number in range(1000):
        batch = [frames] * encoder.batch_videos
        began = time.perf_counter()
        encoder.submit(batch).result()
        times.append((time.perf_counter() - began) / len(batch))
        if number >= 3 and sum(times[1:]) * len(batch) > 1:
            break
    return 1 / max(times[1:]), 1 / min(times[1:])
