"""One writer, any number of readers, and shards that are joined: in real processes, at once."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from fake_store import arrays_of, check_rows, embed, environment, failed, fill, make
from forked_commands import ForkedCommands
from numpy.typing import NDArray
from small_extraction import draw, extract, extraction, rows_of, store_in, undisturbed

from actionvit.cli import cli
from actionvit.errors import ActionVitError
from actionvit.features.fingerprint import Fingerprint
from actionvit.features.store.catalog import in_shard
from actionvit.features.store.export import export_store
from actionvit.features.store.index import Index
from actionvit.features.store.locks import LOCK, locked
from actionvit.features.store.merge import merge_stores
from actionvit.features.store.parts import list_parts
from actionvit.features.store.prune import delete
from actionvit.features.store.speed import Speed, add_speed, read_speed
from actionvit.features.store.store import FeatureStore
from actionvit.features.store.verify import verify_store
from actionvit.features.store.writer import Writer
from actionvit.pipeline.experiments.sharding import assign_shards

Clips = tuple[Path, dict[str, bytes]]

HOLDER = """
import sys
from pathlib import Path
from actionvit.features.store.locks import locked
with locked(Path(sys.argv[1])):
    print("holds", flush=True)
    sys.stdin.read()
"""

WRITER = """
import sys
from pathlib import Path
from fake_store import make, numbered
from actionvit.features.store.writer import Writer
folder, first, last = sys.argv[1:]
with Writer(make(Path(folder)), wait=True, flush_seconds=0) as out:
    for number in range(int(first), int(last)):
        out.append(numbered(number))
"""

READER = """
import json, sys, time
from pathlib import Path
from actionvit.features.store.store import FeatureStore
cache, looks, held = Path(sys.argv[1]), [], {}
print("reads", flush=True)
while True:
    last = (cache / "stop").exists()
    for key in cache.glob("*/*/key.json"):
        store, rows = FeatureStore.open(key.parent), {}
        for row in store.iter_rows(store.ids):
            rows[row.id] = b"".join(row.arrays[name].tobytes() for name in sorted(row.arrays)).hex()
        assert held.items() <= rows.items(), f"rows went or changed: {sorted(held.keys() - rows.keys())}"
        held = rows
        looks.append(len(rows))
    if last:
        break
    time.sleep(0.02)  # else it keeps a core from the two that it watches
print(json.dumps({"looks": looks, "rows": held}))
"""


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    return undisturbed(tmp_path_factory.mktemp("undisturbed"))


def process(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )


@contextlib.contextmanager
def held(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The lock, by another process."""
    with process(HOLDER, folder) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "holds\n"
        yield holder
        holder.kill()


def started(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())


def embedded(output: str) -> int:
    return sum(outcome["embedded"] for outcome in json.loads(output)["outcomes"])


# writers


def test_second_writer_gets_the_holder_and_a_dead_one_is_free(tmp_path: Path) -> None:
    fill(tmp_path, range(3))
    with held(tmp_path) as holder:
        with pytest.raises(
            ActionVitError, match=rf"process {holder.pid} on {os.uname().nodename} .*wait=True"
        ) as caught:
            Writer(make(tmp_path)).__enter__()
        assert "\n" not in str(caught.value)
        assert verify_store(tmp_path) == [], "readers need no lock"
    store = fill(tmp_path, (7,))
    assert "v007" in store.ids
    check_rows(store)


def test_extract_fails_or_waits_for_another_writer(tmp_path: Path) -> None:
    root, cache = draw(tmp_path / "clips", 2), tmp_path / "cache"
    assert extract(root, cache).exit_code == 0
    draw(root, 3)
    with held(store_in(cache).folder) as holder:
        with started(*extraction(root, cache, "--wait")) as waiting:
            refused = subprocess.run(extraction(root, cache), capture_output=True, text=True, check=False)
            (line,) = [
                line
                for line in refused.stderr.splitlines()
                if not line.startswith("note:") and ": read as " not in line
            ]
            assert refused.returncode == 1 and line.startswith("error: ")
            assert (
                f"process {holder.pid} on {os.uname().nodename} is writing this store; wait for it with --wait" in line
            )
            assert waiting.stderr is not None
            while "waiting for process" not in (message := waiting.stderr.readline()):
                assert message, "it did not wait"
            assert f"process {holder.pid} on {os.uname().nodename}" in message
            assert waiting.poll() is None
            holder.send_signal(signal.SIGKILL)
            waiting.communicate()
        assert waiting.returncode == 0
    assert extract(root, tmp_path / "whole").exit_code == 0
    assert rows_of(store_in(cache)) == rows_of(store_in(tmp_path / "whole"))


