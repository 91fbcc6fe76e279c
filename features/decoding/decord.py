"""Decoding with decord, only for files where its count and its color conversion are known to equal PyAV's.

On edit lists decord returns more frames than play, out of order and without an error; the count shows it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionvit.features.decoding.container import Container
from actionvit.features.decoding.frames import Frames
from actionvit.features.decoding.pyav import PyAVVideo

EXACT = {("mpeg4", "yuv420p"), ("h264", "yuv420p")}
"""Codecs and pixel formats whose RGB was measured bit-equal to PyAV's; H.265 and 10-bit video differ."""


class DecordVideo:
    """A video file decoded by decord; by PyAV where decord fails or is not known to be exact."""

    def __init__(self, video: PyAVVideo) -> None:
        self._video = video
        self._reader = _reader(video.container, video.count)
        self._duration = video.container.duration

    @property
    def count(self) -> int:
        """Frames that a player shows."""
        return self._video.count

    @property
    def times(self) -> NDArray[np.float64] | None:
        """Presentation times in seconds after the first frame."""
        return self._video.times

    def frames_at(self, indices: NDArray[np.int64]) -> Frames:
        """Decode the frames at ascending positions. Raises CountChangedError and DecodeError as PyAVVideo does."""
        import decord

        if self._reader is not None:
            try:
                data = self._reader.get_batch(indices.tolist()).asnumpy()
            except (RuntimeError, decord.DECORDError):
                self._reader = None
            else:
                return Frames(data, indices, self.count, "decord", duration=self._duration)
        return self._video.frames_at(indices)


def _reader(container: Container, count: int) -> Any:
    """Return decord's reader of a file, or None where it is not known to be exact."""
    import decord

    if container.flags or container.format is None or not _converts_exactly(container):
        return None
    decord.logging.set_level(decord.logging.QUIET)
    try:
        # An absolute path with the protocol named: decord would take a name such as `http:/host/a.mp4` for an address.
        reader = decord.VideoReader(f"file:{container.path.absolute()}", num_threads=1)
    except (RuntimeError, decord.DECORDError):
        return None
    return reader if len(reader) == count else None


def _converts_exactly(container: Container) -> bool:
    """Return whether decord's RGB is known to equal PyAV's: not for odd sizes, nor where a player rotates."""
    import av

    codec = container.stream.codec_context
    if (codec.name, codec.pix_fmt) not in EXACT or codec.width % 2 or codec.height % 2:
        return False
    decoder = container.new_decoder()
    try:
        frame = next(frame for packet in container.packets for frame in decoder.decode(packet))
    except (av.FFmpegError, StopIteration):
        return False
    return frame.side_data.get("DISPLAYMATRIX") is None
