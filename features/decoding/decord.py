"""The decoder decord, trusted only where it counts the frames that PyAV counts, and with codecs it converts alike.

On edit lists decord gives more frames than play, out of order and without an error; the count gives it away.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from actionvit.features.decoding.demux import open_video
from actionvit.features.decoding.frames import Frames

EQUAL = {("mpeg4", "yuv420p"), ("h264", "yuv420p")}
"""Codecs and pixel formats where its RGB was found bit-equal to PyAV's; H.265 and 10-bit video differ."""

if TYPE_CHECKING:
    from actionvit.features.decoding.pyav import Wanted


def decode_decord(path: Path, wanted: Wanted, max_pixels: int) -> Frames | None:
    """Decode the frames at `wanted(count)`; None where decord cannot be trusted with the file. Raises DecodeError."""
    import decord

    with open_video(path, max_pixels) as video:
        flags, count = video.flags, sum(not packet.is_discard for packet in video.packets)
        codec = video.stream.codec_context
        equal = (codec.name, codec.pix_fmt) in EQUAL
    if flags or not equal:
        return None
    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        if len(reader) != count:
            return None
        index = wanted(count)
        data = reader.get_batch(index.tolist()).asnumpy()
    except (RuntimeError, decord.DECORDError):
        return None
    return Frames(data=data, index=index, count=count, backend="decord")
