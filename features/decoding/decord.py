"""The decoder decord, trusted only where it counts the frames that PyAV counts, and with what it converts alike.

On edit lists decord gives more frames than play, out of order and without an error; the count gives it away.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from actionvit.features.decoding.container import Demuxed, open_video
from actionvit.features.decoding.frames import Frames

EQUAL = {("mpeg4", "yuv420p"), ("h264", "yuv420p")}
"""Codecs and pixel formats where its RGB was found bit-equal to PyAV's; H.265 and 10-bit video differ."""

if TYPE_CHECKING:
    from actionvit.features.decoding.pyav import Wanted


def decode_decord(path: Path, wanted: Wanted, max_pixels: int) -> Frames | None:
    """Decode the frames at `wanted(count)`; None where decord cannot be trusted with the file. Raises DecodeError."""
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    with open_video(path, max_pixels) as video:
        count = sum(not packet.is_discard for packet in video.packets)
        duration = video.duration
        if video.flags or not _converts_alike(video):
            return None
    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        if len(reader) != count:
            return None
        index = wanted(count)
        data = reader.get_batch(index.tolist()).asnumpy()
    except (RuntimeError, decord.DECORDError):
        return None
    return Frames(data=data, index=index, count=count, backend="decord", duration=duration)


def _converts_alike(video: Demuxed) -> bool:
    """Whether decord gives the RGB that PyAV gives: not where sizes are odd, nor where a player would mirror."""
    import av

    codec = video.stream.codec_context
    if (codec.name, codec.pix_fmt) not in EQUAL or codec.width % 2 or codec.height % 2:
        return False
    try:
        frame = next(frame for packet in video.packets for frame in codec.decode(packet))
    except (av.FFmpegError, StopIteration):
        return False
    return frame.side_data.get("DISPLAYMATRIX") is None
