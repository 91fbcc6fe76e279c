"""Frame indices of clips: pure integer arithmetic, independent of video files."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from actionvit.features.view_settings import Sampling, ViewSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSpec:
    """Sampling of K views of T frames at S × S pixels from a video.

    For T = 3 (`f` a sampled frame, `x` a skipped one)::

        uniform, 12 frames        x x f x x x f x x x f x     the middle of T equal parts
        uniform, clips=2          x f x x x f x x x f x x     at one quarter and three quarters of each part
                                  x x x f x x x f x x x f
        dense, stride=3           x x f x x f x x f x x x     span (T - 1) · stride + 1, centered
        dense, stride=3, clips=2  f x x f x x f x x x x x     starts spread evenly from first to last possible
                                  x x x x x f x x f x x f

    Both repeat the last frame where a video has fewer frames than a clip spans.
    """

    num_frames: int
    """T, frames per view."""
    size: int
    """S, side of the square crop in pixels; the short side of the frame is resized to it."""
    sampling: Sampling = "uniform"
    """`uniform` over the whole video, or `dense` with a fixed stride."""
    stride: int = 1
    """Frames from one sampled frame to the next for `dense`; always 1 for `uniform`, which ignores it."""
    clips: int = 1
    """Temporal views per video."""
    crops: int = 1
    """Spatial views per temporal view: 1 (center) or 3 (left, center, right along the long side)."""
    flip: bool = False
    """Whether each view is added mirrored."""

    def __post_init__(self) -> None:
        """Validate the fields, and set `stride` to 1 for uniform sampling: equal samplings must compare equal."""
        if self.sampling not in get_args(Sampling):
            raise ValueError(f"sampling: got {self.sampling!r}, expected one of {', '.join(get_args(Sampling))}")
        for name in ("num_frames", "size", "stride", "clips"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least 1")
        if self.crops not in (1, 3):
            raise ValueError(f"crops: got {self.crops}, expected 1 or 3")
        if self.sampling == "uniform":
            object.__setattr__(self, "stride", 1)

    @classmethod
    def of(cls, views: ViewSettings, *, num_frames: int, size: int, stride: int) -> ClipSpec:
        """Return the sampling that a user asks for, with an encoder's values for the settings that are None."""
        return cls(
            num_frames=views.num_frames or num_frames,
            size=views.size or size,
            sampling=views.sampling,
            stride=views.stride or stride,
            clips=views.num_clips,
            crops=views.crops,
            flip=views.flip,
        )

    @property
    def views(self) -> int:
        """K, views per video: clips × crops × (2 with `flip`), in that nesting, mirrored innermost."""
        return self.clips * self.crops * (2 if self.flip else 1)

    @property
    def span(self) -> int:
        """Frames from the first to the last of a clip, both included, in a video that is long enough."""
        return self.num_frames if self.sampling == "uniform" else (self.num_frames - 1) * self.stride + 1


@dataclass(frozen=True, slots=True)
class Segment:
    """Part of a video: the frames whose presentation time t satisfies start <= t < end.

    Times are seconds after the first frame that a player shows, whose time is 0. With unit `frames`, start and end
    are positions in presentation order instead, from 0. An end behind the last frame is allowed.
    """

    start: float
    end: float
    unit: Literal["seconds", "frames"] = "seconds"

    def __post_init__(self) -> None:
        """Validate the fields."""
        if not (math.isfinite(self.start) and math.isfinite(self.end) and 0 <= self.start < self.end):
            raise ValueError(f"segment: got {self.start} to {self.end}, expected 0 <= start < end")
        if self.unit not in ("seconds", "frames"):
            raise ValueError(f"unit: got {self.unit!r}, expected one of seconds, frames")
        if self.unit == "frames" and not (float(self.start).is_integer() and float(self.end).is_integer()):
            raise ValueError(f"segment: got {self.start} to {self.end} frames, expected whole numbers")

    def __str__(self) -> str:
        """Return `start-end` in the fewest digits that give the same numbers, such as `1.5-4`."""
        return "-".join(repr(float(number)).removesuffix(".0") for number in (self.start, self.end))

    def bounds(self, count: int, times: NDArray[np.float64] | None) -> tuple[int, int]:
        """Return the positions of the segment's first frame and of the frame after its last.

        Parameters
        ----------
        count : int
            Frames in the video.
        times : ndarray of shape (count,) or None
            Presentation times in seconds after the first frame, ascending; None if the video has none.

        Raises
        ------
        ValueError
            If the segment is in seconds and `times` is None.
        """
        if self.unit == "frames":
            return min(int(self.start), count), min(int(self.end), count)
        if times is None:
            raise ValueError("a segment in seconds needs presentation times")
        first, stop = np.searchsorted(times, [self.start, self.end], side="left").tolist()
        return first, stop


def clip_indices(count: int, spec: ClipSpec) -> NDArray[np.int64]:
    """Return the frame indices of each view.

    Parameters
    ----------
    count : int
        Frames in the video, at least 1.
    spec : ClipSpec

    Returns
    -------
    ndarray of shape (K, T)
        Rows in view order: clips outermost, then crops, then mirrored; ascending within a row.

    Raises
    ------
    ValueError
        If `count` is less than 1.
    """
    if count < 1:
        raise ValueError(f"count: got {count}, expected at least 1")
    length = max(count, spec.span)
    steps = np.arange(spec.num_frames, dtype=np.int64)
    clips = np.arange(spec.clips, dtype=np.int64)
    if spec.sampling == "uniform":
        # Part i of T, at phase (2k + 1) / 2K: in integers, so that no platform rounds differently.
        phase = 2 * clips[:, None] + 1
        index = (2 * spec.clips * steps[None, :] + phase) * length // (2 * spec.clips * spec.num_frames)
    else:
        last_start = length - spec.span
        start = (
            clips * last_start // (spec.clips - 1) if spec.clips > 1 else np.array([last_start // 2], dtype=np.int64)
        )
        index = start[:, None] + steps[None, :] * spec.stride
    return np.repeat(np.minimum(index, count - 1), spec.views // spec.clips, axis=0)


def union_indices(count: int, specs: Iterable[ClipSpec]) -> NDArray[np.int64]:
    """Return the ascending frame indices (F,) that the views of any of `specs` need of a video with `count` frames."""
    return np.unique(np.concatenate([clip_indices(count, spec).ravel() for spec in specs]))
