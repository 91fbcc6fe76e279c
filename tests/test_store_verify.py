"""A flipped bit anywhere is found; a repair drops exactly the damaged rows; damaged numbers are never returned."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from fake_store import KEY, arrays_of, check_rows, embed, failed, fill, make, numbered

from actionvit.errors import ActionVitError
from actionvit.features.store import parts
from actionvit.features.store.keys import FeatureKey
from actionvit.features.store.merge import merge_stores
from actionvit.features.store.parts import list_parts
from actionvit.features.store.plan import make_plan
from actionvit.features.store.store import FeatureStore
from actionvit.features.store.verify import verify_store
from actionvit.features.store.writer import Writer


def flip(path: Path, at: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


@pytest.fixture
def pristine(tmp_path: Path) -> Path:
    """A store with rows, a failure, a touched file, and a writer's name in the lock."""
    folder = tmp_path / "store"
    videos = [(f"w{number}", tmp_path / f"w{number}") for number in range(2)]
    for id, path in videos:
        path.write_bytes(id.encode())
    store = fill(folder, range(4))
    with Writer(store) as out:
        for id, path in videos:
            out.append(embed(id, path))
        out.add_failure(failed(bad := 'bad, \r\n "worse"', "corrupt", "bad header", "pyav", 3))
    os.utime(videos[0][1], ns=(1, 1))
    with Writer(store) as out:
        out.apply(make_plan(store, [*videos, (bad, tmp_path / "away")]))
    assert verify_store(folder) == []
    check_rows(store)
    return folder


def files_of(folder: Path) -> list[Path]:
    """A file of each kind: one part will do for all."""
    files = sorted(path for path in folder.iterdir())
    assert [path.name[:5] for path in files] == ["failu", "key.j", "lock", "manif", "part-", "part-", "seen."]
    return files[:4] + files[5:]


def flipped(path: Path, step: int) -> Iterator[int]:
    """Flip a bit in every `step`-th byte, one after the other; in the end the file is as it was."""
    whole = path.read_bytes()
    for at in range(0, len(whole), step):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at // step % 8]) + whole[at + 1 :])
        yield at
    path.write_bytes(whole)


def test_flipped_bit_in_any_region_is_found_and_repaired(pristine: Path, tmp_path: Path) -> None:
    rows, lost = set(FeatureStore.open(pristine).ids), 0
    for path in files_of(pristine):
        for number, at in enumerate(flipped(path, 43 if path.suffix == ".h5" else 7)):
            assert [problem.file for problem in verify_store(pristine)] == [path.name], (path.name, at)
            if number % 5 == 0:
                copy = tmp_path / "copy"
                shutil.copytree(pristine, copy)
                verify_store(copy, repair=True)
                assert verify_store(copy) == [], (path.name, at)
                left = FeatureStore.open(copy)
                check_rows(left)
                assert set(left.ids) <= rows, "a garbled id stays"
                lost += len(rows) - len(left)
                shutil.rmtree(copy)
    assert lost > 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_flipped_bit_in_any_byte_is_never_read_as_a_number(pristine: Path) -> None:
    for path in files_of(pristine):
        for at in flipped(path, 1):
            assert [problem.file for problem in verify_store(pristine)] == [path.name], (path.name, at)
            read_all(pristine)


def read_all(folder: Path) -> int:
    """Read every row; it must be right or raise our error. Return the number of errors."""
    try:
        store = FeatureStore.open(folder)
        ids = store.ids
    except ActionVitError:
        return 1
    errors = 0
    for id in ids:
        for name in ("clip", "frame", "index"):
            try:
                found = store.read([id], name)[0]
            except ActionVitError:
                errors += 1
            else:
                assert found.tobytes() == arrays_of(store.records([id])[0].digest)[name].tobytes(), (id, name)
    return errors


def test_what_is_damaged_is_an_error_and_never_a_number(tmp_path: Path) -> None:
    fill(tmp_path, range(2))
    part = list_parts(tmp_path)[0]
    whole = part.read_bytes()
    assert sum(read_all(tmp_path) for _ in flipped(part, 17)) > 100
    for length in range(0, len(whole), 997):
        part.write_bytes(whole[:length])
        assert read_all(tmp_path) == 1
        assert [problem.file for problem in verify_store(tmp_path)] == [part.name]


def places(path: Path) -> Iterator[tuple[str, int, int]]:
    """Yield (array, row, offset in the file) of a byte of each row of each array."""
    with h5py.File(path) as part:
        for name, data in part.items():
            row = data.dtype.itemsize * int(np.prod(data.shape[1:]))
            for chunk in range(data.id.get_num_chunks()):
                info = data.id.get_chunk_info(chunk)
                for at in range(data.chunks[0]):
                    yield name, info.chunk_offset[0] + at, info.byte_offset + at * row + row // 2


