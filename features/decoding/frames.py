"""Decoded frames, and the closed list of reasons for having none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actionvit.errors import ActionVitError
from actionvit.features.failures import Reason


class DecodeError(ActionVitError):
    """A video that gives no clip; `reason` is from the closed list, `detail` one line."""

    def __init__(self, reason: Reason, detail: str, *, backend: str = "", frames: int = 0) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail
        self.backend = backend
        """The decoder that gave up."""
        self.frames = frames
        """Frames seen before it did."""


@dataclass(frozen=True, slots=True)
class Frames:
    """Some frames of one video, each once, as a player would show them."""

    data: NDArray[np.uint8]
    """(F, H, W, 3), RGB, at the video's own size, upright."""
    index: NDArray[np.int64]
    """(F,), strictly rising positions in presentation order."""
    count: int
    """Frames the whole video has (as far as `index` could need them)."""
    backend: str
    """Which decoder: `decord`, `pyav` or `folder`."""
    flags: tuple[str, ...] = ()
    """What was odd but survivable, sorted: `corrupt`, `truncated`, ..."""
    duration: float | None = None
    """Seconds that the whole video plays; None where nothing tells, as in a folder of frames."""

    def __post_init__(self) -> None:
        """Refuse anything but uint8 (F, H, W, 3) with one rising index a frame."""
        if self.data.dtype != np.uint8 or self.data.ndim != 4 or self.data.shape[-1] != 3:
            raise ValueError(f"frames: got {self.data.dtype} {self.data.shape}, expected uint8 (F, H, W, 3)")
        if self.index.shape != self.data.shape[:1] or (self.index[1:] <= self.index[:-1]).any():
            raise ValueError(f"frame index: got {self.index.shape}, expected {self.data.shape[:1]}, strictly rising")

    def positions(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where in `data` the frames of `index` (any shape) lie; KeyError if one was not decoded."""
        at = np.minimum(np.searchsorted(self.index, index), len(self.index) - 1)
        if not np.array_equal(self.index[at], index):
            raise KeyError(f"frames {sorted(set(index.ravel()) - set(self.index))} were not decoded")
        return at
