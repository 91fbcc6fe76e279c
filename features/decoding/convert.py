"""Conversion of decoded frames to upright RGB, collected in one array."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from actionvit.features.decoding.frames import Allocate, DecodeError, Flag, Frames
from actionvit.features.failures import Reason

if TYPE_CHECKING:
    from av import VideoFrame


class FrameCollector:
    """The frames at some positions of a video, converted as the decoder gives them; all must have one size.

    Parameters
    ----------
    index : ndarray of shape (F,)
        Ascending positions of the frames to collect.
    allocate : callable
        `allocate((F, H, W, 3), uint8)` makes the array that they are written into.
    """

    def __init__(self, index: NDArray[np.int64], allocate: Allocate) -> None:
        from av.video.reformatter import VideoReformatter

        self.index = index
        self._row = {position: row for row, position in enumerate(index.tolist())}
        self._data: NDArray[np.uint8] | None = None
        self._allocate = allocate
        self._reformat = VideoReformatter().reformat
        self._matrices: dict[int, NDArray[np.int32] | None] = {}

    def add(self, position: int, frame: VideoFrame) -> None:
        """Convert the frame at `position` if it is one of those to collect."""
        row = self._row.get(position)
        if row is None:
            return
        rgb = upright(self._convert(frame), self._matrix(frame))
        if self._data is None:
            self._data = self._allocate((len(self.index), *rgb.shape), np.uint8)
        if rgb.shape != self._data.shape[1:]:
            (h, w), (first_h, first_w) = rgb.shape[:2], self._data.shape[1:3]
            detail = f"frame {position} is {w} × {h} pixels, those before it {first_w} × {first_h}"
            raise DecodeError("unsupported", detail, backend="pyav", frames_decoded=position)
        self._data[row] = rgb

    def finish(
        self, count: int, flags: Collection[Flag] = (), affected: Collection[int] = (), duration: float | None = None
    ) -> Frames:
        """Return the collected frames. Raises DecodeError if one of them is among those affected by damage."""
        if affected and (lost := sum(position in affected for position in self.index.tolist())):
            detail = f"{lost} of the {len(self.index)} sampled frames are damaged"
            reason: Reason = "truncated" if "truncated" in flags else "corrupt"
            raise DecodeError(reason, detail, backend="pyav", frames_decoded=count)
        assert self._data is not None
        return Frames(self._data, self.index, count, "pyav", tuple(sorted(flags)), duration)

    def _convert(self, frame: VideoFrame) -> NDArray[np.uint8]:
        # PyAV's own defaults (bilinear chroma) with one thread: equal to `frame.to_ndarray(format="rgb24")`.
        import av

        try:
            rgb = self._reformat(frame, format="rgb24", threads=1)
        except MemoryError:
            raise
        except (av.FFmpegError, ValueError) as error:
            detail = f"no conversion to RGB from its pixel format {frame.format.name}"
            raise DecodeError("unsupported", detail, backend="pyav") from error
        (plane,) = rgb.planes
        rows = np.frombuffer(plane, np.uint8).reshape(frame.height, plane.line_size)  # type: ignore[call-overload]
        image: NDArray[np.uint8] = rows[:, : 3 * frame.width].reshape(frame.height, frame.width, 3)
        return image

    def _matrix(self, frame: VideoFrame) -> NDArray[np.int32] | None:
        """Return a frame's display matrix (9,), read once per rotation.

        Reading side data puts the frame into a reference cycle, and its memory then waits for the garbage collector.
        """
        if (rotation := frame.rotation) not in self._matrices:
            matrix: Any = frame.side_data.get("DISPLAYMATRIX")
            self._matrices[rotation] = None if matrix is None else np.frombuffer(matrix, np.int32).copy()
        return self._matrices[rotation]


def upright(image: NDArray[np.uint8], matrix: NDArray[np.int32] | None) -> NDArray[np.uint8]:
    """Rotate and mirror an image (H, W, 3) by a display matrix, as a player does."""
    if matrix is None:
        return image
    a, b, _, c, d = matrix[:5].tolist()  # x' = a x + c y, y' = b x + d y
    pixels = image.view("V3")[..., 0]  # one item of three bytes per pixel moves twice as fast
    if abs(b) + abs(c) > abs(a) + abs(d):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    pixels = np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
    return pixels.view(np.uint8).reshape(*pixels.shape, 3)
