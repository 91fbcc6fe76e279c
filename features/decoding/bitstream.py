"""Packets that must be decoded for some frames of a video, from a few bytes of each packet, without decoding.

A *picture* is the content of one packet. Three properties decide which pictures can be skipped without changing a
pixel of the others:

- *random access*: refers to nothing before it (I-VOP, IDR, CRA), so decoding may start there;
- *discardable*: no other picture refers to it (B-VOP, `nal_ref_idc` 0), so it is decoded only to be shown;
- *leading*: follows a random access picture but is shown before it, and may refer to pictures before that one.

Formats: ISO/IEC 14496-2 (MPEG-4 Visual, also XviD and DivX), 14496-10 (H.264), 23008-2 (H.265), and for the last two
the length-prefixed packets of 14496-15, as in mp4 and mkv. Of any other format, every packet is decoded.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

VOP = b"\x00\x00\x01\xb6"
DIVX = b"DivX"
"""First bytes of the user data of streams with two VOPs in some packets; FFmpeg looks for a second in no others."""
START_CODE_PREFIX = re.compile(rb"\0\0[\0-\2]")
NOT_CODED_BYTES = 10  # a VOP that is not coded ("as before"), which gives no frame, is shorter


class PacketInfo(NamedTuple):
    """Properties of the one picture in a packet."""

    random_access: bool
    discardable: bool


class BrokenPacketError(Exception):
    """A packet with missing or changed bytes, as no encoder writes it."""


Parser = Callable[[bytes], "PacketInfo | None"]
"""From a packet to its properties; None where it may not hold exactly one picture. Raises BrokenPacketError."""


def packet_parser(codec: str, extradata: bytes | None) -> Parser | None:
    """Return the parser for the packets of a stream, or None where every packet must be decoded."""
    extradata = extradata or b""
    if codec == "mpeg4":
        return None if DIVX in extradata else parse_vop
    if codec == "h264" and len(extradata) > 6 and extradata[0] == 1:
        return lambda packet: parse_h264(packet, (extradata[4] & 3) + 1)
    if codec == "hevc" and len(extradata) > 22 and extradata[0] == 1:
        return lambda packet: parse_hevc(packet, (extradata[21] & 3) + 1)
    return None


def parse_vop(packet: bytes) -> PacketInfo | None:
    """Parse an MPEG-4 Visual packet; None where it may hold two VOPs, or one that is not coded."""
    start = packet.find(VOP)
    if start < 0 or len(packet) - start < NOT_CODED_BYTES or packet.find(DIVX, 0, start) >= 0:
        return None
    kind = packet[start + 4] >> 6  # I, P, B, S(prite)
    return PacketInfo(random_access=kind == 0, discardable=kind == 2)


def parse_h264(packet: bytes, width: int) -> PacketInfo | None:
    """Parse an H.264 access unit of NAL units with `width`-byte lengths."""
    info = None
    for start, end in _units(packet, width):
        kind, referred = packet[start] & 31, packet[start] >> 5 & 3
        if kind in (2, 3, 4):  # data partitioning
            return None
        if kind in (1, 5) and start + 1 < end and packet[start + 1] & 0x80:  # first_mb_in_slice is 0: a picture begins
            if info is not None:  # two fields, or two pictures
                return None
            info = PacketInfo(random_access=kind == 5, discardable=not referred)
    return info


def parse_hevc(packet: bytes, width: int) -> PacketInfo | None:
    """Parse an H.265 access unit; telling discardable pictures would need the temporal layers, so none is marked."""
    info = None
    for start, end in _units(packet, width):
        kind = packet[start] >> 1 & 63
        if kind >= 32 or end - start < 3:
            continue
        if packet[start] & 1 or packet[start + 1] >> 3:  # of a second layer
            return None
        if packet[start + 2] & 0x80:  # first_slice_segment_in_pic_flag
            if info is not None:
                return None
            info = PacketInfo(random_access=16 <= kind <= 21, discardable=False)
    return info


def _units(packet: bytes, width: int) -> Iterator[tuple[int, int]]:
    """Yield the start and end offset of each NAL unit. Raises BrokenPacketError.

    Encoders prevent two zero bytes followed by a byte below three within a unit; only zeros at its end, which some
    muxers write, are allowed.
    """
    position = 0
    while position < len(packet):
        start = position + width
        position = start + int.from_bytes(packet[position:start], "big")
        if position > len(packet) or (start < position and packet[start] & 0x80):  # forbidden_zero_bit
            raise BrokenPacketError
        if (match := START_CODE_PREFIX.search(packet, start, position)) and any(packet[match.start() : position]):
            raise BrokenPacketError
        if start < position:
            yield start, position


def display_order(packets: Sequence[PacketInfo]) -> list[int]:
    """Return MPEG-4 Visual packets in presentation order: an I- or P-VOP is shown after the B-VOPs that follow it."""
    order: list[int] = []
    waiting = -1
    for i, packet in enumerate(packets):
        if packet.discardable:
            order.append(i)
            continue
        if waiting >= 0:
            order.append(waiting)
        waiting = i
    return [*order, waiting] if waiting >= 0 else order


def random_access_points(packets: Sequence[PacketInfo]) -> list[int]:
    """Return the packets with which decoding may start, ascending."""
    return [i for i, packet in enumerate(packets) if packet.random_access]


def packets_to_decode(
    packets: Sequence[PacketInfo], rank: Sequence[int], starts: Sequence[int], requested: Collection[int]
) -> list[list[int]]:
    """Return the requested packets and those they depend on, in runs to be decoded independently.

    Parameters
    ----------
    packets : sequence of PacketInfo
        In decoding order, the first one a random access picture.
    rank : sequence of int
        For each packet, its place in presentation order.
    starts : sequence of int
        The `random_access_points` of `packets`.
    requested : collection of int
        Packets whose pictures are requested.
    """
    groups: defaultdict[int, list[int]] = defaultdict(list)  # requested packets by their group of pictures
    for i in sorted(requested):
        groups[bisect_right(starts, i) - 1].append(i)
    for group in sorted(groups):  # leading pictures may refer to the group before
        if group and any(rank[i] < rank[starts[group]] for i in groups[group]):
            groups.setdefault(group - 1, [])
    runs: list[list[int]] = []
    all_needed = False  # whether requested leading pictures of the next group may refer to this one
    for group in sorted(groups, reverse=True):
        start, end = starts[group], starts[group + 1] if group + 1 < len(starts) else len(packets)
        leading = any(rank[i] < rank[start] for i in groups[group])
        last = end - 1 if all_needed else max(groups[group], default=start - 1)
        needed = set(groups[group])
        run = [
            i
            for i in range(start, last + 1)
            if i in needed or (not packets[i].discardable and (leading or rank[i] >= rank[start]))
        ]
        complete = all(packets[i].discardable or rank[i] < rank[start] for i in range(last + 1, end))
        if run and complete and runs and runs[-1][0] == end:
            runs[-1] = run + runs[-1]
        elif run:
            runs.append(run)
        all_needed = leading
    return runs[::-1]
