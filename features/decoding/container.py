"""Opening a video file: whether it is one, whether it is complete, and the packets of its video stream."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from actionvit.features.decoding.frames import DecodeError, Flag

if TYPE_CHECKING:
    from av import VideoCodecContext
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

# FFmpeg would read an image, a playlist or a text file (and the files that a playlist names) as a video, too.
CONTAINERS = (
    "avi,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,mpeg,mpegvideo,flv,asf,ogg,m4v,h264,hevc,ivf,obu,gif,rm,dv,"
    "mxf,nut,mjpeg,y4m,yuv4mpegpipe,wtv,nsv,vob"
)
MAGIC = {
    (8, b"AVI"): "avi",
    (4, b"ftyp"): "mov",
    (4, b"moov"): "mov",
    (4, b"mdat"): "mov",
    (0, b"\x1aE\xdf\xa3"): "matroska",
    (0, b"FLV\x01"): "flv",
    (0, b"OggS"): "ogg",
}
"""Offset and bytes that mark a file as a certain container, and FFmpeg's name of it."""
INDEXED = frozenset({"avi", "mov"})
"""Containers whose index, where there is one, lists every packet."""
BOXES = frozenset(
    b"ftyp moov mdat free skip wide moof mfra sidx ssix styp uuid meta udta pnot PICT pdin prft emsg junk".split()
)
"""Types of an mp4's top-level boxes; other bytes behind the last box are trailers, such as ID3 tags."""


@dataclass(slots=True, kw_only=True)
class Container:
    """An open video file with all packets of its video stream read."""

    path: Path
    max_pixels: int
    format: str | None
    """FFmpeg's name of the container where its first bytes are unmistakable, else None."""
    stream: VideoStream
    packets: list[Packet[Any]]
    """Non-empty, in decoding order."""
    flags: frozenset[Flag]
    """Damage that the container shows."""
    damaged: frozenset[int]
    """Packets that the container marks as incomplete."""
    _stack: ExitStack
    _decoder_used: bool = False

    def new_decoder(self) -> VideoCodecContext:
        """Return a decoder that has decoded nothing; one made earlier may still be used."""
        if not self._decoder_used:
            self._decoder_used = True
            return self.stream.codec_context
        again = self._stack.enter_context(_open(self.path, self.format, self.max_pixels))
        return _video_stream(again, self.max_pixels).codec_context

    @property
    def duration(self) -> float | None:
        """Seconds from the first frame that a player shows to the end of the last, by the packets' times."""
        shown = [packet for packet in self.packets if not packet.is_discard]
        times = ((packet.dts if packet.pts is None else packet.pts, packet.duration or 0) for packet in shown)
        timed = sorted((time, duration) for time, duration in times if time is not None)
        if self.stream.time_base is None or not timed:
            return None
        span, last = timed[-1][0] - timed[0][0], timed[-1][1]
        # A last frame without a duration is shown as long as the others on average.
        ticks = span + (last or span / max(1, len(timed) - 1))
        return float(ticks * self.stream.time_base) or None

    def seconds(self, ticks: Sequence[int | None]) -> NDArray[np.float64] | None:
        """Return timestamps of the stream as ascending seconds after the first; None where one is missing."""
        base = self.stream.time_base
        if base is None or not ticks or None in ticks:
            return None
        offsets = np.sort(np.array(ticks, np.int64))
        # One division of whole numbers: 16 frames at 25 per second give exactly the float 0.64.
        seconds: NDArray[np.float64] = (offsets - offsets[0]) * base.numerator / base.denominator
        return seconds


@contextmanager
def open_container(path: Path, max_pixels: int) -> Iterator[Container]:
    """Open a file, choose its video stream as players do, read its packets. Raises DecodeError."""
    import av

    head = _head(path)
    format = next(
        (name for (offset, magic), name in MAGIC.items() if head[offset : offset + len(magic)] == magic), None
    )
    with ExitStack() as stack:
        try:
            container = stack.enter_context(_open(path, format, max_pixels))
        except MemoryError:
            raise
        except (av.FFmpegError, ValueError) as error:
            raise _open_error(path, head, format, error) from error
        stream = _video_stream(container, max_pixels)
        promised = len(stream.index_entries) if format in INDEXED else 0
        last = stream.index_entries[promised - 1].pos if promised else 0
        flags: set[Flag] = {"truncated"} if is_cut_short(path, head) else set()
        packets: list[Packet[Any]] = []
        try:
            packets.extend(container.demux(stream))
        except MemoryError:
            raise
        except av.FFmpegError:
            flags.add("corrupt")
        except IndexError:  # PyAV at the end of a file with a stream that its header did not name
            pass
        packets = [packet for packet in packets if packet.size or packet.dts is not None]  # without the end marker
        if len(packets) < promised:
            flags.add("truncated")
        elif promised and format == "avi" and packets[promised - 1].pos != last + 8:  # after the chunk's name and size
            flags.add("corrupt")  # bytes were lost or added before it
        packets = [packet for packet in packets if packet.size]
        if not packets:
            raise DecodeError("truncated" if flags else "empty", "no packet of the video stream", backend="pyav")
        damaged = frozenset(i for i, packet in enumerate(packets) if packet.is_corrupt)
        if damaged and not flags:
            flags.add("corrupt")
        yield Container(
            path=path,
            max_pixels=max_pixels,
            format=format,
            stream=stream,
            packets=packets,
            flags=frozenset(flags),
            damaged=damaged,
            _stack=stack,
        )


