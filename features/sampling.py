"""Which frames make a clip: index arithmetic, knowing nothing of video files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Sampling = Literal["uniform", "dense"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSpec:
    """How K views of T frames at S × S pixels are taken from a video.

    For T = 3 (`f` a frame taken, `x` one passed over)::

        uniform, 12 frames        x x f x x x f x x x f x     the middle of T equal parts
        uniform, clips=2          x f x x x f x x x f x x     one at a quarter, one at three quarters of each part
                                  x x x f x x x f x x x f
        dense, stride=3           x x f x x f x x f x x x     span (T - 1) · stride + 1, the middle one
        dense, stride=3, clips=2  f x x f x x f x x x x x     starts spread evenly from first to last possible
                                  x x x x x f x x f x x f

    The short-clip rule, for both: where a video has fewer frames than a clip spans, its last frame is repeated.
    """

    num_frames: int
    """T, frames a view."""
    size: int
    """S, side of the square crop in pixels, and the length the short side is resized to."""
    sampling: Sampling = "uniform"
    """`uniform` over the whole video, or `dense` with a fixed stride."""
    stride: int = 1
    """Frames from one sampled frame to the next; for `dense` only."""
    clips: int = 1
    """Temporal views a video."""
    crops: int = 1
    """Spatial views a temporal view: 1 (centre) or 3 (left, centre, right along the long side)."""
    flip: bool = False
    """Whether each view is also taken mirrored."""

    def __post_init__(self) -> None:
        """Refuse what no clip can be."""
        if self.sampling not in get_args(Sampling):
            raise ValueError(f"sampling: got {self.sampling!r}, expected one of {', '.join(get_args(Sampling))}")
        for name in ("num_frames", "size", "stride", "clips"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least 1")
        if self.crops not in (1, 3):
            raise ValueError(f"crops: got {self.crops}, expected 1 or 3")

    @property
    def views(self) -> int:
        """K, views a video: clips × crops × (2 when mirrored), in that nesting, mirrored innermost."""
        return self.clips * self.crops * (2 if self.flip else 1)

    @property
    def span(self) -> int:
        """Frames from a clip's first to its last, both counted, in a video that is long enough."""
        return self.num_frames if self.sampling == "uniform" else (self.num_frames - 1) * self.stride + 1


def clip_indices(num_frames: int, spec: ClipSpec) -> NDArray[np.int64]:
    """Return the frame indices of each view.

    Parameters
    ----------
    num_frames : int
        Frames the video really has, at least 1.
    spec : ClipSpec
        What to take.

    Returns
    -------
    ndarray of shape (K, T)
        Rows in view order: clips outermost, then crops, then mirrored; sorted within a row.

    Raises
    ------
    ValueError
        If `num_frames` is less than 1.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames: got {num_frames}, expected at least 1")
    length = max(num_frames, spec.span)
    steps = np.arange(spec.num_frames, dtype=np.int64)
    clips = np.arange(spec.clips, dtype=np.int64)
    if spec.sampling == "uniform":
        # Segment i, phase (2k + 1) / 2K within it, in whole numbers: no rounding that a platform could change.
        phase = 2 * clips[:, None] + 1
        index = (2 * spec.clips * steps[None, :] + phase) * length // (2 * spec.clips * spec.num_frames)
    else:
        room = length - spec.span
        start = clips * room // (spec.clips - 1) if spec.clips > 1 else np.array([room // 2], dtype=np.int64)
        index = start[:, None] + steps[None, :] * spec.stride
    return np.repeat(np.minimum(index, num_frames - 1), spec.views // spec.clips, axis=0)
