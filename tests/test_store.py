"""The feature store: what is published stays right, whatever stops its writer."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from actionvit.cli import cli
from actionvit.errors import ActionVitError
from actionvit.features.files import content_digest, fingerprint
from actionvit.features.keys import FeatureKey
from actionvit.features.parts import list_parts
from actionvit.features.store import FeatureStore, Row
from actionvit.pipeline.caches import damaged_parts, merge

WRITER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_store import make, row
store = make(Path(sys.argv[2]))
with store.writer(flush_seconds=0.01) as writer:
    print("writing", flush=True)
    held = set(store.ids)
    for number in range(600):
        if f"v{number:03}" not in held:
            time.sleep(0.002)  # as if embedded
            writer.append(row(number))
"""


def make(folder: Path, **changes: object) -> FeatureStore:
    key = {"weights": "a", "model": {}, "clip": {"num_frames": 8}, "preprocessing": {}, "decoder": "d"}
    key |= {"precision": "fp32", "outputs": {}, "schema": 1}
    return FeatureStore.create(folder, key=FeatureKey(**(key | changes)), dataset="d", variant="v", info={})  # type: ignore[arg-type]


def row(number: int, path: Path | None = None) -> Row:
    random = np.random.RandomState(number)
    arrays = {"clip": random.rand(1, 16).astype(np.float32), "frame": random.rand(1, 8, 16).astype(np.float32)}
    digest = content_digest(path) if path else f"{number:064x}"
    vouch = fingerprint(path) if path else fingerprint(Path(__file__))
    return Row(path.name if path else f"v{number:03}", digest, vouch, 30, (), "pyav", arrays)


def test_rows_read_back_in_the_order_asked(tmp_path: Path) -> None:
    with make(tmp_path).writer() as writer:
        for number in (2, 0, 1):
            writer.append(row(number))
    store = FeatureStore.open(tmp_path)
    assert store.ids == ["v000", "v001", "v002"]
    found = store.read(["v002", "v000"], "frame")
    np.testing.assert_array_equal(found, [row(2).arrays["frame"], row(0).arrays["frame"]])
    with pytest.raises(ActionVitError, match="1 of 1 videos have no embedding"):
        store.read(["v009"], "clip")


