"""Opening a video file: is it one, is it whole, which packets does it hold."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionvit.features.decoding.frames import DecodeError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

# A picture, a playlist or a text file is not a video, though FFmpeg would read it (and what a playlist names) as one.
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
"""Where some bytes stand in a file that is surely meant as a container, and how FFmpeg calls it."""
INDEXED = frozenset({"avi", "mov"})
"""Containers whose index, where there is one, lists every packet."""


@dataclass(frozen=True, slots=True)
class Demuxed:
    """An open video file with all packets of its video stream read."""

    stream: VideoStream
    packets: list[Packet[Any]]
    """Non-empty, in decoding order."""
    flags: frozenset[str]
    """`truncated`, `corrupt`: what the container gives away about itself."""
    damaged: frozenset[int]
    """Packets that the container says are not whole."""

    @property
    def duration(self) -> float | None:
        """Seconds from the first frame that is shown to the end of the last, by the packets' times."""
        shown = [packet for packet in self.packets if not packet.is_discard]
        times = [packet.dts if packet.pts is None else packet.pts for packet in shown]
        known = sorted(
            (time, packet.duration or 0) for time, packet in zip(times, shown, strict=True) if time is not None
        )
        if self.stream.time_base is None or not known:
            return None
        span, last = known[-1][0] - known[0][0], known[-1][1]
        # Where the last frame does not say how long it is shown: as long as the others on average.
        whole = span + (last or span / max(1, len(known) - 1))
        return float(whole * self.stream.time_base) or None


@contextmanager
def open_video(path: Path, max_pixels: int) -> Iterator[Demuxed]:
    """Open a file, choose its video stream as players do, read its packets. Raises DecodeError."""
    import av

    head = _head(path)
    kind = next((kind for (at, magic), kind in MAGIC.items() if head[at : at + len(magic)] == magic), None)
    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file", "max_pixels": str(max_pixels)}
    try:
        # `file:`, or a name such as `a:b.avi` would be taken for a protocol.
        container = av.open(f"file:{path}", format=kind, options=options, metadata_errors="replace")
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError) as error:
        raise _unreadable(path, head, kind, error) from error
    with container:
        stream = _stream(container, max_pixels)
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"max_pixels": str(max_pixels)}
        promised = len(stream.index_entries) if kind in INDEXED else 0
        last = stream.index_entries[promised - 1].pos if promised else 0
        flags = {"truncated"} if is_cut_short(path, head) else set()
        packets: list[Packet[Any]] = []
        try:
            packets.extend(container.demux(stream))
        except MemoryError:
            raise
        except av.FFmpegError:
            flags.add("corrupt")
        except IndexError:  # PyAV, at the end of a file in which a stream has turned up that its head did not name
            pass
        packets = [packet for packet in packets if packet.size or packet.dts is not None]  # not the one that says: end
        if len(packets) < promised:
            flags.add("truncated")
        elif promised and kind == "avi" and packets[promised - 1].pos != last + 8:  # behind the chunk's name and size
            flags.add("corrupt")  # bytes were lost or added somewhere before
        packets = [packet for packet in packets if packet.size]
        if not packets:
            raise DecodeError("truncated" if flags else "empty", "no packet of the video stream", backend="pyav")
        damaged = frozenset(i for i, packet in enumerate(packets) if packet.is_corrupt)
        if damaged and not flags:
            flags.add("corrupt")
        yield Demuxed(stream, packets, frozenset(flags), damaged)


def _head(path: Path) -> bytes:
    """Return a file's first bytes. Raises DecodeError where it is no file, or an empty one."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a named pipe would wait for its writer
            raise DecodeError("not_video", "not a regular file")
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise DecodeError("missing", error.strerror or str(error)) from error
    if not head:
        raise DecodeError("empty", "the file has no bytes")
    return head


def _unreadable(path: Path, head: bytes, kind: str | None, error: Exception) -> DecodeError:
    """Say what is wrong with a file that FFmpeg cannot open."""
    if kind is None:
        return DecodeError("not_video", "no container that FFmpeg knows as video", backend="pyav")
    if is_cut_short(path, head):
        return DecodeError("truncated", "the file ends before its index", backend="pyav")
    return DecodeError("corrupt", _line(error), backend="pyav")


def _stream(container: InputContainer, max_pixels: int) -> VideoStream:
    stream: Any = container.streams.best("video")
    if stream is None or stream.disposition & stream.disposition.attached_pic:
        raise DecodeError("not_video", "holds no video stream", backend="pyav")
    if stream.codec_context is None:
        raise DecodeError("unsupported", "no decoder for its codec", backend="pyav")
    if stream.codec_context.width * stream.codec_context.height > max_pixels:
        size = f"{stream.codec_context.width} × {stream.codec_context.height}"
        raise DecodeError("too_large", f"{size} pixels a frame, at most {max_pixels} allowed", backend="pyav")
    found: VideoStream = stream
    return found


def is_cut_short(path: Path, head: bytes) -> bool:
    """Whether an AVI, mp4 or mkv file with these first bytes says of itself that it is longer than it is."""
    size = path.stat().st_size
    if head[:4] == b"RIFF":
        claimed = int.from_bytes(head[4:8], "little")  # all ones: written to a pipe, length unknown
        return claimed != 0xFFFFFFFF and 8 + claimed > size
    if head[:4] == b"\x1aE\xdf\xa3":
        return _segment_end(head) > size
    if head[4:8] not in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
        return False
    at, kinds = 0, set()
    with path.open("rb") as file:
        while at + 8 <= size:  # the boxes of the top level, one after the other
            file.seek(at)
            box = file.read(16)
            kinds.add(box[4:8])
            length = int.from_bytes(box[:4], "big")
            if length == 0:  # to the end of the file
                break
            at += max(int.from_bytes(box[8:16], "big") if length == 1 else length, 8)
    return at > size or b"moov" not in kinds


def _segment_end(head: bytes) -> int:
    """Return where the Segment of a Matroska file ends, 0 where it does not say."""
    at = head.find(b"\x18\x53\x80\x67") + 4
    if at < 4 or at >= len(head) or head[at] == 0:
        return 0
    width = 9 - head[at].bit_length()
    value = int.from_bytes(head[at : at + width], "big") & ((1 << 7 * width) - 1)
    return 0 if value == (1 << 7 * width) - 1 else at + width + value


def _line(error: Exception) -> str:
    """Return an error's message as one line without the file's name, which the ledger has."""
    return " ".join(str(getattr(error, "strerror", None) or error).split())
