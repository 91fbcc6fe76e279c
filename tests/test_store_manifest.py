"""Missing, foreign, renamed and duplicate parts are detected; a disk error is not damage; repair deletes nothing."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest
from fake_store import check_rows, fill

from actionvit.errors import ActionVitError
from actionvit.features.store.manifest import MANIFEST, read_manifest
from actionvit.features.store.parts import list_parts
from actionvit.features.store.repair import QUARANTINE
from actionvit.features.store.store import FeatureStore
from actionvit.features.store.verify import verify_store
from actionvit.features.store.writer import Writer


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """A store of three parts with two rows each."""
    for first in (0, 2, 4):
        fill(tmp_path, (first, first + 1))
    return list_parts(tmp_path)


def details(folder: Path) -> dict[str, str]:
    return {problem.file: problem.detail for problem in verify_store(folder)}


def test_manifest_lists_each_part_with_its_rows(tmp_path: Path, parts: list[Path]) -> None:
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    assert (dict(manifest.parts), manifest.changing) == ({part.name: 2 for part in parts}, frozenset())


def test_missing_part_is_reported_with_its_rows(
    tmp_path: Path, parts: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    parts[1].unlink()
    (problem,) = verify_store(tmp_path)
    assert (problem.file, problem.rows) == (parts[1].name, 2) and "missing" in problem.detail
    store = FeatureStore.open(tmp_path)
    assert len(store) == 4 and "1 of its part files, with 2 rows, are missing" in caplog.text
    assert len(store.warnings()) == 1
    fill(tmp_path, (2, 3))
    assert verify_store(tmp_path) == [] and len(FeatureStore.open(tmp_path)) == 6


@pytest.mark.parametrize("sequence", ["00000000", "00000009"])
def test_copied_part_is_reported_and_moved_aside(tmp_path: Path, parts: list[Path], sequence: str) -> None:
    copy = parts[1].with_name(parts[1].name.replace("00000001", sequence))
    shutil.copy(parts[1], copy)
    assert details(tmp_path) == {copy.name: "a duplicate of another part"}
    verify_store(tmp_path, repair=True)
    assert list_parts(tmp_path) == parts and (tmp_path / QUARANTINE / copy.name).is_file()
    assert verify_store(tmp_path) == []


def test_renamed_part_gets_its_name_back(tmp_path: Path, parts: list[Path]) -> None:
    moved = parts[0].with_name(parts[0].name.replace("00000000", "00000007"))
    parts[0].rename(moved)
    assert details(tmp_path) == {moved.name: f"renamed from {parts[0].name}"}
    verify_store(tmp_path, repair=True)
    assert list_parts(tmp_path) == parts and verify_store(tmp_path) == []


def test_part_of_an_equal_key_from_elsewhere_is_reported(tmp_path: Path, parts: list[Path]) -> None:
    (foreign,) = list_parts(fill(tmp_path / "elsewhere", (7,)).folder)
    copy = tmp_path / foreign.name.replace("00000000", "00000005")
    shutil.copy(foreign, copy)
    assert "no writer added it" in details(tmp_path)[copy.name]


def test_damaged_manifest_is_written_anew(tmp_path: Path, parts: list[Path]) -> None:
    (tmp_path / MANIFEST).write_text((tmp_path / MANIFEST).read_text().replace(": 2", ": 3", 1))
    assert list(details(tmp_path)) == [MANIFEST]
    verify_store(tmp_path, repair=True)
    assert verify_store(tmp_path) == [] and list_parts(tmp_path) == parts


def test_store_without_a_manifest_gets_one(tmp_path: Path, parts: list[Path]) -> None:
    (tmp_path / MANIFEST).unlink()
    assert verify_store(tmp_path) == [] and FeatureStore.open(tmp_path).warnings() == []
    with Writer(FeatureStore.open(tmp_path)):
        pass
    manifest = read_manifest(tmp_path)
    assert manifest is not None and len(manifest.parts) == 3


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOMEM])
def test_read_errors_are_no_damage(
    tmp_path: Path, parts: list[Path], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    plain = Path.read_bytes

    def failing(path: Path) -> bytes:
        if path == parts[1]:
            raise OSError(number, "injected")
        return plain(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    with pytest.raises(ActionVitError, match=f"{parts[1].name}: cannot be read: injected"):
        verify_store(tmp_path, repair=True)
    monkeypatch.undo()
    assert list_parts(tmp_path) == parts and verify_store(tmp_path) == []


def test_repair_moves_damaged_parts_aside(tmp_path: Path, parts: list[Path]) -> None:
    data = bytearray(parts[2].read_bytes())
    data[-1] ^= 1
    parts[2].write_bytes(data)
    assert verify_store(tmp_path, repair=True)
    assert (tmp_path / QUARANTINE / parts[2].name).read_bytes() == data
    store = FeatureStore.open(tmp_path)
    assert verify_store(tmp_path) == [] and len(store) == 6
    check_rows(store)
