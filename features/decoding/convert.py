"""Decoded pictures -> the RGB frames that were asked for, upright, in one array."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from actionvit.features.decoding.frames import DecodeError, Frames
from actionvit.features.failures import Reason

if TYPE_CHECKING:
    from av import VideoFrame

Allocate = Callable[[tuple[int, ...], type[np.uint8]], NDArray[np.uint8]]
"""From a shape to an array of it, whatever that holds: `numpy.empty`, or shared memory."""


class Picked:
    """The wanted frames of a video, converted as they come; all must have one size."""

    def __init__(self, index: NDArray[np.int64], allocate: Allocate) -> None:
        from av.video.reformatter import VideoReformatter

        self.index = index
        self._row = {position: row for row, position in enumerate(index.tolist())}
        self._data: NDArray[np.uint8] | None = None
        self._allocate = allocate
        self._reformat = VideoReformatter().reformat
        self._matrices: dict[int, NDArray[np.int32] | None] = {}

    def offer(self, position: int, frame: VideoFrame) -> None:
        """Take the frame at `position` if it is one of those wanted."""
        row = self._row.get(position)
        if row is None:
            return
        rgb = upright(self._convert(frame), self._matrix(frame))
        if self._data is None:
            self._data = self._allocate((len(self.index), *rgb.shape), np.uint8)
        if rgb.shape != self._data.shape[1:]:
            (h, w), (was_h, was_w) = rgb.shape[:2], self._data.shape[1:3]
            detail = f"frame {position} is {w} × {h} pixels, those before it {was_w} × {was_h}"
            raise DecodeError("unsupported", detail, backend="pyav", frames=position)
        self._data[row] = rgb

    def frames(
        self, count: int, flags: Collection[str] = (), damaged: Collection[int] = (), duration: float | None = None
    ) -> Frames:
        """Return what was picked. Raises DecodeError if a frame that was asked for is among the damaged."""
        if damaged and (lost := sum(position in damaged for position in self.index.tolist())):
            detail = f"{lost} of the {len(self.index)} sampled frames are damaged"
            reason: Reason = "truncated" if "truncated" in flags else "corrupt"
            raise DecodeError(reason, detail, backend="pyav", frames=count)
        assert self._data is not None
        return Frames(self._data, self.index, count, "pyav", tuple(sorted(flags)), duration)

    def _convert(self, frame: VideoFrame) -> NDArray[np.uint8]:
        # PyAV's own defaults (bilinear chroma), one thread: what `frame.to_ndarray(format="rgb24")` gives.
        import av

        try:
            rgb = self._reformat(frame, format="rgb24", threads=1)
        except MemoryError:
            raise
        except (av.FFmpegError, ValueError) as error:
            detail = f"no RGB of its pixel format {frame.format.name}"
            raise DecodeError("unsupported", detail, backend="pyav") from error
        (plane,) = rgb.planes
        rows = np.frombuffer(plane, np.uint8).reshape(frame.height, plane.line_size)  # type: ignore[call-overload]
        image: NDArray[np.uint8] = rows[:, : 3 * frame.width].reshape(frame.height, frame.width, 3)
        return image

    def _matrix(self, frame: VideoFrame) -> NDArray[np.int32] | None:
        """Return a frame's display matrix (9,).

        Asking a frame for side data ties it into a reference cycle, so that its memory waits for the garbage
        collector: only one frame of each rotation is asked.
        """
        if (turn := frame.rotation) not in self._matrices:
            found: Any = frame.side_data.get("DISPLAYMATRIX")
            self._matrices[turn] = None if found is None else np.frombuffer(found, np.int32).copy()
        return self._matrices[turn]


def upright(image: NDArray[np.uint8], matrix: NDArray[np.int32] | None) -> NDArray[np.uint8]:
    """Turn and mirror an image (H, W, 3) as a display matrix tells a player to."""
    if matrix is None:
        return image
    a, b, _, c, d = matrix[:5].tolist()  # x' = a x + c y, y' = b x + d y
    pixels = image.view("V3")[..., 0]  # three bytes that move as one: twice as fast
    if abs(b) + abs(c) > abs(a) + abs(d):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    pixels = np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
    return pixels.view(np.uint8).reshape(*pixels.shape, 3)
