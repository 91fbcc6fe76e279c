"""Progress on a terminal as a bar, elsewhere as a line every half minute."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from actionvit.commands.command import is_quiet, write_line
from actionvit.text import duration

EVERY = 30.0
"""Seconds between two lines if stderr is not a terminal."""

NOTED = "{desc}: {percentage:3.0f}%|{bar:6}| {elapsed}<{remaining}{postfix}"
"""Layout of a bar with a note: 80 columns hold the note of a training step."""


class Advance(Protocol):
    """Called with the number of finished units, their total, and a note on the latest one."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Show the progress."""


@contextlib.contextmanager
def progress(description: str, unit: str, *, delay: float = 0.0, total: int | None = None) -> Iterator[Advance]:
    """Show the progress of a long step; yield a function to be called as `advance(done, total)`.

    A thread updates the elapsed time, so that a step is visible before its first unit is done.

    Parameters
    ----------
    description : str
        The step's name, before the bar.
    unit : str
        Name of one unit, in the singular.
    delay : float
        Seconds before a bar appears.
    total : int, optional
        Number of units, if it is known before the first is done.
    """
    if is_quiet():
        yield lambda done, total, note="": None
        return
    if sys.stderr is None or not sys.stderr.isatty():
        lines = _Lines(description, unit, total)
        with _repeated(lines.write, EVERY, EVERY):
            yield lines.advance
        return
    from tqdm import tqdm

    with tqdm(
        desc=description, unit=unit, total=total, leave=False, delay=delay, dynamic_ncols=True, file=sys.stderr
    ) as bar:

        def advance(done: int, total: int, note: str = "") -> None:
            bar.total = total
            if note:
                bar.bar_format = NOTED
                bar.set_postfix_str(note, refresh=False)
            bar.update(done - bar.n)

        with _repeated(bar.refresh, delay, 1.0):
            yield advance


@contextlib.contextmanager
def stages(unit: str = "part", *, delay: float = 0.5) -> Iterator[Callable[..., None]]:
    """Show the progress of several stages; yield the function `advance(stage, done, total, note, unit)`."""
    with contextlib.ExitStack() as stack:
        current, show = "", None

        def advance(stage: str, done: int, total: int, note: str = "", unit: str = unit) -> None:
            nonlocal current, show
            if show is None or stage != current:
                stack.close()
                current, show = stage, stack.enter_context(progress(stage, unit, delay=delay, total=total))
            show(done, total, note)

        yield advance


@contextlib.contextmanager
def _repeated(action: Callable[[], Any], first: float, period: float) -> Iterator[None]:
    """Call a function after `first` seconds and then every `period` seconds, in a thread, until the block ends."""
    ended = threading.Event()

    def run() -> None:
        wait = first
        while not ended.wait(wait):
            action()
            wait = period

    thread = threading.Thread(target=run, daemon=True, name="progress")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class _Lines:
    """A step's progress in lines."""

    def __init__(self, description: str, unit: str, total: int | None) -> None:
        self.description, self.unit, self.total = description, unit, total
        self.done, self.note, self.started = 0, "", time.monotonic()
        self.before = (0, 0.0)  # finished units and seconds at an earlier line

    def advance(self, done: int, total: int, note: str = "") -> None:
        """Keep the state for the next line."""
        self.done, self.total, self.note = done, total, note

    def write(self) -> None:
        """Write the number of finished units, the elapsed time and the estimated time left.

        The estimate follows the latest units: earlier ones may have been read from runs that exist, or be cheaper.
        """
        done, total, seconds = self.done, self.total, time.monotonic() - self.started
        count = f"{done} of {total} {self.unit}s" if total else "running"
        first, start = self.before
        remaining = ""
        if total and first < done < total:
            remaining = f", about {duration((seconds - start) / (done - first) * (total - done))} left"
            self.before = done, seconds
        note = f" ({self.note})" if self.note else ""
        write_line(f"{self.description}: {count} after {duration(seconds)}{remaining}{note}")
