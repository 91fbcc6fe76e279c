"""A video file or frame folder -> the frames that some clip specs ask for, bit-equal to decoding all of it in order."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from actionvit.features.clips import ClipSpec, clip_indices
from actionvit.features.frames import DecodeError, Frames

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
        """What of the policy can change a video's pixels or whether it is accepted; not the backend, all being equal."""
        return f"rgb24-bilinear upright on_corrupt={self.on_corrupt} max_pixels={self.max_pixels}"


def decoder_version() -> str:
    """Return the versions that decide what decodes: what failed under another one is worth another try."""
    return f"av {version('av')}, decord2 {version('decord2')}, pillow {version('pillow')}, {platform.machine()}"


def decode(path: Path, specs: Sequence[ClipSpec], policy: DecodePolicy = DecodePolicy()) -> Frames:
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
    import av

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            images = [frame.to_ndarray(format="rgb24", threads=1) for frame in container.decode(stream)]
    except (av.FFmpegError, OSError, IndexError) as error:
        raise DecodeError("not_video", str(error), backend="pyav") from error
    if not images:
        raise DecodeError("empty", "no frame decodes", backend="pyav")
    index = wanted(len(images), specs)
    return Frames(data=np.stack([images[i] for i in index]), index=index, count=len(images), backend="pyav")


def wanted(count: int, specs: Iterable[ClipSpec]) -> NDArray[np.int64]:
    """Return the sorted union of the frames that `specs` ask for of a video with `count` frames."""
    return np.unique(np.concatenate([clip_indices(count, spec).ravel() for spec in specs]))
