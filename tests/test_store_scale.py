"""A row costs the same in a store of any size; memory is flat; a chunk is read once."""

from __future__ import annotations

import itertools
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from fake_store import fill, make, numbered
from small_extraction import draw, extract

from actionvit.features.fingerprint import Fingerprint
from actionvit.features.store import index, parts, plan, writer
from actionvit.features.store.compaction import publish_part
from actionvit.features.store.parts import Row, table_of
from actionvit.features.store.plan import make_plan
from actionvit.features.store.store import FeatureStore
from actionvit.features.store.writer import Writer
from actionvit.features.video_record import VideoRecord


def many(folder: Path, rows: int) -> list[tuple[str, Path]]:
    """A store of that many rows, in the parts that a writer would leave, without the time a writer takes."""
    store = make(folder)
    ids = [f"class{number % 51:02}/a_video_of_a_usual_name_{number:07}.avi" for number in range(rows)]
    for sequence, start in enumerate(range(0, rows, PART_ROWS)):
        digests = [f"{number:064x}" for number in range(start, min(start + PART_ROWS, rows))]
        block = zip(ids[start : start + PART_ROWS], digests, strict=True)
        records = [VideoRecord(id, digest, Fingerprint(1, 2), 30, (), "decord") for id, digest in block]
        table = table_of([Row(record, {"index": np.zeros(1, np.int8)}) for record in records])
        publish_part(store, sequence, table, {"index": np.zeros((len(table), 1), np.int8)})
    return [(id, folder) for id in ids]


PART_ROWS = 2400
"""About what 64 MiB hold of 8 x 768 numbers."""


def cpu_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


@pytest.mark.timing
def test_open_and_plan_cost_per_row_is_independent_of_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "fingerprint", lambda path: Fingerprint(1, 2))  # the disk's part is measured apart
    cost = {}
    for rows in (1000, 60_000):
        folder = tmp_path / str(rows)
        files = many(folder, rows)

        def ask(folder: Path = folder, files: list[tuple[str, Path]] = files) -> None:
            assert len(make_plan(FeatureStore.open(folder), files).cached) == len(files)

        cost[rows] = min(cpu_seconds(ask) for _ in range(3)) / rows
    assert cost[60_000] < 1.5 * cost[1000], cost
    assert cost[60_000] < 60 / 1_000_000, cost


def test_a_rerun_reads_no_video_and_no_embedding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, cache = draw(tmp_path / "clips", 3), tmp_path / "cache"
    assert extract(root, cache).exit_code == 0
    opened: list[str] = []
    plain = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *a, **k: opened.append(path.suffix) or plain(path, *a, **k))
    monkeypatch.setattr(index, "read_positions", lambda *_: pytest.fail("an embedding was read"))
    assert "3 already cached" in extract(root, cache).output
    assert ".avi" not in opened
    assert "3 already cached" in extract(root, cache, "--verify").output
    assert opened.count(".avi") == 3


def test_memory_while_writing_is_flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PART_BYTES", 1 << 20)
    peaks = []
    for count in (100, 800):
        array = np.zeros((1, 8, 768), np.float32)
        tracemalloc.start()
        with Writer(make(tmp_path / str(count)), flush_bytes=1 << 20) as out:
            for number in range(count):
                out.append(
                    Row(VideoRecord(f"{number}", f"{number:064x}", Fingerprint(1, 2), 1, (), ""), {"frame": array})
                )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] < 12 << 20


def test_rows_without_much_in_them_do_not_pile_up(tmp_path: Path) -> None:
    """Their records take memory even if the arrays are small."""
    with Writer(make(tmp_path), flush_seconds=999, flush_bytes=1 << 20) as out:
        for number in range(1100):
            row = Row(
                VideoRecord(f"{number}", f"{number:064x}", Fingerprint(1, 2), 1, (), ""),
                {"index": np.zeros(1, np.int8)},
            )
            out.append(row)
        assert len(FeatureStore.open(tmp_path)) >= 500


def test_reading_is_one_pass_over_chunks_in_storage_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "CHUNK_BYTES", 2048)
    monkeypatch.setattr(parts, "BLOCK_BYTES", 4096)
    store = fill(tmp_path, range(100))
    read: list[slice] = []

    class Watched:
        def __init__(self, data: h5py.Dataset) -> None:
            self.data, self.chunks, self.dtype, self.shape = data, data.chunks, data.dtype, data.shape

        def __getitem__(self, at: slice) -> np.ndarray:
            read.append(at)
            return self.data[at]

    class Opened:
        def __enter__(self) -> Opened:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def __init__(self, path: Path) -> None:
            self.file = h5py.File(path)

        def __getitem__(self, name: str) -> Watched:
            return Watched(self.file[name])

    ids = [f"v{number:03}" for number in np.random.RandomState(0).permutation(100)[:60]]
    assert len(store) == 100  # which reads the table
    monkeypatch.setattr(parts, "open_part", Opened)
    found = store.read(ids, "frame")
    np.testing.assert_array_equal(found, [numbered(int(id[1:])).arrays["frame"] for id in ids])
    assert len(read) > 5
    for before, after in itertools.pairwise(read):
        assert before.start % 4 == 0 and before.stop <= after.start, "a chunk is read twice, or out of order"