def _open(path: Path, format: str | None, max_pixels: int) -> InputContainer:
    import av

    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file", "max_pixels": str(max_pixels)}
    # `file:`, or FFmpeg would take the beginning of a name such as `a:b.avi` for a protocol.
    return av.open(f"file:{path}", format=format, options=options, metadata_errors="replace")


def _head(path: Path) -> bytes:
    """Return a file's first bytes. Raises DecodeError if it is missing, empty or not a regular file."""
    require_regular(path)
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise DecodeError("missing", error.strerror or str(error)) from error
    if not head:
        raise DecodeError("empty", "the file has no bytes")
    return head


def require_regular(path: Path) -> None:
    """Raise DecodeError if a path is neither a regular file nor a folder: reading a pipe or device may never end."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise DecodeError("missing", error.strerror or str(error)) from error
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise DecodeError("not_video", "not a regular file")


def _open_error(path: Path, head: bytes, format: str | None, error: Exception) -> DecodeError:
    """Return why FFmpeg cannot open a file."""
    if format is None:
        return DecodeError("not_video", "no container that FFmpeg knows as video", backend="pyav")
    if is_cut_short(path, head):
        return DecodeError("truncated", "the file ends before its index", backend="pyav")
    # Without the file's name, which the record of the failure has.
    return DecodeError("corrupt", " ".join(str(getattr(error, "strerror", None) or error).split()), backend="pyav")


def _video_stream(container: InputContainer, max_pixels: int) -> VideoStream:
    stream: Any = container.streams.best("video")
    if stream is None or stream.disposition & stream.disposition.attached_pic:
        raise DecodeError("not_video", "holds no video stream", backend="pyav")
    if stream.codec_context is None:
        raise DecodeError("unsupported", "no decoder for its codec", backend="pyav")
    if stream.codec_context.width * stream.codec_context.height > max_pixels:
        size = f"{stream.codec_context.width} × {stream.codec_context.height}"
        raise DecodeError("too_large", f"{size} pixels per frame, at most {max_pixels} allowed", backend="pyav")
    stream.codec_context.thread_count = 1
    stream.codec_context.options = {"max_pixels": str(max_pixels)}
    video: VideoStream = stream
    return video


def is_cut_short(path: Path, head: bytes) -> bool:
    """Return whether an AVI, mp4 or mkv file with these first bytes declares more bytes than it has."""
    size = path.stat().st_size
    if head[:4] == b"RIFF":
        declared = int.from_bytes(head[4:8], "little")  # all ones: written to a pipe, length unknown
        return declared != 0xFFFFFFFF and 8 + declared > size
    if head[:4] == b"\x1aE\xdf\xa3":
        return _segment_end(head) > size
    if head[4:8] not in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
        return False
    position, types = 0, set()
    with path.open("rb") as file:
        while position + 8 <= size:  # the boxes at top level, one after the other
            file.seek(position)
            box = file.read(16)
            if box[4:8] not in BOXES:
                break
            types.add(box[4:8])
            length = int.from_bytes(box[:4], "big")
            if length == 0:  # to the end of the file
                break
            position += max(int.from_bytes(box[8:16], "big") if length == 1 else length, 8)
    return position > size or b"moov" not in types


def _segment_end(head: bytes) -> int:
    """Return the offset at which the Segment of a Matroska file ends, 0 if the file does not declare it."""
    start = head.find(b"\x18\x53\x80\x67") + 4
    if start < 4 or start >= len(head) or head[start] == 0:
        return 0
    width = 9 - head[start].bit_length()
    value = int.from_bytes(head[start : start + width], "big") & ((1 << 7 * width) - 1)
    return 0 if value == (1 << 7 * width) - 1 else start + width + value