def test_flipped_bit_in_a_row_costs_only_that_row(tmp_path: Path) -> None:
    store = fill(tmp_path / "whole", range(5))
    part = list_parts(store.folder)[0]
    tried = set()
    for number, (name, row, offset) in enumerate(places(part)):
        folder = tmp_path / str(number)
        shutil.copytree(store.folder, folder)
        flip(folder / part.name, offset, 2)
        (problem,) = verify_store(folder, repair=True)
        assert problem.rows == 1, (name, row)
        if name != "rows":
            assert problem.ids == (f"v{row:03}",)
        left = FeatureStore.open(folder)
        assert left.ids == [id for id in store.ids if id != f"v{row:03}"], (name, row)
        check_rows(left)
        tried.add((name, row))
        assert fill(folder, (row,)).digest() == store.digest(), "the next extraction redoes it"
    assert len(tried) == 4 * 5


def test_rows_of_a_repaired_part_are_checked_by_content(tmp_path: Path) -> None:
    videos = [(name, tmp_path / name) for name in "ab"]
    for id, path in videos:
        path.write_bytes(id.encode())
    store = make(tmp_path / "store")
    with Writer(store) as out:
        for id, path in videos:
            out.append(embed(id, path))
    part = list_parts(store.folder)[0]
    flip(part, part.read_bytes().index(arrays_of(store.records(["a"])[0].digest)["frame"].tobytes()))
    verify_store(store.folder, repair=True)
    store.refresh()
    plan = make_plan(store, videos)
    assert (plan.cached, plan.missing) == (("b",), ("a",)) and "b" in plan.fingerprints


def test_a_lost_row_does_not_bring_back_an_older_one(tmp_path: Path) -> None:
    """For damage anywhere, even if the ids of the newer rows are unreadable."""
    video = tmp_path / "v"
    video.write_bytes(b"old")
    store = make(tmp_path / "store")
    with Writer(store) as out:
        out.append(embed("v", video))
        out.append(numbered(1))
    old = store.records(["v"])[0].digest
    video.write_bytes(b"newer")
    with Writer(store) as out:
        out.apply(make_plan(store, [("v", video)]))
        assert FeatureStore.open(store.folder).ids == ["v001"], "it goes before the new one comes"
        out.append(embed("v", video))
    check_rows(store)
    newest = list_parts(store.folder)[-1]
    whole = newest.read_bytes()
    for at in range(0, len(whole), 101):
        folder = tmp_path / str(at)
        shutil.copytree(store.folder, folder)
        flip(folder / newest.name, at)
        verify_store(folder, repair=True)
        left = FeatureStore.open(folder)
        assert old not in {row.digest for row in left.records(left.ids)}, at


def test_row_appended_under_an_existing_id_replaces_it(tmp_path: Path) -> None:
    store = fill(tmp_path, range(3))
    newer = embed("v001", Path(__file__))
    with Writer(store) as out:
        out.append(newer)
    with h5py.File(list_parts(tmp_path)[0]) as part:
        assert [id.decode() for id in part["rows"]["id"]] == ["v000", "v002"]
    assert store.records(["v001"])[0].digest == newer.record.digest
    check_rows(store)


def test_a_part_that_lost_its_name_is_found_and_gets_it_back(tmp_path: Path) -> None:
    store = fill(tmp_path, range(3))
    digest, part = store.digest(), list_parts(tmp_path)[0]
    part.rename(part.with_name(part.name.replace("part", "pert")))
    (tmp_path / "notes.txt").write_text("a person's, and none of our business")
    assert FeatureStore.open(tmp_path).ids == []
    (problem,) = verify_store(tmp_path)
    assert problem.file.startswith("pert-") and "not by its name" in problem.detail
    verify_store(tmp_path, repair=True)
    assert verify_store(tmp_path) == [] and FeatureStore.open(tmp_path).digest() == digest
    check_rows(FeatureStore.open(tmp_path))


def test_part_of_another_store_is_refused_and_kept(tmp_path: Path) -> None:
    fill(tmp_path / "a", range(2))
    foreign = list_parts(fill(tmp_path / "b", range(2, 4), precision="bf16").folder)[0]
    shutil.copy(foreign, tmp_path / "a" / foreign.name.replace("00000000", "00000009"))
    for look in (lambda: verify_store(tmp_path / "a", repair=True), lambda: FeatureStore.open(tmp_path / "a").ids):
        with pytest.raises(ActionVitError, match=r'precision is "fp32" in key.json and "bf16" in the part.*move it'):
            look()
    assert len(list_parts(tmp_path / "a")) == 2


