"""Stores of made-up embeddings that depend on their video: shared by the store's tests and their processes.

`STORE_BROKEN=numbers|digest|bytes` in the environment makes the writer wrong on purpose, in this process and its
children: test_store_meta.py checks that every test of the store then fails.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from actionvit.features.failures import Failure
from actionvit.features.fingerprint import NO_FILE, Fingerprint, content_digest, fingerprint
from actionvit.features.store import compaction, writer
from actionvit.features.store.keys import FeatureKey
from actionvit.features.store.parts import Row, Table, table_of
from actionvit.features.store.store import FeatureStore
from actionvit.features.store.writer import Writer
from actionvit.features.video_record import VideoRecord

TESTS = Path(__file__).parent

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


def failed(
    id: str,
    reason: Any,
    detail: str,
    backend: str = "",
    frames: int = 0,
    fingerprint: Fingerprint = NO_FILE,
    decoder: str = "",
) -> Failure:
    """Return a line of the failure log."""
    return Failure(
        id=id,
        reason=reason,
        detail=detail,
        backend=backend,
        frames_decoded=frames,
        fingerprint=fingerprint,
        decoder_version=decoder,
    )


def make(folder: Path, **changes: Any) -> FeatureStore:
    """Open or create a store, some fields of its key replaced."""
    return FeatureStore.create(folder, key=FeatureKey(**(KEY | changes)), dataset="d", variant="v", info={})


def arrays_of(digest: str) -> dict[str, np.ndarray]:
    """Arrays of the made-up encoder for a video of this content: K = 1, T = 8, D = 16."""
    random = np.random.RandomState(int(digest[:8], 16))
    frame = random.rand(1, 8, 16).astype(np.float32)
    return {"clip": frame.mean(1), "frame": frame, "index": random.randint(0, 99, (1, 8)).astype(np.int32)}


def embed(id: str, path: Path) -> Row:
    """The row of a file."""
    digest = content_digest(path)
    record = VideoRecord(id, digest, fingerprint(path), int(digest[:2], 16), ("corrupt",), "pyav")
    return Row(record, arrays_of(digest))


def numbered(number: int) -> Row:
    """A row without a file, `v007`."""
    digest = f"{number:064x}"[::-1]
    return Row(VideoRecord(f"v{number:03}", digest, Fingerprint(number, 1), 30, (), "pyav"), arrays_of(digest))


def fill(folder: Path, numbers: Iterable[int], **changes: Any) -> FeatureStore:
    """Create a store with numbered rows."""
    store = make(folder, **changes)
    with Writer(store) as out:
        for number in numbers:
            out.append(numbered(number))
    return store


def check_rows(store: FeatureStore) -> None:
    """Check that every published row equals the arrays of its video's content, byte for byte."""
    for row in store.iter_rows(store.ids):
        for name, expected in arrays_of(row.record.digest).items():
            assert row.arrays[name].dtype == expected.dtype, (row.id, name)
            assert row.arrays[name].tobytes() == expected.tobytes(), f"row {row.id}: {name} is not its video's"


def environment(**more: str) -> dict[str, str]:
    """The environment for a process that imports this module."""
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, **more}


def break_on_purpose(how: str) -> None:
    """Make the writer wrong: numbers of every second row, a row but not its digest, or a part's bytes."""
    plain, atomic_write, count = writer.plain, compaction.atomic_write, 0

    def wrong(array: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        return plain(array) if count // 3 % 2 else plain(array) + 1

    def late(rows: list[Row]) -> Table:
        table = table_of(rows)
        for row in rows:
            row.arrays["clip"][...] += 1
        return table

    if how == "numbers":
        writer.plain = wrong
    elif how == "digest":
        writer.table_of = late
    else:
        compaction.atomic_write = lambda path, data: atomic_write(path, data[:-1] + bytes([data[-1] ^ 1]))


if "STORE_BROKEN" in os.environ:
    break_on_purpose(os.environ["STORE_BROKEN"])
