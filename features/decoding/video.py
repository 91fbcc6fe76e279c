"""A video file or frame folder -> the frames that some clip specs ask for, bit-equal to decoding all of it in order."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from actionvit.features.decoding.convert import Allocate
from actionvit.features.decoding.decord import decode_decord
from actionvit.features.decoding.frame_folder import decode_folder
from actionvit.features.decoding.frames import DecodeError, Frames
from actionvit.features.decoding.pyav import decode_pyav
from actionvit.features.failures import Reason
from actionvit.features.sampling import ClipSpec, clip_indices

Backend = Literal["auto", "decord", "pyav"]
OnCorrupt = Literal["keep", "skip"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodePolicy:
    """Which decoder, and what it may accept."""

    backend: Backend = "auto"
    """Every choice gives the same pixels, or an error."""
    on_corrupt: OnCorrupt = "keep"
    """Of a damaged video whose sampled frames are intact: `keep` it, flagged, or `skip` it."""
    max_pixels: int = 8192 * 4320
    """Largest frame accepted, width × height."""

    def __post_init__(self) -> None:
        """Refuse what no policy can be."""
        if self.backend not in get_args(Backend):
            raise ValueError(f"backend: got {self.backend!r}, expected one of {', '.join(get_args(Backend))}")
        if self.on_corrupt not in get_args(OnCorrupt):
            raise ValueError(f"on_corrupt: got {self.on_corrupt!r}, expected one of {', '.join(get_args(OnCorrupt))}")
        if self.max_pixels < 1:
            raise ValueError(f"max_pixels: got {self.max_pixels}, expected at least 1")

    @property
    def key(self) -> str:
        """What of the policy can change pixels or acceptance; not the backend, all being equal."""
        return f"rgb24-bilinear upright on_corrupt={self.on_corrupt} max_pixels={self.max_pixels}"

    @property
    def decoder(self) -> str:
        """Name of the decoder that video files meet first."""
        return "decord" if self.backend == "decord" else "pyav"


def decoder_version() -> str:
    """Return the versions that decide what decodes: what failed under another one is worth another try."""
    return f"av {version('av')}, decord2 {version('decord2')}, pillow {version('pillow')}, {platform.machine()}"


def decode(
    path: Path, specs: Sequence[ClipSpec], policy: DecodePolicy = DecodePolicy(), allocate: Allocate = np.empty
) -> Frames:
    """Decode the union of `clip_indices(count, spec)` over `specs`, in one pass.

    Returns
    -------
    Frames
        uint8 (F, H, W, 3) RGB at the video's own size, upright.

    Raises
    ------
    DecodeError
        With a `reason` from the closed list.
    """
    if not specs:
        raise ValueError("specs: got none, expected at least one")
    choose = partial(wanted, specs=specs)
    if path.is_dir():
        return decode_folder(path, choose, policy.max_pixels, allocate)
    frames = decode_decord(path, choose, policy.max_pixels) if policy.backend == "decord" else None
    frames = frames or decode_pyav(path, choose, policy.max_pixels, allocate)
    if frames.flags and policy.on_corrupt == "skip":
        reason: Reason = "truncated" if "truncated" in frames.flags else "corrupt"
        raise DecodeError(reason, "damaged, though the sampled frames are intact", backend="pyav", frames=frames.count)
    return frames


def wanted(count: int, specs: Iterable[ClipSpec]) -> NDArray[np.int64]:
    """Return the sorted union of the frames that `specs` ask for of a video with `count` frames."""
    return np.unique(np.concatenate([clip_indices(count, spec).ravel() for spec in specs]))
