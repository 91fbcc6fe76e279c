"""`actionvit extract` on a few drawn clips, small and quick, publishing every row: to test interruptions."""

from __future__ import annotations

import sys
from pathlib import Path

import fake_store  # noqa: F401 - which may break the writer on purpose
import numpy as np
from click.testing import CliRunner, Result

from actionvit.cli import cli
from actionvit.features.store.store import FeatureStore
from actionvit.pipeline.datasets.synthetic.dataset import write_avi


def draw(root: Path, count: int) -> Path:
    """Some small clips in one class folder."""
    (root / "hop").mkdir(parents=True, exist_ok=True)
    random = np.random.RandomState(0)
    for number in range(count):
        frames = random.randint(0, 256, (8 + number % 5, 48, 64, 3)).astype(np.uint8)
        write_avi(root / "hop" / f"{number:02}.avi", frames)
    return root


def extraction(root: Path, cache: Path, *more: object) -> list[str]:
    """The command line."""
    small = ("--variant", "tiny", "--num-frames", 2, "--size", 32, "--workers", 1, "--flush-seconds", 0)
    return list(map(str, (sys.executable, "-m", "actionvit", "extract", root, "--cache", cache, *small, *more)))


def extract(root: Path, cache: Path, *more: object) -> Result:
    """The same in this process."""
    return CliRunner().invoke(cli, [*extraction(root, cache, *more)[3:], "--workers", "0"])


def undisturbed(folder: Path) -> tuple[Path, dict[str, bytes]]:
    """Eighteen clips, so that parts are merged, and the rows of an undisturbed extraction."""
    root = draw(folder / "clips", 18)
    assert extract(root, folder / "cache").exit_code == 0
    return root, rows_of(store_in(folder / "cache"))


def store_in(cache: Path) -> FeatureStore:
    return FeatureStore.open(next(cache.glob("*/*/key.json")).parent)


def rows_of(store: FeatureStore) -> dict[str, bytes]:
    return {
        row.id: b"".join(row.arrays[name].tobytes() for name in sorted(row.arrays))
        for row in store.iter_rows(store.ids)
    }