def test_damaged_metadata_does_not_block_reading(pristine: Path) -> None:
    for name in ("seen.csv", "failures.csv", "lock"):
        flip(pristine / name, len((pristine / name).read_bytes()) - 3)
    store = FeatureStore.open(pristine)
    check_rows(store)
    assert len(store) == 6
    with pytest.raises(ActionVitError, match=r"failures.csv: line 2: not as written .*--repair"):
        store.failures()
    assert {problem.file for problem in verify_store(pristine, repair=True)} == {"seen.csv", "failures.csv", "lock"}
    assert verify_store(pristine) == [] and len(FeatureStore.open(pristine)) == 6


def test_what_a_newer_version_wrote_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as newer:
        newer.setattr(parts, "SCHEMA", 2)
        newer.setattr("actionvit.features.store.store.SCHEMA", 2)
        fill(tmp_path / "newer", range(2))
    with pytest.raises(ActionVitError, match="schema 2, expected 1; update actionvit"):
        FeatureStore.open(tmp_path / "newer")
    store = fill(tmp_path / "store", range(2))
    newest = list_parts(tmp_path / "newer")[0]
    shutil.copy(newest, store.folder / newest.name.replace("00000000", "00000001"))
    for look in (store.refresh, lambda: verify_store(store.folder, repair=True)):
        with pytest.raises(ActionVitError, match="schema 2, expected 1; update actionvit"):
            look()
    assert len(list_parts(store.folder)) == 2


def test_key_json_is_written_anew_from_the_parts(tmp_path: Path) -> None:
    store = fill(tmp_path, range(2))
    (tmp_path / "key.json").unlink()
    assert [problem.file for problem in verify_store(tmp_path, repair=True)] == ["key.json"]
    assert FeatureStore.open(tmp_path).key == FeatureKey(**KEY)
    assert FeatureStore.open(tmp_path).digest() == store.digest()
    check_rows(FeatureStore.open(tmp_path))


def test_big_parts_are_checked_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "CHUNK_BYTES", 2048)
    monkeypatch.setattr("actionvit.features.store.verify.BLOCK_BYTES", 4096)
    store = fill(tmp_path, range(60))
    part = list_parts(tmp_path)[0]
    for number in (3, 31, 59):
        flip(part, part.read_bytes().index(arrays_of(numbered(number).record.digest)["frame"].tobytes()))
    (problem,) = verify_store(tmp_path, repair=True)
    assert problem.ids == ("v003", "v031", "v059")
    store.refresh()
    assert len(store) == 57 and verify_store(tmp_path) == []
    check_rows(store)


def zero(path: Path, name: str) -> None:
    """Make a hole of zeros of a quantity's first chunk; the checksum of zeros is zero, so HDF5 sees nothing."""
    with h5py.File(path) as part:
        chunk = part[name].id.get_chunk_info(0)
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(data)


def test_zeroed_rows_are_not_copied_to_another_store(tmp_path: Path) -> None:
    store, whole = fill(tmp_path / "1", range(4)), fill(tmp_path / "2", range(4, 6))
    zero(list_parts(store.folder)[0], "clip")
    assert not FeatureStore.open(store.folder).read(["v001"], "clip").any(), "reading a quantity does not detect it"
    with pytest.raises(ActionVitError, match=r"1/part-.*'v000' differs from its digest.*--repair"):
        merge_stores([whole, store], tmp_path / "merged")
    assert FeatureStore.open(tmp_path / "merged").ids == ["v004", "v005"]
    check_rows(FeatureStore.open(tmp_path / "merged"))


@pytest.mark.skipif(os.geteuid() == 0, reason="this user may read everything")
def test_a_part_that_may_not_be_read_is_not_called_damaged(tmp_path: Path) -> None:
    fill(tmp_path, range(3))
    (part,) = list_parts(tmp_path)
    part.chmod(0)
    with pytest.raises(ActionVitError, match=f"{part.name}: cannot be read: Permission denied"):
        FeatureStore.open(tmp_path).ids  # noqa: B018 - it is read then


def test_a_part_that_is_a_link_to_nothing_is_damage(tmp_path: Path) -> None:
    fill(tmp_path, range(3))
    (part,) = list_parts(tmp_path)
    part.rename(tmp_path.parent / f"{tmp_path.name}-elsewhere")
    part.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ActionVitError, match=f"{part.name}: damaged .dangling symbolic link"):
        FeatureStore.open(tmp_path).ids  # noqa: B018 - it is read then
    (problem,) = verify_store(tmp_path)
    assert (problem.file, problem.detail, problem.rows) == (part.name, "dangling symbolic link", -1)
    verify_store(tmp_path, repair=True)
    assert verify_store(tmp_path) == [] and FeatureStore.open(tmp_path).ids == []
