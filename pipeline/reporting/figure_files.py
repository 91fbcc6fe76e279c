"""Figures as files, drawn in this process and, for large reports, in a second one."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from multiprocessing.connection import Connection
from types import TracebackType
from typing import TYPE_CHECKING

from actionvit.features.child_process import ChildProcess
from actionvit.pipeline.reporting import drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Draw = Callable[[], "Figure"]
"""Draws a figure; can be pickled if a second process is to draw."""
Task = tuple[str, Draw]
"""A figure's name and how it is drawn."""
Files = dict[str, bytes]
"""A figure by suffix: `.svg`, `.pdf` and `.png`."""


class FigureFiles:
    """A context in which figures are drawn.

    The second process starts with the context, so that it has loaded matplotlib when the figures are ready. If it ends
    early, or never starts, this process draws everything.

    Parameters
    ----------
    second_process : bool
    """

    def __init__(self, *, second_process: bool) -> None:
        self._child: ChildProcess | None = None
        if second_process:
            with contextlib.suppress(OSError):
                self._child = ChildProcess(__name__)

    def __enter__(self) -> FigureFiles:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    def _end(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None

    def __call__(self, draws: Mapping[str, Draw]) -> Iterator[tuple[str, Files]]:
        """Yield the name and the files of each figure, in any order."""
        waiting = deque(draws.items())
        with ThreadPoolExecutor(1) as thread:
            theirs = thread.submit(_draw_in_child, self._child, waiting) if self._child is not None else None
            try:
                while task := _take(waiting):
                    yield task[0], _draw(task)
                if theirs is not None:
                    yield from theirs.result()
            except BaseException:
                waiting.clear()
                self._end()  # the thread waits for the child
                raise
        for task in waiting:  # given back by a child that has ended
            yield task[0], _draw(task)


def _draw_in_child(child: ChildProcess, waiting: deque[Task]) -> list[tuple[str, Files]]:
    """Let a child draw one waiting figure after another; return what it has drawn."""
    drawn: list[tuple[str, Files]] = []
    while task := _take(waiting):
        try:
            child.socket.send(task)
            files, has_boxes = child.socket.recv()
        except (EOFError, OSError):
            waiting.append(task)
            break
        if has_boxes:
            drawing.warn_of_boxes()
        drawn.append((task[0], files))
    return drawn


def _take(waiting: deque[Task]) -> Task | None:
    """Remove and return the first task; None if another thread took the last."""
    try:
        return waiting.popleft()
    except IndexError:
        return None


def _draw(task: Task) -> Files:
    name, draw = task
    return drawing.files(draw(), name)


def main(socket: int) -> None:
    """Draw the figures that arrive on `socket` until it closes."""
    connection = Connection(socket)
    for module in ("agg", "pdf", "svg"):
        import_module(f"matplotlib.backends.backend_{module}")
    import_module("actionvit.pipeline.reporting.figures")
    with contextlib.suppress(EOFError, OSError):
        while True:
            files = _draw(connection.recv())
            connection.send((files, drawing.warn_of_boxes.cache_info().currsize > 0))