def test_concurrent_extractions_embed_nothing_twice(forked: ForkedCommands, tmp_path: Path, clips: Clips) -> None:
    root, whole = clips
    with process(READER, tmp_path) as reader:
        assert reader.stdout is not None and reader.stdout.readline() == "reads\n"
        command = extraction(root, tmp_path, "--wait", "--json")[3:]
        first, second = map(forked.wait, [forked.start(command) for _ in range(2)])
        outputs = [first.stdout, second.stdout]
        (tmp_path / "stop").touch()
        found, errors = reader.communicate()
    assert (first.returncode, second.returncode, reader.returncode) == (0, 0, 0), errors
    assert sorted(map(embedded, outputs)) == [0, len(whole)]
    seen = json.loads(found)
    assert {id: bytes.fromhex(row) for id, row in seen["rows"].items()} == whole
    assert len(set(seen["looks"])) > 2, "it read while the other wrote"


def test_two_writers_get_their_turn_while_others_read_and_verify(tmp_path: Path) -> None:
    store = make(tmp_path)
    with process(WRITER, tmp_path, 0, 60) as first, process(WRITER, tmp_path, 60, 120) as second:
        count = 0
        while first.poll() is None or second.poll() is None:
            time.sleep(0.02)
            reader = FeatureStore.open(tmp_path)
            check_rows(reader)
            assert len(reader) >= count, "rows went missing while parts were merged"
            count = len(reader)
            assert verify_store(tmp_path) == [], "a part that is being replaced is not damage"
    assert first.returncode == second.returncode == 0
    store.refresh()
    check_rows(store)
    assert store.digest() == fill(tmp_path / "whole", range(120)).digest()


def test_a_lock_that_went_with_its_store_is_worth_nothing(tmp_path: Path) -> None:
    store = fill(tmp_path / "store", range(1))
    taken = threading.Event()

    def wait_for_it() -> None:
        with locked(store.folder, wait=True):
            taken.set()

    waiting = threading.Thread(target=wait_for_it)
    with contextlib.ExitStack() as second:
        with locked(store.folder):
            waiting.start()
            time.sleep(0.3)
            shutil.rmtree(store.folder)  # as `cache prune` does, with the lock
            store.folder.mkdir()
            second.enter_context(locked(store.folder))
        time.sleep(0.6)
        assert not taken.is_set(), "two writers hold one store"
    waiting.join(5)
    assert taken.is_set()


def test_a_store_that_is_written_cannot_be_deleted(tmp_path: Path) -> None:
    store = fill(tmp_path, range(2))
    with held(tmp_path), pytest.raises(ActionVitError, match="is writing this store"):
        delete(store)
    check_rows(FeatureStore.open(tmp_path))
    delete(store)
    assert not tmp_path.exists()


# readers


