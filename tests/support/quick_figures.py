"""Quicker figures for tests of other things: equal ones are drawn once per process."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from contextlib import contextmanager

from actionvit.pipeline.reporting import figure_files
from actionvit.pipeline.reporting.figure_files import Files, Task

_draw = figure_files._draw
_drawn: dict[bytes, Files] = {}


def draw_anew() -> None:
    """Forget the figures that are drawn."""
    _drawn.clear()


def draw_once(task: Task) -> Files:
    """Return the files of a figure, drawn by an earlier call with the same name and arguments if there was one."""
    text = io.BytesIO()
    pickler = pickle.Pickler(text)
    pickler.fast = True  # else equal arguments differ by which of their parts are one object
    pickler.dump(task)
    key = text.getvalue()
    if key not in _drawn:
        _drawn[key] = _draw(task)
    return _drawn[key]


@contextmanager
def quick_figures() -> Iterator[None]:
    """Draw figures quicker within the context."""
    figure_files._draw = draw_once
    try:
        yield
    finally:
        figure_files._draw = _draw
