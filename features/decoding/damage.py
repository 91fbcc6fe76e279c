"""Frames that damage in some packets may have reached: it spreads along references between pictures."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

MAX_DELAY = 8
"""Packets after which, at the latest, a decoder with look-ahead reports an error in one."""


class DecodedFrame(NamedTuple):
    """Properties of a frame that the decoder returned."""

    time: int | None
    """Presentation time; equal to that of the packet that coded it."""
    random_access: bool
    """Whether decoding may start with it."""
    corrupt: bool
    """Whether the decoder marked it as damaged."""


def damaged_packets(
    times: Sequence[int | None],
    shown: Sequence[DecodedFrame],
    *,
    failed: Collection[int],
    one_frame_each: Collection[int],
    exact: bool,
) -> set[int]:
    """Return the damaged packets, by their place in decoding order.

    Parameters
    ----------
    times : sequence of int or None
        Presentation time of each packet; in decoding order.
    shown : sequence of DecodedFrame
        The decoded frames in presentation order.
    failed : collection of int
        Packets at which the container or the decoder reported an error.
    one_frame_each : collection of int
        Packets that certainly code one picture each: one without a frame is damaged.
    exact : bool
        Whether the decoder reports an error with the packet that has it.
    """
    decoded = {frame.time for frame in shown}
    corrupt = {frame.time for frame in shown if frame.corrupt}
    damaged = {i for i, time in enumerate(times) if time in corrupt}
    damaged |= {i for i in one_frame_each if times[i] not in decoded}
    if any(frame.corrupt for frame in shown) and not damaged:
        damaged = {0}
    starts = {frame.time for frame in shown if frame.random_access}
    for i in failed:
        first = i
        while not exact and first > 0 and (first > i - MAX_DELAY or times[first] not in starts):
            first -= 1
        damaged.update(range(first, i + 1))
    return damaged


def affected_frames(times: Sequence[int | None], shown: Sequence[DecodedFrame], damaged: Collection[int]) -> set[int]:
    """Return the positions of the frames that damage in some packets may have reached.

    These are the frames of the damaged packets and of all that follow in decoding order, up to the next random access
    picture, and the leading pictures of that one. Where times do not identify frames, all may be affected.
    """
    if not damaged:
        return set()
    position = {frame.time: i for i, frame in enumerate(shown)}
    if None in position or len(position) < len(shown) or not position.keys() <= set(times):
        return set(range(len(shown)))
    affected: set[int] = set()
    spreading = False
    leading_before: int | None = None
    for i, time in enumerate(times):
        place = position.get(time)
        if i in damaged:
            spreading = True
        elif spreading and place is not None and shown[place].random_access:
            spreading, leading_before = False, time
        if place is not None and (
            spreading or (leading_before is not None and time is not None and time < leading_before)
        ):
            affected.add(place)
    return affected
