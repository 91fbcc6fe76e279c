"""Decoded frames of one video, and the error of a video that gives none."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pickle import PickleBuffer
from typing import Any, Literal, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from actionvit.errors import ActionVitError
from actionvit.features.failures import Reason

Flag = Literal["corrupt", "truncated"]
Allocate = Callable[[tuple[int, ...], type[np.uint8]], NDArray[np.uint8]]
"""From a shape and dtype to an array of any content: `numpy.empty`, or a buffer in shared memory."""


class DecodeError(ActionVitError):
    """A video that gives no frames; `reason` is from the closed list, `detail` is one line."""

    def __init__(self, reason: Reason, detail: str, *, backend: str = "", frames_decoded: int = 0) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail
        self.backend = backend
        """The decoder that failed."""
        self.frames_decoded = frames_decoded
        """Frames decoded before the failure."""


class CountChangedError(Exception):
    """Decoding gave another number of frames than the packets promised; `Video.count` and `times` are now right."""


@dataclass(frozen=True, slots=True)
class Frames:
    """Some frames of a video, or of a segment of it, each once, as a player shows them."""

    data: NDArray[np.uint8]
    """(F, H, W, 3), RGB, at the video's own size, upright."""
    index: NDArray[np.int64]
    """(F,), ascending positions in presentation order, from 0 for the first frame of the video or segment."""
    count: int
    """Frames in the video or segment."""
    backend: str
    """The decoder: `decord`, `pyav` or `folder`."""
    flags: tuple[Flag, ...] = ()
    """Damage that did not reach these frames, sorted."""
    duration: float | None = None
    """Seconds that the video or segment plays; None without presentation times, as in a frame folder."""

    def __post_init__(self) -> None:
        """Validate shapes: uint8 (F, H, W, 3) with one ascending index per frame."""
        if self.data.dtype != np.uint8 or self.data.ndim != 4 or self.data.shape[-1] != 3:
            raise ValueError(f"frames: got {self.data.dtype} {self.data.shape}, expected uint8 (F, H, W, 3)")
        if self.index.shape != self.data.shape[:1] or (self.index[1:] <= self.index[:-1]).any():
            raise ValueError(f"frame index: got {self.index.shape}, expected {self.data.shape[:1]}, strictly ascending")

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        """Pickle with the pixels as the one buffer; faster by far than the default for dataclasses and for arrays."""
        data = PickleBuffer(self.data) if int(protocol) >= 5 else self.data.tobytes()  # type: ignore[arg-type]
        about = (self.count, self.backend, self.flags, self.duration)
        return _frames, (data, self.data.shape, self.index.tobytes(), about)

    def positions(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of `data` that hold the frames of `index` (any shape); KeyError if one was not decoded."""
        rows = np.minimum(np.searchsorted(self.index, index), len(self.index) - 1)
        if not np.array_equal(self.index[rows], index):
            raise KeyError(f"frames {sorted(set(index.ravel()) - set(self.index))} were not decoded")
        return rows


def _frames(data: Any, shape: tuple[int, ...], index: bytes, about: tuple[Any, ...]) -> Frames:
    pixels = np.frombuffer(data, np.uint8, math.prod(shape))  # a buffer of shared memory may be longer
    return Frames(pixels.reshape(shape), np.frombuffer(index, np.int64), *about)
