"""The decoder: PyAV, one thread, RGB of the sampled frames only.

Two ways through a file, the same frames from both. `_sparse` decodes only the packets that the wanted frames depend on
and checks that each gives just the frame it should. Where that cannot be planned, or anything is odd, `_in_order`
decodes every packet, counts, and knows which frames damage has touched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from actionvit.features.decoding.bitstream import BrokenError, Picture, picture_reader, reordered, runs_needed
from actionvit.features.decoding.container import Demuxed, open_video
from actionvit.features.decoding.convert import Allocate, Picked
from actionvit.features.decoding.damage import Shown, bad_packets, touched
from actionvit.features.decoding.frames import DecodeError, Frames
from actionvit.features.failures import Reason

if TYPE_CHECKING:
    from av import VideoCodecContext, VideoFrame
    from av.packet import Packet

Wanted = Callable[[int], NDArray[np.int64]]
"""From the number of frames to the sorted positions of those asked for."""


MARKING = frozenset({"mpeg4", "h264", "hevc", "mpeg1video", "mpeg2video"})
"""Decoders that mark the frames they found damaged, where others only log an error and go on."""


class _SurpriseError(Exception):
    """A packet gave another frame than planned."""


class _Plan(NamedTuple):
    """What each packet holds, and the packets in the order they are shown."""

    pictures: list[Picture]
    order: list[int]


def decode_pyav(path: Path, wanted: Wanted, max_pixels: int, allocate: Allocate = np.empty) -> Frames:
    """Decode the frames at `wanted(count)`. Raises DecodeError."""
    count = 0
    for attempt in range(3):
        with open_video(path, max_pixels) as video:
            pictures, broken = _read_pictures(video)
            if attempt == 0 and not broken and not video.flags and (plan := _plan(video, pictures)):
                try:
                    return _sparse(video, plan, wanted, allocate)
                except _SurpriseError:
                    continue
            count = count or sum(not packet.is_discard for packet in video.packets) or 1
            picked, shown, failed = _in_order(video, wanted(count), allocate)
            if not shown:
                raise DecodeError(*_why_nothing_decodes(path, max_pixels), backend="pyav")
            if len(shown) == count:
                return _judged(video, pictures, picked, shown, failed | broken | video.damaged)
            count = len(shown)  # sampling was by the wrong number: once more, by the right one
    raise DecodeError("corrupt", "decodes differently each time", backend="pyav", frames=count)


def _read_pictures(video: Demuxed) -> tuple[list[Picture | None], set[int]]:
    """Describe every packet, as far as it is sure; and say which are broken."""
    codec = video.stream.codec_context
    read = picture_reader(codec.name, codec.extradata)
    pictures: list[Picture | None] = []
    broken = set()
    for i, packet in enumerate(video.packets if read else ()):
        assert read is not None
        try:
            pictures.append(read(bytes(packet)))
        except BrokenError:
            pictures.append(None)
            broken.add(i)
    return pictures, broken


def _plan(video: Demuxed, pictures: Sequence[Picture | None]) -> _Plan | None:
    """Return a plan, or None where it is not sure that every packet gives one frame, and when."""
    sure = [picture for picture in pictures if picture is not None]
    if not sure or len(sure) < len(pictures) or not sure[0].entry:
        return None
    codec = video.stream.codec_context
    if codec.name == "mpeg4":  # AVI has no presentation times, but the pictures themselves tell their order
        b_frames = any(picture.disposable for picture in sure)
        return None if b_frames and not codec.has_b_frames else _Plan(sure, reordered(sure))
    times = [packet.pts for packet in video.packets if packet.pts is not None]
    if len(set(times)) < len(sure):
        return None
    return _Plan(sure, sorted(range(len(sure)), key=times.__getitem__))


def _sparse(video: Demuxed, plan: _Plan, wanted: Wanted, allocate: Allocate) -> Frames:
    """Decode what the wanted frames need and nothing else. Raises _SurpriseError where a packet gives another frame."""
    packets = video.packets
    shown = [0] * len(packets)
    for place, i in enumerate(plan.order):
        shown[i] = place
    visible = [i for i in plan.order if not packets[i].is_discard]
    position = {i: place for place, i in enumerate(visible)}
    if not visible:
        raise _SurpriseError
    picked = Picked(wanted(len(visible)), allocate)
    for run in runs_needed(plan.pictures, shown, {visible[place] for place in picked.index.tolist()}):
        expected = iter(sorted((i for i in run if i in position), key=shown.__getitem__))
        for frame in _decode_run(video.stream.codec_context, [packets[i] for i in run]):
            due = next(expected, None)
            if due is None or frame.is_corrupt or frame.pts != packets[due].pts:
                raise _SurpriseError
            picked.offer(position[due], frame)
        if next(expected, None) is not None:
            raise _SurpriseError
    return picked.frames(len(visible), duration=video.duration)


def _decode_run(codec: VideoCodecContext, packets: Iterable[Packet[Any]]) -> Iterator[VideoFrame]:
    """Decode packets as if the video ended after them, and be ready for others."""
    import av

    try:
        for packet in packets:
            yield from codec.decode(packet)
        yield from codec.decode(None)
    except MemoryError:
        raise
    except av.FFmpegError as error:
        raise _SurpriseError from error
    codec.flush_buffers()


def _in_order(video: Demuxed, index: NDArray[np.int64], allocate: Allocate) -> tuple[Picked, list[Shown], set[int]]:
    """Decode every packet; return the frames at `index`, what is known of all, and the packets that gave an error."""
    import av

    codec = video.stream.codec_context
    picked, shown, failed = Picked(index, allocate), list[Shown](), set[int]()
    with _listening() as said:
        for i, packet in enumerate([*video.packets, None]):
            try:
                for frame in codec.decode(packet):
                    picked.offer(len(shown), frame)
                    shown.append(Shown(frame.pts, frame.key_frame, frame.is_corrupt))
            except MemoryError:
                raise
            except av.FFmpegError:
                failed.add(min(i, len(video.packets) - 1))
            if said and codec.name not in MARKING:
                failed.add(min(i, len(video.packets) - 1))
            said.clear()
    return picked, shown, failed


def _judged(
    video: Demuxed, pictures: Sequence[Picture | None], picked: Picked, shown: Sequence[Shown], failed: set[int]
) -> Frames:
    """Return the picked frames, flagged where there is damage. Raises DecodeError where it may have reached them."""
    codec = video.stream.codec_context.name
    times = [packet.pts for packet in video.packets]
    sure: Collection[int] = ()
    if codec in ("h264", "mpeg4"):  # of H.265, leading pictures may be left out by right
        sure = [i for i, picture in enumerate(pictures) if picture and not video.packets[i].is_discard]
    bad = bad_packets(times, shown, failed=failed, sure=sure, exact=not codec.startswith("lib"))
    flags = {*video.flags, "corrupt"} if bad else video.flags
    return picked.frames(len(shown), flags, touched(times, shown, bad), video.duration)


def _why_nothing_decodes(path: Path, max_pixels: int) -> tuple[Reason, str]:
    """Ask FFmpeg once more, and listen to what it says."""
    import av

    with _listening() as said, open_video(path, max_pixels) as video:
        for packet in video.packets[:9]:
            with contextlib.suppress(av.FFmpegError):
                video.stream.codec_context.decode(packet)
    lines = [" ".join(message.split()) for _, _, message in said] or ["the decoder gives none, and does not say why"]
    large = next((line for line in lines if line.startswith("Picture size")), None)
    return ("too_large", large) if large else ("corrupt", f"no frame decodes: {lines[-1]}")


@contextlib.contextmanager
def _listening() -> Iterator[list[tuple[int, str, str]]]:
    """Collect what FFmpeg's log calls errors; nothing is formatted, and no lock taken, for less than those."""
    import av

    level, skip = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as said:
            yield said
    finally:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(skip)
