"""Tests for figures that two processes draw."""

from __future__ import annotations

import os
import time
from collections import deque
from functools import partial

import pytest

from actionvit.features import child_process
from actionvit.pipeline.reporting import drawing, figure_files
from actionvit.pipeline.reporting.figure_files import FigureFiles, Files
from actionvit.pipeline.reporting.figures import cmc_figure

FIGURES_OF_USERS = True
DRAWS = {name: partial(cmc_figure, {f"run {name}": [0.5, 0.75, 1.0]}) for name in "abcdef"}


@pytest.fixture(scope="module")
def alone() -> dict[str, Files]:
    """The figures, drawn in this process."""
    with FigureFiles(second_process=False) as draw:
        return dict(draw(DRAWS))


def test_two_processes_draw_the_same_bytes(alone: dict[str, Files], monkeypatch: pytest.MonkeyPatch) -> None:
    theirs: list[str] = []
    draw_in_child = figure_files._draw_in_child

    def draw_slowly(task: figure_files.Task) -> Files:
        time.sleep(2)  # leaves the other process its share
        return drawing.files(task[1](), task[0])

    def record(*arguments: object) -> list[tuple[str, Files]]:
        drawn = draw_in_child(*arguments)  # type: ignore[arg-type]
        theirs.extend(name for name, _ in drawn)
        return drawn

    monkeypatch.setattr(figure_files, "_draw_in_child", record)
    monkeypatch.setattr(figure_files, "_draw", draw_slowly)
    with FigureFiles(second_process=True) as draw:
        made = dict(draw(DRAWS))
    assert made == alone and 0 < len(theirs) < len(DRAWS)


def test_figures_are_drawn_here_if_the_child_ends(alone: dict[str, Files], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "START", "raise SystemExit(1)")
    with FigureFiles(second_process=True) as draw:
        assert dict(draw(DRAWS)) == alone


def test_characters_that_a_child_lacks_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    drawing.warn_of_boxes.cache_clear()
    draws = {name: partial(cmc_figure, {"\U00012000": [0.5, 1.0]}) for name in "ab"}
    with FigureFiles(second_process=True) as draw:
        assert draw._child is not None
        assert dict(figure_files._draw_in_child(draw._child, deque(draws.items()))).keys() == {"a", "b"}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "boxes in PNG and PDF" in caplog.text


def test_an_error_ends_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(task: figure_files.Task) -> Files:
        raise KeyboardInterrupt

    monkeypatch.setattr(figure_files, "_draw", fail)
    with FigureFiles(second_process=True) as draw:
        assert draw._child is not None
        pid = draw._child.process.pid
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            dict(draw(DRAWS))
        assert time.monotonic() - began < 5
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
