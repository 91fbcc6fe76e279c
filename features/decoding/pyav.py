"""Decoding with PyAV: one thread, RGB conversion of the requested frames only.

Two ways through a file give the same frames. `_sparse` decodes only the packets that the requested frames depend on,
and checks that each packet gives exactly the frame that was planned. Where no plan can be made, or a check fails,
`_in_order` decodes every packet from the beginning, counts, and knows which frames damage has reached.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from actionvit.features.decoding.bitstream import (
    BrokenPacketError,
    PacketInfo,
    display_order,
    packet_parser,
    packets_to_decode,
    random_access_points,
)
from actionvit.features.decoding.container import Container
from actionvit.features.decoding.convert import FrameCollector
from actionvit.features.decoding.damage import DecodedFrame, affected_frames, damaged_packets
from actionvit.features.decoding.frames import Allocate, CountChangedError, DecodeError, Flag, Frames
from actionvit.features.failures import Reason

if TYPE_CHECKING:
    from av import VideoCodecContext, VideoFrame
    from av.packet import Packet

MARKING_CODECS = frozenset({"mpeg4", "h264", "hevc", "mpeg1video", "mpeg2video"})
"""Decoders that mark damaged frames; the others only log an error and continue."""

KEEP_BYTES = 256 << 20
"""Decoded frames kept for overlapping segments, at 4 bytes per pixel."""


class _PlanFailedError(Exception):
    """A packet gave another frame than planned."""


class _Plan(NamedTuple):
    """One frame per packet, and when it is shown."""

    packets: list[PacketInfo]
    starts: list[int]
    """Packets with which decoding may start."""
    rank: list[int]
    """For each packet, its place in presentation order, hidden frames counted."""
    visible: list[int]
    """Packets of the frames that a player shows, in presentation order."""
    position: dict[int, int]
    """From packet to position among the visible ones."""


class PyAVVideo:
    """An open video file whose frames PyAV decodes.

    Parameters
    ----------
    container : Container
    allocate : callable
        `allocate((F, H, W, 3), uint8)` makes the arrays that frames are decoded into.
    """

    def __init__(self, container: Container, allocate: Allocate = np.empty) -> None:
        self.container = container
        self._allocate = allocate
        shown = [packet for packet in container.packets if not packet.is_discard]
        self.count = len(shown) or 1
        """Frames that a player shows; corrected where decoding gives another number."""
        self._ticks: Sequence[int | None] = [packet.dts if packet.pts is None else packet.pts for packet in shown]
        self._times: NDArray[np.float64] | None = None
        self._duration = container.duration
        self._info, self._broken = _parse_packets(container)
        self._plan = None if self._broken or container.flags else _make_plan(container, self._info)
        self._codec: VideoCodecContext | None = None
        self._pass: _Pass | None = None
        self._shown: list[DecodedFrame] | None = None
        self._flags: frozenset[Flag] = container.flags
        self._affected: set[int] = set()

    @property
    def times(self) -> NDArray[np.float64] | None:
        """(count,), presentation times in seconds after the first frame, ascending; None where there are none."""
        if self._times is None:
            self._times = self.container.seconds(self._ticks)
        return self._times

    def frames_at(self, indices: NDArray[np.int64]) -> Frames:
        """Decode the frames at ascending positions. Raises CountChangedError and DecodeError."""
        if self._plan is not None:
            try:
                return self._sparse(self._plan, indices)
            except _PlanFailedError:
                self._plan = None
        return self._in_order(indices)

    def _sparse(self, plan: _Plan, indices: NDArray[np.int64]) -> Frames:
        """Decode only the packets that the frames at `indices` need. Raises _PlanFailedError."""
        packets, position = self.container.packets, plan.position
        self._codec = self._codec or self.container.new_decoder()
        collector = FrameCollector(indices, self._allocate)
        requested = [plan.visible[i] for i in indices.tolist()]
        for run in packets_to_decode(plan.packets, plan.rank, plan.starts, requested):
            expected = iter(sorted((i for i in run if i in position), key=plan.rank.__getitem__))
            for frame in _decode_run(self._codec, [packets[i] for i in run]):
                due = next(expected, None)
                if due is None or frame.is_corrupt or frame.pts != packets[due].pts:
                    raise _PlanFailedError
                collector.add(position[due], frame)
            if next(expected, None) is not None:
                raise _PlanFailedError
        return collector.finish(self.count, duration=self._duration)

    def _in_order(self, indices: NDArray[np.int64]) -> Frames:
        """Decode every packet from the beginning, the first time to the end of the file.

        Later calls continue where the last one stopped, with the frames before that which are kept, and stop at the
        last frame they need: many segments of one video, in order and even overlapping, cost two passes.
        """
        collector = FrameCollector(indices, self._allocate)
        if self._pass is None or indices[0] < self._pass.oldest:
            self._pass = _Pass(self.container, keep_bytes=0 if self._shown is None else KEEP_BYTES)
        begin, last = self._pass.position, None if self._shown is None else int(indices[-1])
        for position, frame in self._pass.frames(int(indices[0]), last):
            collector.add(position, frame)
        if self._shown is None:
            self._assess(self._pass)
        elif self._pass.shown[begin:] != self._shown[begin : int(indices[-1]) + 1]:
            raise DecodeError("corrupt", "decodes differently each time", backend="pyav", frames_decoded=self.count)
        return collector.finish(self.count, self._flags, self._affected, self._duration)

    def _assess(self, done: _Pass) -> None:
        """Find the damaged frames after the first pass. Raises CountChangedError, and DecodeError without a frame."""
        container, shown = self.container, done.shown
        if not shown:
            raise DecodeError(*_why_nothing_decodes(container), backend="pyav")
        codec = container.stream.codec_context.name
        times = [packet.pts for packet in container.packets]
        one_frame_each: Collection[int] = ()
        if codec in ("h264", "mpeg4"):  # decoders of H.265 may drop leading pictures
            one_frame_each = [i for i, info in enumerate(self._info) if info and not container.packets[i].is_discard]
        failed = done.failed | self._broken | container.damaged
        exact = not codec.startswith("lib")
        damaged = damaged_packets(times, shown, failed=failed, one_frame_each=one_frame_each, exact=exact)
        self._shown = shown
        self._flags = container.flags | {"corrupt"} if damaged else container.flags
        self._affected = affected_frames(times, shown, damaged)
        if len(shown) != self.count:
            self.count, self._ticks, self._times = len(shown), [frame.time for frame in shown], None
            raise CountChangedError


class _Pass:
    """One pass over all packets in decoding order that can be interrupted; keeps some of the last frames."""

    def __init__(self, container: Container, keep_bytes: int) -> None:
        self.shown: list[DecodedFrame] = []
        self.failed: set[int] = set()
        """Packets whose decoding gave an error."""
        self._codec = container.new_decoder()
        self._packets = container.packets
        self._frames = self._decode()
        self._recent: deque[VideoFrame] = deque()
        self._keep_bytes = keep_bytes

    @property
    def oldest(self) -> int:
        """Position of the oldest frame that is still there."""
        return self.position - len(self._recent)

    @property
    def position(self) -> int:
        """Position of the next frame."""
        return len(self.shown)

    def frames(self, first: int, last: int | None) -> Iterator[tuple[int, VideoFrame]]:
        """Yield the frames from the position `first`, and perhaps some before, to `last` or to the end of the file."""
        while self._recent and self.oldest < first:
            self._recent.popleft()
        yield from zip(range(self.oldest, self.position), self._recent, strict=True)
        while (last is None or self.position <= last) and (frame := next(self._frames, None)) is not None:
            if self.position > first and self._keep_bytes:
                self._recent.append(frame)
                if len(self._recent) * frame.width * frame.height * 4 > self._keep_bytes:
                    self._recent.popleft()
            yield self.position - 1, frame

    def _decode(self) -> Iterator[VideoFrame]:
        import av

        for i, packet in enumerate([*self._packets, None]):
            i = min(i, len(self._packets) - 1)
            frames: list[VideoFrame] = []
            with _capture_log() as messages:
                try:
                    frames = self._codec.decode(packet)
                except MemoryError:
                    raise
                except av.FFmpegError:
                    self.failed.add(i)
            if messages and self._codec.name not in MARKING_CODECS:
                self.failed.add(i)
            for frame in frames:
                self.shown.append(DecodedFrame(frame.pts, frame.key_frame, frame.is_corrupt))
                yield frame


def _parse_packets(container: Container) -> tuple[list[PacketInfo | None], set[int]]:
    """Return the properties of each packet's picture (None where uncertain), and the broken packets."""
    codec = container.stream.codec_context
    parse = packet_parser(codec.name, codec.extradata)
    info: list[PacketInfo | None] = []
    broken = set()
    for i, packet in enumerate(container.packets if parse else ()):
        assert parse is not None
        try:
            info.append(parse(bytes(packet)))
        except BrokenPacketError:
            info.append(None)
            broken.add(i)
    return info, broken


