"""Stores of made-up embeddings that can be told from their video: shared by the store's tests and their processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from actionvit.features.files import content_digest, fingerprint
from actionvit.features.store.keys import FeatureKey
from actionvit.features.store.store import FeatureStore, Row

KEY: dict[str, Any] = {
    "weights": "a" * 64,
    "model": {"width": 16},
    "clip": {"num_frames": 8, "size": 112},
    "preprocessing": {"mean": [0.45, 0.45, 0.45]},
    "decoder": "exact",
    "precision": "fp32",
    "outputs": {"frame_pool": "cls"},
    "schema": 1,
}


def make(folder: Path, **changes: Any) -> FeatureStore:
    """Open or create a store, some fields of its key replaced."""
    return FeatureStore.create(folder, key=FeatureKey(**(KEY | changes)), dataset="d", variant="v", info={})


def arrays_of(digest: str) -> dict[str, np.ndarray]:
    """What the made-up encoder gives for a video of this content: K = 1, T = 8, D = 16."""
    random = np.random.RandomState(int(digest[:8], 16))
    frame = random.rand(1, 8, 16).astype(np.float32)
    return {"clip": frame.mean(1), "frame": frame, "index": random.randint(0, 99, (1, 8)).astype(np.int32)}


def embed(id: str, path: Path) -> Row:
    """The row of a file."""
    digest = content_digest(path)
    return Row(id, digest, fingerprint(path), int(digest[:2], 16), ("corrupt",), "pyav", arrays_of(digest))


def numbered(number: int) -> Row:
    """A row without a file, `v007`."""
    digest = f"{number:064x}"[::-1]
    return Row(f"v{number:03}", digest, fingerprint(Path(__file__)), 30, (), "pyav", arrays_of(digest))


def fill(folder: Path, numbers: Any, **changes: Any) -> FeatureStore:
    """Create a store with numbered rows."""
    store = make(folder, **changes)
    with store.writer() as writer:
        for number in numbers:
            writer.append(numbered(number))
    return store


def check_rows(store: FeatureStore) -> None:
    """Every published row is what its video's content gives, byte for byte."""
    for row in store.iterate(store.ids):
        for name, expected in arrays_of(row.digest).items():
            assert row.arrays[name].dtype == expected.dtype, (row.id, name)
            assert row.arrays[name].tobytes() == expected.tobytes(), f"row {row.id}: {name} is not its video's"
