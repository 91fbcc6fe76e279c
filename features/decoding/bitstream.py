"""Which packets of a video must be decoded for some of its frames: read from a few bytes of each, nothing decoded.

A *picture* is what one packet codes. Three things about it decide what may be left out with every pixel as it was:

- an *entry* refers to nothing before it (I-VOP, IDR, CRA), so decoding may start there;
- a *disposable* picture is referred to by none (B-VOP, `nal_ref_idc` 0), so it is decoded only to be looked at;
- a *leading* picture comes after an entry but is shown before it, and may refer to what came before that entry.

Formats: ISO/IEC 14496-2 (MPEG-4 Visual, also XviD and DivX), 14496-10 (H.264), 23008-2 (H.265), and for the last two
the length-prefixed packets of 14496-15, as mp4 and mkv hold them. Of any other format, every packet is decoded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

VOP = b"\x00\x00\x01\xb6"
DIVX = b"DivX"
"""What the user data of a stream begins with that may hold two VOPs a packet; FFmpeg looks for a second in no other."""
NEVER = re.compile(rb"\0\0[\0-\2]")
NOT_CODED = 10  # bytes; a VOP that only says "as before" and gives no frame is shorter


class Picture(NamedTuple):
    """What a packet's first bytes say of the picture in it."""

    entry: bool
    disposable: bool


class BrokenError(Exception):
    """A packet that no encoder wrote: bytes are missing from it, or not as they were."""


Reader = Callable[[bytes], "Picture | None"]
"""Describes a packet that surely holds one picture and no more; None where that is not sure. Raises BrokenError."""


def picture_reader(codec: str, extradata: bytes | None) -> Reader | None:
    """Return what reads the packets of a stream, or None where every packet must be decoded."""
    extradata = extradata or b""
    if codec == "mpeg4":
        return None if DIVX in extradata else read_vop
    if codec == "h264" and len(extradata) > 6 and extradata[0] == 1:
        return lambda packet: read_h264(packet, (extradata[4] & 3) + 1)
    if codec == "hevc" and len(extradata) > 22 and extradata[0] == 1:
        return lambda packet: read_hevc(packet, (extradata[21] & 3) + 1)
    return None


def read_vop(packet: bytes) -> Picture | None:
    """Describe an MPEG-4 Visual packet; None where pairs may be packed, and for a VOP that may be empty."""
    at = packet.find(VOP)
    if at < 0 or len(packet) - at < NOT_CODED or packet.find(DIVX, 0, at) >= 0:
        return None
    kind = packet[at + 4] >> 6  # I, P, B, S(prite)
    return Picture(entry=kind == 0, disposable=kind == 2)


def read_h264(packet: bytes, width: int) -> Picture | None:
    """Describe an H.264 access unit of NAL units with `width`-byte lengths."""
    found = None
    for start, end in _units(packet, width):
        kind, referred = packet[start] & 31, packet[start] >> 5 & 3
        if kind in (2, 3, 4):  # data partitioning
            return None
        if kind in (1, 5) and start + 1 < end and packet[start + 1] & 0x80:  # first_mb_in_slice is 0: a picture begins
            if found is not None:  # two fields, or two pictures
                return None
            found = Picture(entry=kind == 5, disposable=not referred)
    return found


def read_hevc(packet: bytes, width: int) -> Picture | None:
    """Describe an H.265 access unit; what is disposable would need the layers above, so nothing is called that."""
    found = None
    for start, end in _units(packet, width):
        kind = packet[start] >> 1 & 63
        if kind >= 32 or end - start < 3:
            continue
        if packet[start] & 1 or packet[start + 1] >> 3:  # of a second layer
            return None
        if packet[start + 2] & 0x80:  # first_slice_segment_in_pic_flag
            if found is not None:
                return None
            found = Picture(entry=16 <= kind <= 21, disposable=False)
    return found


def _units(packet: bytes, width: int) -> Iterator[tuple[int, int]]:
    """Yield where each NAL unit begins and ends. Raises BrokenError.

    Within a unit no two zero bytes are followed by one below three (encoders put a three in between), but for zeros
    that some muxers leave at its end.
    """
    at = 0
    while at < len(packet):
        start = at + width
        at = start + int.from_bytes(packet[at:start], "big")
        if at > len(packet) or (start < at and packet[start] & 0x80):  # forbidden_zero_bit
            raise BrokenError
        if (found := NEVER.search(packet, start, at)) and any(packet[found.start() : at]):
            raise BrokenError
        if start < at:
            yield start, at


def reordered(pictures: Sequence[Picture]) -> list[int]:
    """Return MPEG-4 Visual pictures in the order they are shown: an anchor waits for the B-VOPs that follow it."""
    order: list[int] = []
    anchor = -1
    for i, picture in enumerate(pictures):
        if picture.disposable:
            order.append(i)
            continue
        if anchor >= 0:
            order.append(anchor)
        anchor = i
    return [*order, anchor] if anchor >= 0 else order


def runs_needed(pictures: Sequence[Picture], shown: Sequence[int], wanted: Collection[int]) -> list[list[int]]:
    """Return the packets that the wanted ones cannot be had without, cut into runs to be decoded each by itself.

    Parameters
    ----------
    pictures : sequence of Picture
        In decoding order, the first an entry.
    shown : sequence of int
        For each packet, its place in presentation order.
    wanted : collection of int
        Packets whose pictures are asked for.
    """
    runs: list[list[int]] = []
    entries = [i for i, picture in enumerate(pictures) if picture.entry]
    whole = False  # whether the segment after this one leads with wanted pictures, which may refer into this one
    for start, end in reversed(list(zip(entries, [*entries[1:], len(pictures)], strict=True))):
        asked = [i for i in range(start, end) if i in wanted]
        leading = any(shown[i] < shown[start] for i in asked)
        last = end - 1 if whole else max(asked, default=start - 1)
        run = [
            i
            for i in range(start, last + 1)
            if i in wanted or (not pictures[i].disposable and (leading or shown[i] >= shown[start]))
        ]
        complete = all(pictures[i].disposable or shown[i] < shown[start] for i in range(last + 1, end))
        if run and complete and runs and runs[-1][0] == end:
            runs[-1] = run + runs[-1]
        elif run:
            runs.append(run)
        whole = leading
    return runs[::-1]