def _make_plan(container: Container, info: Sequence[PacketInfo | None]) -> _Plan | None:
    """Return a plan, or None where it is uncertain that every packet gives one frame, or when that is shown."""
    certain = [packet for packet in info if packet is not None]
    if not certain or len(certain) < len(info) or not certain[0].random_access:
        return None
    codec = container.stream.codec_context
    if codec.name == "mpeg4":  # AVI has no presentation times, but the order of the pictures follows from their types
        if any(packet.discardable for packet in certain) and not codec.has_b_frames:
            return None
        order = display_order(certain)
    else:
        times = [packet.pts for packet in container.packets if packet.pts is not None]
        if len(set(times)) < len(certain):
            return None
        order = sorted(range(len(certain)), key=times.__getitem__)
    rank = [0] * len(order)
    for place, i in enumerate(order):
        rank[i] = place
    visible = [i for i in order if not container.packets[i].is_discard]
    if not visible:
        return None
    return _Plan(
        certain, random_access_points(certain), rank, visible, {i: position for position, i in enumerate(visible)}
    )


def _decode_run(codec: VideoCodecContext, packets: Iterable[Packet[Any]]) -> Iterator[VideoFrame]:
    """Decode packets as if the video ended after them, and leave the decoder ready for others."""
    import av

    try:
        for packet in packets:
            yield from codec.decode(packet)
        yield from codec.decode(None)
    except MemoryError:
        raise
    except av.FFmpegError as error:
        raise _PlanFailedError from error
    codec.flush_buffers()


def _why_nothing_decodes(container: Container) -> tuple[Reason, str]:
    """Decode the first packets once more and return what FFmpeg logs."""
    import av

    with _capture_log() as messages:
        codec = container.new_decoder()
        for packet in container.packets[:9]:
            with contextlib.suppress(av.FFmpegError):
                codec.decode(packet)
    lines = [" ".join(text.split()) for _, _, text in messages] or ["the decoder returned no frame and no error"]
    large = next((line for line in lines if line.startswith("Picture size")), None)
    return ("too_large", large) if large else ("corrupt", f"no frame decodes: {lines[-1]}")


@contextlib.contextmanager
def _capture_log() -> Iterator[list[tuple[int, str, str]]]:
    """Collect what FFmpeg logs as errors; other messages are not even formatted, and take no lock."""
    import av

    level, skip = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as messages:
            yield messages
    finally:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(skip)