def test_another_key_is_refused_with_the_field_and_both_values(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(ActionVitError, match=r"clip\.num_frames is 8 here and 16 there"):
        make(tmp_path, clip={"num_frames": 16})


def test_content_decides_where_size_and_time_do_not_vouch(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a", "b", "c")]
    for number, path in enumerate(files):
        path.write_bytes(bytes([number]) * 10)
    store = make(tmp_path / "store")
    with store.writer() as writer:
        for number, path in enumerate(files):
            writer.append(row(number, path))
    os.utime(files[0], ns=(1, 1))  # touched
    files[1].write_bytes(b"changed!!!")
    files[2].rename(tmp_path / "renamed")
    plan = store.plan([("a", files[0]), ("b", files[1]), ("renamed", tmp_path / "renamed")])
    assert (plan.known, plan.changed, dict(plan.renamed)) == (("a",), ("b",), {"renamed": "c"})
    with store.writer() as writer:
        writer.adopt(plan)
    np.testing.assert_array_equal(store.read(["renamed"], "clip"), store.read(["c"], "clip"))
    assert store.plan([("a", files[0])]).fingerprints == {}


def test_a_second_writer_is_told_who_holds_the_store(tmp_path: Path) -> None:
    with make(tmp_path).writer():
        code = (
            "import sys\nfrom pathlib import Path\nfrom actionvit.features.store import FeatureStore\n"
            "FeatureStore.open(Path(sys.argv[1])).writer().__enter__()\n"
        )
        other = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert other.returncode != 0 and str(os.getpid()) in other.stderr
    with make(tmp_path).writer() as writer:
        writer.append(row(0))


def test_killed_at_any_moment_it_resumes_to_the_same_store(tmp_path: Path) -> None:
    with make(tmp_path / "whole").writer() as writer:
        for number in range(600):
            writer.append(row(number))
    random = np.random.RandomState(0)
    tests, kills = Path(__file__).parent, 0
    arguments = [sys.executable, "-c", WRITER, tests, tmp_path / "cut"]
    for _ in range(30):
        child = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert child.stdout is not None and child.stderr is not None
        child.stdout.readline()
        time.sleep(random.uniform(0, 0.05))
        child.send_signal(signal.SIGKILL)
        kills += child.wait() == -signal.SIGKILL
        child.stdout.close()
        child.stderr.close()
        for id in FeatureStore.open(tmp_path / "cut").ids:  # every published row is right
            number = int(id[1:])
            np.testing.assert_array_equal(
                FeatureStore.open(tmp_path / "cut").read([id], "clip")[0], row(number).arrays["clip"]
            )
            break
    assert kills >= 25
    subprocess.run(arguments, check=True, capture_output=True)
    assert FeatureStore.open(tmp_path / "cut").digest() == FeatureStore.open(tmp_path / "whole").digest()
    assert not list((tmp_path / "cut").glob(".tmp-*"))


def test_a_flipped_bit_anywhere_in_a_part_is_found_and_repaired(tmp_path: Path) -> None:
    store = make(tmp_path)
    with store.writer() as writer:
        for number in range(3):
            writer.append(row(number))
    part = list_parts(tmp_path)[0]
    whole = part.read_bytes()
    for at in range(0, len(whole), 97):
        part.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert damaged_parts(store) == [part]
    assert CliRunner().invoke(cli, ["cache", "verify", str(tmp_path)]).exit_code == 1
    assert CliRunner().invoke(cli, ["cache", "verify", str(tmp_path), "--repair"]).exit_code == 0
    assert len(FeatureStore.open(tmp_path)) == 0
    part.write_bytes(whole)
    assert CliRunner().invoke(cli, ["cache", "verify", str(tmp_path)]).exit_code == 0


def test_shards_merge_and_other_keys_do_not(tmp_path: Path) -> None:
    for shard in range(2):
        with make(tmp_path / str(shard)).writer() as writer:
            for number in range(shard, 6, 2):
                writer.append(row(number))
    with make(tmp_path / "whole").writer() as writer:
        for number in range(6):
            writer.append(row(number))
    shards = [FeatureStore.open(tmp_path / str(shard)) for shard in range(2)]
    assert merge(shards, tmp_path / "out").digest() == FeatureStore.open(tmp_path / "whole").digest()
    other = make(tmp_path / "other", precision="bf16")
    with pytest.raises(ActionVitError, match='precision is "fp32" here and "bf16" there'):
        merge([shards[0], other], tmp_path / "never")
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize("form", ["npz", "h5"])
def test_export_gives_ids_labels_and_arrays_in_id_order(tmp_path: Path, form: str) -> None:
    for label in ("hop", "run"):
        (tmp_path / "clips" / label).mkdir(parents=True)
        (tmp_path / "clips" / label / f"{label}.avi").touch()
    store = make(tmp_path / "cache" / "d" / "v")
    with store.writer() as writer:
        for number, name in enumerate(("run/run.avi", "hop/hop.avi")):
            plain = row(number)
            writer.append(Row(name, plain.digest, plain.fingerprint, 30, (), "pyav", plain.arrays))
    out = tmp_path / f"all.{form}"
    arguments = ["cache", "export", str(tmp_path / "cache"), "--to", form, "--out", str(out)]
    result = CliRunner().invoke(cli, [*arguments, "--root", str(tmp_path / "clips")])
    assert result.exit_code == 0, result.output
    if form == "npz":
        with np.load(out, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    else:
        with h5py.File(out) as file:
            found = {name: file[name].asstr()[:] if name in ("id", "label") else file[name][:] for name in file}
    assert found["id"].tolist() == ["hop/hop.avi", "run/run.avi"]
    assert found["label"].tolist() == ["hop", "run"]
    np.testing.assert_array_equal(found["clip"][1], row(0).arrays["clip"])


def test_the_lines_of_the_page_read_a_store(tmp_path: Path) -> None:
    store = make(tmp_path)
    with store.writer() as writer:
        for number in range(4):
            writer.append(row(number))
    page = (Path(__file__).resolve().parents[1] / "docs" / "formats.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert found
    names: dict[str, object] = {}
    exec(found[1].replace('"features-cache/jhmdb21/base-f580fcfe8f"', repr(str(tmp_path))), names)
    clips = names["clips"]
    assert isinstance(clips, dict)
    assert sorted(clips) == store.ids
    np.testing.assert_array_equal(clips["v002"], row(2).arrays["clip"])