@pytest.fixture
def replaced_in_midst(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    """A store of which a row is replaced between a reader's first array and its second."""
    store = fill(tmp_path / "store", range(3))
    plain, other = Index.read, tmp_path / "other"
    other.write_bytes(b"another video")

    def read(index: Index, rows: NDArray[np.int64], name: str) -> NDArray[Any]:
        found = plain(index, rows, name)
        if other.exists():
            row = embed("v001", other)
            other.unlink()
            with Writer(FeatureStore.open(store.folder)) as out:
                out.append(row)
        return found

    monkeypatch.setattr(Index, "read", read)
    return store


def test_all_of_a_row_is_of_one_video(replaced_in_midst: FeatureStore) -> None:
    rows = {row.id: row for row in replaced_in_midst.iter_rows(["v000", "v001", "v002"])}
    for row in rows.values():
        for name, expected in arrays_of(row.record.digest).items():
            np.testing.assert_array_equal(row.arrays[name], expected)


@pytest.mark.parametrize("form", ["npz", "h5", "parquet"])
def test_an_export_holds_one_state_or_is_none(replaced_in_midst: FeatureStore, tmp_path: Path, form: Any) -> None:
    with pytest.raises(ActionVitError, match="changed while"):
        export_store(replaced_in_midst, tmp_path / "all", form, columns={"label": {}})
    assert not (tmp_path / "all").exists() and not list(tmp_path.glob(".tmp-*"))
    assert len(export_store(replaced_in_midst, tmp_path / "all", form, columns={"label": {}})) == 3


# shards


def test_shards_of_real_processes_join_to_the_store_of_one(
    forked: ForkedCommands, tmp_path: Path, clips: Clips
) -> None:
    root, whole = clips
    cut = tmp_path / "cut"
    started = [forked.start(extraction(root, cut, "--shard", f"{number}/2")[3:]) for number in (1, 2)]
    assert [forked.wait(each).returncode for each in started] == [0, 0]
    shards = sorted(path.parent for path in (tmp_path / "cut").glob("*/*/key.json"))
    assert [folder.suffix for folder in shards] == [".shard-1-of-2", ".shard-2-of-2"]
    sizes = [len(FeatureStore.open(folder)) for folder in shards]
    assert sum(sizes) == len(whole) and min(sizes) > 0
    result = CliRunner().invoke(cli, ["cache", "merge", *map(str, shards), "--json"])
    merged = json.loads(result.stdout)
    assert (merged["rows"], merged["lacking"]) == (len(whole), [])
    assert rows_of(FeatureStore.open(Path(merged["store"]))) == whole
    assert extract(root, tmp_path / "one").exit_code == 0
    one = store_in(tmp_path / "one")
    assert merged["digest"] == one.digest() and Path(merged["store"]).name == one.folder.name
    again = json.loads(extract(root, tmp_path / "cut", "--json").stdout)
    assert again["outcomes"][0]["cached"] == len(whole), "the merged store is the one that an extraction finds"


@pytest.mark.parametrize("shards", [1, 2, 5, 13])
def test_any_number_of_shards_joins_to_the_same_digest(tmp_path: Path, shards: int) -> None:
    whole = fill(tmp_path / "whole", range(40))
    with Writer(whole) as out:
        out.add_failure(failed("bad", "corrupt", "bad header"))
    stores = []
    for number in range(1, shards + 1):
        mine = [at for at in range(40) if in_shard(f"v{at:03}", (number, shards))]
        stores.append(fill(tmp_path / f"{number}", mine))
    with Writer(stores[-1]) as out:
        out.add_failure(failed("bad", "corrupt", "bad header"))
    merged = merge_stores(stores[::-1], tmp_path / "merged")
    assert merged.digest() == whole.digest() and merged.failures() == whole.failures()
    check_rows(merged)
    assert merge_stores(stores, tmp_path / "merged").digest() == whole.digest(), "again, it changes nothing"
    assert {path.name for path in (tmp_path / "merged").iterdir()} >= {"key.json", LOCK, "failures.csv"}


def test_what_a_damaged_shard_cannot_lend_is_embedded(tmp_path: Path, clips: Clips) -> None:
    root, whole = clips
    assert extract(root, tmp_path, "--shard", "1/2").exit_code == 0
    shard = store_in(tmp_path)
    with h5py.File(list_parts(shard.folder)[0]) as part:
        chunk = part["clip"].id.get_chunk_info(0)
    data = bytearray(list_parts(shard.folder)[0].read_bytes())
    data[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)  # zeros, whose checksum is zero
    list_parts(shard.folder)[0].write_bytes(data)
    outcome = json.loads(extract(root, tmp_path, "--json").stdout)["outcomes"][0]
    assert outcome["reused"] + outcome["embedded"] == len(whole) and outcome["embedded"] > len(whole) - len(shard)
    assert rows_of(FeatureStore.open(Path(outcome["store"]))) == whole


def test_repeated_merge_changes_nothing(tmp_path: Path) -> None:
    """A shard's failure log may be older than the row: the video was repaired and embedded into the joined store."""
    shards = [fill(tmp_path / "1", (0, 2)), fill(tmp_path / "2", (1, 3))]
    add_speed(shards[0].folder, Speed(videos=3, seconds=1.0, device="cpu"))
    with Writer(shards[0]) as out:
        out.add_failure(failed("v004", "corrupt", "bad header", fingerprint=Fingerprint(9, 9)))
    merged = merge_stores(shards, tmp_path / "merged")
    assert [failure.id for failure in merged.failures()] == ["v004"]
    fill(tmp_path / "merged", (4,))
    for stores in (shards, [*shards, FeatureStore.open(tmp_path / "merged")]):
        merged = merge_stores(stores, tmp_path / "merged")
        merged.refresh()
        assert merged.ids == ["v000", "v001", "v002", "v003", "v004"] and merged.failures() == []
        assert len(read_speed(merged.folder)) == 1


def test_an_experiment_on_shards_cuts_them_as_extract_does() -> None:
    ids = [f"clap/{number}.avi" for number in range(50)]
    hashed = assign_shards(ids, np.zeros(50, np.intp), shards=4, how="hashed")
    assert [in_shard(id, (int(shard) + 1, 4)) for id, shard in zip(ids, hashed, strict=True)] == [True] * 50
    assert set(hashed.tolist()) == {0, 1, 2, 3}


def test_other_shard_counts_reuse_rows(tmp_path: Path, clips: Clips) -> None:
    root, whole = clips
    assert extract(root, tmp_path, "--shard", "1/2").exit_code == 0
    held = len(store_in(tmp_path))
    outcome = json.loads(extract(root, tmp_path, "--json").stdout)["outcomes"][0]
    assert (outcome["reused"], outcome["embedded"]) == (held, len(whole) - held)
    assert rows_of(FeatureStore.open(Path(outcome["store"]))) == whole
