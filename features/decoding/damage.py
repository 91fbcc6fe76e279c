"""Where a video is damaged, which of its frames are still as they were: damage spreads along references."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

LAG = 8
"""Packets after which, at the latest, a decoder that works ahead reports what was wrong with one."""


class Shown(NamedTuple):
    """A frame that the decoder gave."""

    time: int | None
    """When it is shown; equal to the time of the packet that coded it."""
    entry: bool
    """Whether decoding could begin with it."""
    corrupt: bool
    """Whether the decoder said that it is damaged."""


def bad_packets(
    times: Sequence[int | None], shown: Sequence[Shown], *, failed: Collection[int], sure: Collection[int], exact: bool
) -> set[int]:
    """Return the packets that are damaged, by their place in decoding order.

    Parameters
    ----------
    times : sequence of int or None
        When each packet's picture is to be shown; in decoding order.
    shown : sequence of Shown
        What was decoded, in presentation order.
    failed : collection of int
        Packets at which the container or the decoder reported an error.
    sure : collection of int
        Packets that certainly code one picture each: where none came of it, it is lost.
    exact : bool
        Whether the decoder reports an error with the packet that has it.
    """
    given = {frame.time for frame in shown}
    corrupt = {frame.time for frame in shown if frame.corrupt}
    bad = {i for i, time in enumerate(times) if time in corrupt} | {i for i in sure if times[i] not in given}
    if any(frame.corrupt for frame in shown) and not bad:
        bad = {0}
    entries = {frame.time for frame in shown if frame.entry}
    for i in failed:
        start = i
        while not exact and start > 0 and (start > i - LAG or times[start] not in entries):
            start -= 1
        bad.update(range(start, i + 1))
    return bad


def touched(times: Sequence[int | None], shown: Sequence[Shown], bad: Collection[int]) -> set[int]:
    """Return the positions of the frames that damage of the packets `bad` may have reached.

    These are the frames of such packets and of all that follow in decoding order, up to the next entry; and of the
    pictures after that one in decoding order which are shown before it. Where frames cannot be told by their times,
    it may have reached all.
    """
    if not bad:
        return set()
    position = {frame.time: at for at, frame in enumerate(shown)}
    if None in position or len(position) < len(shown) or not position.keys() <= set(times):
        return set(range(len(shown)))
    found: set[int] = set()
    spreading = False
    leading_before: int | None = None
    for i, time in enumerate(times):
        at = position.get(time)
        if i in bad:
            spreading = True
        elif spreading and at is not None and shown[at].entry:
            spreading, leading_before = False, time
        if at is not None and (
            spreading or (leading_before is not None and time is not None and time < leading_before)
        ):
            found.add(at)
    return found
