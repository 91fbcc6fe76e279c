"""The feature store: rows written and read back, and its open format."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from fake_store import KEY, arrays_of, check_rows, failed, fill, make, numbered

from actionvit.errors import ActionVitError
from actionvit.features.fingerprint import fingerprint
from actionvit.features.store import writer
from actionvit.features.store.export import export_store
from actionvit.features.store.keys import FeatureKey
from actionvit.features.store.parts import Row, list_parts
from actionvit.features.store.store import FeatureStore
from actionvit.features.store.verify import verify_store
from actionvit.features.store.writer import Writer
from actionvit.features.video_record import VideoRecord

# keys


@pytest.mark.parametrize("field", KEY)
def test_every_field_of_the_key_makes_another_store(field: str, tmp_path: Path) -> None:
    make(tmp_path)
    other: Any = {"other": 1} if isinstance(KEY[field], dict) else 2 if field == "schema" else "other"
    with pytest.raises(ActionVitError, match=rf"another key: {field}"):
        make(tmp_path, **{field: other})


def test_another_key_is_refused_with_the_field_and_both_values(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(ActionVitError, match=r"clip\.num_frames is 8 in the store and 16 requested") as caught:
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
    info = store.records(["v001"])[0]
    assert (info.count, info.backend, info.flags, info.digest) == (30, "pyav", (), numbered(1).record.digest)
    with pytest.raises(ActionVitError, match=r"1 of 2 videos have no embedding here \('v009' .* `actionvit extract`"):
        store.read(["v001", "v009"], "clip")
    with pytest.raises(ActionVitError, match=r"no quantity 'tokens'.*clip, frame, index"):
        store.read(["v001"], "tokens")


def test_names_may_hold_anything_a_file_name_may(tmp_path: Path) -> None:
    names = ["a b/ü#!(1).avi", "\udcff.avi", '日本/x,"y".avi', "z\n.avi"]
    with Writer(make(tmp_path)) as out:
        for name in names:
            out.append(Row(VideoRecord(name, "0" * 64, fingerprint(Path(__file__)), 1, (), ""), arrays_of("0" * 64)))
            out.add_failure(failed(name + "?", "corrupt", 'two\nlines, "quoted"'))
    store = FeatureStore.open(tmp_path)
    assert set(store.ids) == set(names) and verify_store(tmp_path) == []
    assert store.read(names, "clip").shape == (4, 1, 16)
    assert len(store.failures()) == 4


def test_rows_are_all_alike(tmp_path: Path) -> None:
    store = fill(tmp_path, range(2))
    odd = numbered(3)
    for arrays in ({"clip": odd.arrays["clip"]}, odd.arrays | {"clip": odd.arrays["clip"].astype(np.float64)}):
        with pytest.raises(ValueError, match=r"row v003: got clip float(32|64)"), Writer(store) as out:
            out.append(Row(VideoRecord("v003", odd.record.digest, odd.record.fingerprint, 1, (), ""), arrays))
    with pytest.raises(ValueError, match="64 hex digits"):
        Row(VideoRecord("x", "name.avi", odd.record.fingerprint, 1, (), ""), odd.arrays)


def test_a_row_is_what_it_was_when_it_was_appended(tmp_path: Path) -> None:
    with Writer(make(tmp_path)) as out:
        row = numbered(0)
        out.append(row)
        row.arrays["clip"][:] = 0  # the encoder uses its buffer again
    check_rows(FeatureStore.open(tmp_path))


def test_slow_writing_leaves_few_parts_and_the_same_rows(tmp_path: Path) -> None:
    whole = fill(tmp_path / "whole", range(100))
    store = make(tmp_path / "slow")
    with Writer(store, flush_seconds=0) as out:
        for number in range(100):
            out.append(numbered(number))
    assert len(list_parts(tmp_path / "slow")) <= writer.MANY_PARTS
    assert store.digest() == whole.digest() and verify_store(tmp_path / "slow") == []
    check_rows(store)


def test_the_last_row_of_a_video_is_the_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = fill(tmp_path, range(3))
    monkeypatch.setattr(writer, "MANY_PARTS", 3)
    for digest in ("1" * 64, "2" * 64, "3" * 64, "4" * 64):
        with Writer(store) as out:
            out.append(Row(VideoRecord("v001", digest, fingerprint(Path(__file__)), 1, (), ""), arrays_of(digest)))
        assert store.records(["v001"])[0].digest == digest
        check_rows(store)
    assert len(store) == 3 and len(list_parts(tmp_path)) < 3
    fresh = make(tmp_path / "fresh")
    with Writer(fresh) as out:
        for row in store.iter_rows(store.ids):
            out.append(row)
    assert fresh.digest() == store.digest()


# the format


def code_of_the_page() -> list[str]:
    page = (Path(__file__).resolve().parents[1] / "docs" / "reference" / "cache-format.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", page, re.DOTALL)


def test_the_lines_of_the_page_read_a_store(tmp_path: Path) -> None:
    store = fill(tmp_path, range(4))
    fill(tmp_path, (1, 5))
    store.refresh()
    code, _ = code_of_the_page()
    assert len(code.strip().splitlines()) <= 10
    process = "import sys, json\n" + code.replace("features-cache/hmdb51/base-f580fcfe8f", str(tmp_path))
    process += "\nassert not any(name.startswith('actionvit') for name in sys.modules)"
    process += "\nprint(json.dumps({id: clip.tolist() for id, clip in clips.items()}))"
    found = json.loads(
        subprocess.run([sys.executable, "-c", process], check=True, capture_output=True, text=True).stdout
    )
    assert sorted(found) == store.ids
    for id, clip in found.items():
        np.testing.assert_array_equal(np.array(clip, np.float32), numbered(int(id[1:])).arrays["clip"])


def test_the_lines_of_the_page_read_an_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    store = fill(tmp_path / "store", (2, 0, 1))
    for form in ("npz", "h5", "parquet"):
        labels = {id: f"class of {id}" for id in store.ids}
        export_store(store, tmp_path / f"all.{form}", form, columns={"label": labels})
    _, code = code_of_the_page()
    monkeypatch.chdir(tmp_path)
    wanted = np.stack([numbered(number).arrays["clip"] for number in range(3)])
    head, *blocks = code.split("\n\n")
    assert len(blocks) == 3
    for block in blocks:
        names: dict[str, Any] = {}
        exec(head + "\n" + block, names)
        np.testing.assert_array_equal(names["clip"], wanted)
        if "labels" in names:
            assert list(names["labels"]) == ["class of v000", "class of v001", "class of v002"]


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
        "import sys, actionvit.features.store.verify, actionvit.features.store.merge\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
