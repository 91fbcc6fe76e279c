"""The decoder: PyAV, one thread, RGB of the sampled frames only.

Two ways through a file, the same frames from both. `_sparse` decodes only the packets that the wanted frames depend on
and checks that each gives just the frame it should. Where that cannot be planned, or anything is odd, `_in_order`
decodes every packet, counts, and knows which frames damage has touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from actionvit.features.decoding.demux import Demuxed, open_video
from actionvit.features.decoding.frames import DecodeError, Frames
from actionvit.features.decoding.pictures import Picture, picture_reader, reordered, runs_needed
from actionvit.features.decoding.rgb import Allocate, Picked

if TYPE_CHECKING:
    from av import VideoCodecContext, VideoFrame
    from av.packet import Packet

Wanted = Callable[[int], NDArray[np.int64]]
"""From the number of frames to the sorted positions of those asked for."""


class _SurpriseError(Exception):
    """A packet gave another frame than planned."""


class _Plan(NamedTuple):
    """What each packet holds, and the packets in the order they are shown."""

    pictures: list[Picture]
    order: list[int]


def decode_pyav(path: Path, wanted: Wanted, max_pixels: int, allocate: Allocate = np.empty) -> Frames:
    """Decode the frames at `wanted(count)`. Raises DecodeError."""
    count, sparse = 0, True
    for _ in range(3):
        with open_video(path, max_pixels) as video:
            plan = _plan(video) if sparse and not video.flags else None
            sparse = False
            if plan is not None:
                try:
                    return _sparse(video, plan, wanted, allocate)
                except _SurpriseError:
                    continue
            count = count or sum(not packet.is_discard for packet in video.packets) or 1
            picked, seen = _in_order(video, wanted(count), allocate)
            if seen == count:
                return picked.frames(count)
            if not seen:
                break
            count = seen  # sampling was by the wrong number: once more, by the right one
    raise DecodeError("corrupt", "no frame decodes" if not count else "decodes differently each time", backend="pyav")


def _plan(video: Demuxed) -> _Plan | None:
    """Return a plan, or None where it is not sure that every packet gives one frame, and when."""
    codec = video.stream.codec_context
    read = picture_reader(codec.name, codec.extradata)
    if read is None:
        return None
    pictures: list[Picture] = []
    for packet in video.packets:
        picture = read(bytes(packet))
        if picture is None:
            return None
        pictures.append(picture)
    if not pictures[0].entry:
        return None
    if codec.name == "mpeg4":  # AVI has no presentation times, but the pictures themselves tell their order
        return _Plan(pictures, reordered(pictures))
    times = [packet.pts for packet in video.packets if packet.pts is not None]
    if len(set(times)) < len(pictures):
        return None
    return _Plan(pictures, sorted(range(len(pictures)), key=times.__getitem__))


def _sparse(video: Demuxed, plan: _Plan, wanted: Wanted, allocate: Allocate) -> Frames:
    """Decode what the wanted frames need and nothing else. Raises _SurpriseError where a packet gives another frame."""
    packets, codec = video.packets, video.stream.codec_context
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
        for frame in _decode_run(codec, [packets[i] for i in run]):
            due = next(expected, None)
            if due is None or frame.is_corrupt or (codec.name != "mpeg4" and frame.pts != packets[due].pts):
                raise _SurpriseError
            picked.offer(position[due], frame)
        if next(expected, None) is not None:
            raise _SurpriseError
    return picked.frames(len(visible))


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


def _in_order(video: Demuxed, index: NDArray[np.int64], allocate: Allocate) -> tuple[Picked, int]:
    """Decode every packet; return the frames at `index`, and how many frames there are in all.

    Damage spreads along references: from a damaged picture on, no frame is intact before the next key frame.
    """
    import av

    picked, seen = Picked(index, allocate, flags=video.flags), 0
    for packet in [*video.packets, None]:
        try:
            for frame in video.stream.codec_context.decode(packet):
                picked.offer(seen, frame)
                seen += 1
        except MemoryError:
            raise
        except av.FFmpegError:
            picked.damage(packet.pts if packet else None)
    return picked, seen
