"""Fixtures for several test files: real clips, if available, and a drawn dataset."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from forked_commands import ForkedCommands
from quick_figures import quick_figures

from actionvit.pipeline.datasets.synthetic.dataset import draw_dataset


@pytest.fixture(scope="module", autouse=True)
def quicker_figures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Figures that take less time, except in modules with `FIGURES_OF_USERS = True`."""
    with nullcontext() if getattr(request.module, "FIGURES_OF_USERS", False) else quick_figures():
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with `jhmdb21`, `hmdb51_splits` and `fixtures`; skips with a message if it is missing."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("ACTIONVIT_TEST_DATA", default))
    if not (folder / "jhmdb21").is_dir():
        pytest.skip(f"real clips not found at {folder} (set ACTIONVIT_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def sixty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `draw_dataset(clips=60)` shared by tests: copy from it, never write to it."""
    root = tmp_path_factory.mktemp("sixty") / "clips"
    draw_dataset(root, clips=60)
    return root


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Undo what a command in this process changes in the package's logging."""
    logger = logging.getLogger("actionvit")
    before, propagate, level = list(logger.handlers), logger.propagate, logger.level
    yield
    logger.handlers, logger.propagate = before, propagate
    logger.setLevel(level)


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A folder in memory where there is one: for tests that sync thousands of times and cut no power."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedCommands]:
    """Commands as processes that start without imports."""
    commands = ForkedCommands(tmp_path_factory.mktemp("forked"))
    yield commands
    commands.close()
