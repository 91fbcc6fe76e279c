"""Progress on a terminal as a bar, elsewhere as a line every half minute."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from actionvit.commands.command import is_quiet, write_line

EVERY = 30.0
"""Seconds between two lines where stderr is no terminal."""

Advance = Callable[[int, int], None]
"""Called with how many units are done, and how many there are."""


@contextlib.contextmanager
def progress(description: str, unit: str, *, delay: float = 0.0) -> Iterator[Advance]:
    """Show how far a long step is; yield the function that is called as `advance(done, total)`.

    Parameters
    ----------
    description : str
        The step's name, before the bar.
    unit : str
        What is counted, in the singular.
    delay : float
        Seconds before a bar appears.
    """
    if is_quiet():
        yield lambda done, total: None
        return
    if sys.stderr is None or not sys.stderr.isatty():
        yield _lines(description, unit)
        return
    from tqdm import tqdm

    with tqdm(desc=description, unit=unit, leave=False, delay=delay, dynamic_ncols=True, file=sys.stderr) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield advance


@contextlib.contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """Show how far a step of several stages is; yield the function that is called as `advance(stage, done, total)`."""
    with contextlib.ExitStack() as stack:
        current, show = "", None

        def advance(stage: str, done: int, total: int) -> None:
            nonlocal current, show
            if show is None or stage != current:
                stack.close()
                current, show = stage, stack.enter_context(progress(stage, "part", delay=0.5))
            show(done, total)

        yield advance


def _lines(description: str, unit: str) -> Advance:
    started = time.monotonic()
    last = started

    def advance(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= EVERY:
            last = now
            write_line(f"{description}: {done} of {total} {unit}s after {now - started:.0f} s")

    return advance
