"""The feature store: what is written, planned and read back."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from storing import KEY, arrays_of, check_rows, embed, fill, make, numbered

from actionvit.errors import ActionVitError
from actionvit.features.files import fingerprint
from actionvit.features.store import parts, writer
from actionvit.features.store.keys import FeatureKey
from actionvit.features.store.ledger import Failure, parse, render
from actionvit.features.store.parts import list_parts
from actionvit.features.store.store import FeatureStore, Row
from actionvit.features.store.verify import verify


@pytest.fixture
def videos(tmp_path: Path) -> list[tuple[str, Path]]:
    """Four files, `a` to `d`."""
    (tmp_path / "data").mkdir()
    found = [(name, tmp_path / "data" / name) for name in "abcd"]
    for name, path in found:
        path.write_bytes(name.encode() * 10)
    return found


def embed_all(store: FeatureStore, videos: list[tuple[str, Path]]) -> None:
    with store.writer() as out:
        for id, path in videos:
            out.append(embed(id, path))


# keys


@pytest.mark.parametrize("field", KEY)
def test_every_field_of_the_key_makes_another_store(field: str, tmp_path: Path) -> None:
    make(tmp_path)
    other: Any = {"other": 1} if isinstance(KEY[field], dict) else 2 if field == "schema" else "other"
    with pytest.raises(ActionVitError, match=rf"another key: {field}"):
        make(tmp_path, **{field: other})


def test_another_key_is_refused_with_the_field_and_both_values(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(ActionVitError, match=r"clip\.num_frames is 8 here and 16 there \(") as caught:
        make(tmp_path, clip={"num_frames": 16, "size": 112})
    assert "\n" not in str(caught.value)


def test_a_key_is_its_values_however_they_are_written() -> None:
    key = FeatureKey(**KEY)
    assert key == FeatureKey.parse(key.canonical()) == FeatureKey(**{**KEY, "preprocessing": {"mean": (0.45,) * 3}})
    assert key.digest == hashlib.sha256(key.canonical().encode()).hexdigest()
    with pytest.raises(ValueError, match="weights"):
        FeatureKey.from_dict({name: value for name, value in KEY.items() if name != "weights"})


# rows in, rows out


def test_rows_read_back_in_the_order_asked(tmp_path: Path) -> None:
    fill(tmp_path, (2, 0, 1))
    store = FeatureStore.open(tmp_path)
    assert store.ids == ["v000", "v001", "v002"]
    assert store.quantities["frame"] == ((1, 8, 16), np.dtype("<f4"))
    found = store.read(["v002", "v000", "v002"], "frame")
    np.testing.assert_array_equal(found, [numbered(number).arrays["frame"] for number in (2, 0, 2)])
    info = store.rows(["v001"])[0]
    assert (info.count, info.backend, info.flags, info.digest) == (30, "pyav", (), numbered(1).digest)
    with pytest.raises(ActionVitError, match=r"1 of 2 videos have no embedding here \('v009' .* `actionvit extract`"):
        store.read(["v001", "v009"], "clip")
    with pytest.raises(ActionVitError, match=r"no quantity 'tokens'.*clip, frame, index"):
        store.read(["v001"], "tokens")


def test_names_may_hold_anything_a_file_name_may(tmp_path: Path) -> None:
    names = ["a b/ü#!(1).avi", "\udcff.avi", '日本/x,"y".avi', "z\n.avi"]
    with make(tmp_path).writer() as out:
        for name in names:
            out.append(Row(name, "0" * 64, fingerprint(Path(__file__)), 1, (), "", arrays_of("0" * 64)))
            out.fail(name + "?", "corrupt", 'two\nlines, "quoted"')
    store = FeatureStore.open(tmp_path)
    assert set(store.ids) == set(names) and verify(tmp_path) == []
    assert store.read(names, "clip").shape == (4, 1, 16)
    assert len(store.failures()) == 4


def test_rows_are_all_alike(tmp_path: Path) -> None:
    store = fill(tmp_path, range(2))
    odd = numbered(3)
    for arrays in ({"clip": odd.arrays["clip"]}, odd.arrays | {"clip": odd.arrays["clip"].astype(np.float64)}):
        with pytest.raises(ValueError, match=r"row v003: got clip float(32|64)"), store.writer() as out:
            out.append(Row("v003", odd.digest, odd.fingerprint, 1, (), "", arrays))
    with pytest.raises(ValueError, match="64 hex digits"):
        Row("x", "name.avi", odd.fingerprint, 1, (), "", odd.arrays)


def test_a_row_is_what_it_was_when_it_was_appended(tmp_path: Path) -> None:
    with make(tmp_path).writer() as out:
        row = numbered(0)
        out.append(row)
        row.arrays["clip"][:] = 0  # the encoder uses its buffer again
    check_rows(FeatureStore.open(tmp_path))


def test_what_was_appended_before_an_exception_is_published(tmp_path: Path) -> None:
    store = make(tmp_path)
    with pytest.raises(KeyboardInterrupt), store.writer(flush_seconds=999) as out:
        out.append(numbered(0))
        raise KeyboardInterrupt
    assert store.ids == ["v000"]


def test_what_a_kill_can_cost_is_bounded_by_time_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(writer.time, "monotonic", lambda: clock[0])
    store = make(tmp_path)
    with store.writer(flush_seconds=5) as out:
        out.append(numbered(0))
        clock[0] = 4.9
        out.append(numbered(1))
        assert list_parts(tmp_path) == []
        clock[0] = 5.0
        out.append(numbered(2))
        assert len(list_parts(tmp_path)) == 1
    row_bytes = sum(array.nbytes for array in numbered(0).arrays.values())
    with store.writer(flush_seconds=999, flush_bytes=3 * row_bytes) as out:
        for number in range(3, 8):
            out.append(numbered(number))
        assert len(FeatureStore.open(tmp_path)) == 6


def test_slow_writing_leaves_few_parts_and_the_same_rows(tmp_path: Path) -> None:
    whole = fill(tmp_path / "whole", range(100))
    store = make(tmp_path / "slow")
    with store.writer(flush_seconds=0) as out:
        for number in range(100):
            out.append(numbered(number))
    assert len(list_parts(tmp_path / "slow")) <= writer.MANY_PARTS
    assert store.digest() == whole.digest() and verify(tmp_path / "slow") == []
    check_rows(store)


def test_the_last_row_of_a_video_is_the_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = fill(tmp_path, range(3))
    monkeypatch.setattr(writer, "MANY_PARTS", 3)
    for digest in ("1" * 64, "2" * 64, "3" * 64, "4" * 64):
        with store.writer() as out:
            out.append(Row("v001", digest, fingerprint(Path(__file__)), 1, (), "", arrays_of(digest)))
        assert store.rows(["v001"])[0].digest == digest
        check_rows(store)
    assert len(store) == 3 and len(list_parts(tmp_path)) < 3
    fresh = make(tmp_path / "fresh")
    with fresh.writer() as out:
        for row in store.iterate(store.ids):
            out.append(row)
    assert fresh.digest() == store.digest()


def test_a_superseded_part_goes_with_the_next_writer(tmp_path: Path) -> None:
    store = fill(tmp_path, range(3))
    old = list_parts(tmp_path)[0]
    store = fill(tmp_path, range(3))
    assert old.exists()
    with store.writer():
        pass
    assert not old.exists() and len(store) == 3


def test_memory_while_writing_is_flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PART_BYTES", 1 << 20)
    peaks = []
    for count in (100, 800):
        array = np.zeros((1, 8, 768), np.float32)
        tracemalloc.start()
        with make(tmp_path / str(count)).writer(flush_bytes=1 << 20) as out:
            for number in range(count):
                out.append(Row(f"{number}", f"{number:064x}", fingerprint(Path(__file__)), 1, (), "", {"frame": array}))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] < 12 << 20


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


# the plan


def test_a_plan_puts_each_video_in_one_place(tmp_path: Path, videos: list[tuple[str, Path]]) -> None:
    store = make(tmp_path / "store")
    assert store.plan(videos).missing == ("a", "b", "c", "d")
    embed_all(store, videos[:3])
    (tmp_path / "data" / "b").write_bytes(b"B" * 20)
    plan = store.plan(videos[1:])
    assert (plan.known, plan.changed, plan.missing, plan.absent) == (("c",), ("b",), ("d",), ("a",))
    assert plan.todo == ["b", "d"] and not plan.adoptable


def test_a_touched_file_is_read_once_and_then_vouched_for(tmp_path: Path, videos: list[tuple[str, Path]]) -> None:
    store = make(tmp_path / "store")
    embed_all(store, videos)
    for _, path in videos:
        os.utime(path, ns=(1, 1))
    plan = store.plan(videos)
    assert len(plan.known) == len(plan.fingerprints) == 4
    digest = store.digest()
    with store.writer() as out:
        assert out.adopt(plan) == 4
    assert not store.plan(videos).adoptable and store.digest() == digest
    assert len(list_parts(tmp_path / "store")) == 1, "no row was written again"


def test_a_renamed_file_is_adopted(tmp_path: Path, videos: list[tuple[str, Path]]) -> None:
    store = make(tmp_path / "store")
    embed_all(store, videos)
    videos[2][1].rename(tmp_path / "data" / "z")
    moved = [*videos[:2], ("z", tmp_path / "data" / "z"), videos[3]]
    plan = store.plan(moved)
    assert dict(plan.renamed) == {"z": "c"} and plan.absent == ("c",) and plan.todo == []
    with store.writer() as out:
        out.adopt(plan)
    assert store.plan(moved).known == ("a", "b", "z", "d")
    check_rows(store)
    assert store.rows(["z"])[0].digest == store.rows(["c"])[0].digest


def test_a_change_that_size_and_time_hide_is_seen_when_asked(tmp_path: Path, videos: list[tuple[str, Path]]) -> None:
    store = make(tmp_path / "store")
    embed_all(store, videos)
    path = videos[0][1]
    before = fingerprint(path)
    path.write_bytes(b"X" * before.size)
    os.utime(path, ns=(before.mtime_ns, before.mtime_ns))
    assert len(store.plan(videos).known) == 4
    assert store.plan(videos, verify=True).changed == ("a",)


def test_rows_outlive_files_that_are_away(tmp_path: Path, videos: list[tuple[str, Path]]) -> None:
    store = make(tmp_path / "store")
    embed_all(store, videos[:2])
    for _, path in videos:
        path.unlink()
    plan = store.plan(videos)
    assert (plan.known, plan.missing) == (("a", "b"), ("c", "d"))


def test_failures_are_tried_again_when_file_or_decoder_changed(tmp_path: Path, videos: list[tuple[str, Path]]) -> None:
    store = make(tmp_path / "store")
    with store.writer() as out:
        for id, path in videos:
            out.fail(id, "corrupt", "says so", "pyav", 3, fingerprint(path), "1")
    assert store.plan(videos, decoder="1").failed == ("a", "b", "c", "d")
    assert len(store.plan(videos, decoder="2").missing) == 4
    assert len(store.plan(videos, decoder="1", retry_failed=True).missing) == 4
    videos[0][1].write_bytes(b"mended")
    assert store.plan(videos, decoder="1").missing == ("a",)
    embed_all(store, videos[:1])
    assert [failure.id for failure in store.failures()] == ["b", "c", "d"]
    lines = (tmp_path / "store" / "failures.csv").read_text().splitlines()
    assert lines[0].startswith("id,reason,detail,backend,frames,") and lines[1].startswith("b,corrupt,says so,pyav,3,")


def test_a_video_that_broke_loses_every_row_it_had(tmp_path: Path, videos: list[tuple[str, Path]]) -> None:
    store = make(tmp_path / "store")
    embed_all(store, videos)
    videos[0][1].write_bytes(b"second version")
    embed_all(store, videos[:1])
    videos[0][1].write_bytes(b"broken")
    with store.writer() as out:
        out.fail("a", "corrupt", "", "pyav", 0, fingerprint(videos[0][1]), "1")
    assert store.ids == ["b", "c", "d"]
    assert store.plan(videos, decoder="1").failed == ("a",)


def test_the_ledger_survives_spreadsheets_and_shows_edits() -> None:
    line = Failure('a,"b"\'', "corrupt", 'x "y", z', "pyav", 1, 2, 3, "v1")
    data = render(Failure, [line])
    assert parse(Failure, data) == ({line.id: line}, [])
    good, bad = parse(Failure, data.replace(b"corrupt", b"corrvpt"))
    assert good == {} and "line 2: not as written" in bad[0]


# the format


def test_the_lines_of_the_page_read_a_store(tmp_path: Path) -> None:
    store = fill(tmp_path, range(4))
    fill(tmp_path, (1, 5))
    store.refresh()
    page = (Path(__file__).resolve().parents[1] / "docs" / "formats.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert found and len(found[1].strip().splitlines()) <= 10
    names: dict[str, Any] = {}
    exec(found[1].replace("features-cache/hmdb51/base-f580fcfe8f", str(tmp_path)), names)
    assert sorted(names["clips"]) == store.ids
    np.testing.assert_array_equal(names["clips"]["v002"], numbered(2).arrays["clip"])


def test_parts_are_chunked_checksummed_and_plain(tmp_path: Path) -> None:
    fill(tmp_path, range(4))
    path = list_parts(tmp_path)[0]
    assert path.name[14:30] == hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    with h5py.File(path) as part:
        assert set(part) == {"rows", "clip", "frame", "index"}
        assert all(data.chunks and data.fletcher32 and data.compression is None for data in part.values())
        assert FeatureKey.parse(part.attrs["key"]) == FeatureKey(**KEY)


def test_neither_writing_nor_reading_loads_torch() -> None:
    code = (
        "import sys, actionvit.features.store.verify, actionvit.pipeline.extraction.merging\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
