"""Whatever stops a writer or damages a file: published rows stay right, and what is not is said."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from storing import arrays_of, check_rows, fill, make, numbered

from actionvit.errors import ActionVitError
from actionvit.features import durable
from actionvit.features.store.parts import list_parts
from actionvit.features.store.store import FeatureStore
from actionvit.features.store.verify import verify

TESTS = Path(__file__).parent


def crash(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(TESTS / "crashing.py"), str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize(
    ("arguments", "least"),
    [
        (["--every", "5", "--random", "8"], 28),
        (["--command", "--every", "2", "--random", "3"], 30),
        pytest.param(["--every", "1", "--random", "60"], 160, marks=pytest.mark.slow),
        pytest.param(["--command", "--every", "1", "--random", "20"], 75, marks=pytest.mark.slow),
    ],
)
def test_killed_at_any_boundary_it_resumes_to_the_same_store(tmp_path: Path, arguments: list[str], least: int) -> None:
    done = crash(tmp_path / "crash", *arguments)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["kills"] >= least


@pytest.mark.parametrize(("wrong", "said"), [("rows", "is not its video's"), ("bytes", "damaged")])
def test_a_writer_that_is_wrong_on_purpose_is_caught_by_that(tmp_path: Path, wrong: str, said: str) -> None:
    done = crash(tmp_path / "crash", "--every", "20", "--wrong", wrong)
    assert done.returncode != 0 and said in done.stderr


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_disk_that_fails_is_one_line_and_costs_nothing_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    store = fill(tmp_path, range(3))

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(ActionVitError, match=os.strerror(number)) as caught, store.writer() as out:
        out.append(numbered(3))
        monkeypatch.setattr(durable.os, call, fail)
    monkeypatch.undo()
    assert "\n" not in str(caught.value)
    assert FeatureStore.open(tmp_path).ids == ["v000", "v001", "v002"] and verify(tmp_path) == []
    assert fill(tmp_path, (3,)).digest() == fill(tmp_path.with_name("whole"), range(4)).digest()
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_folder_that_vanished_is_one_line(tmp_path: Path) -> None:
    store = fill(tmp_path / "store", range(2))
    with pytest.raises(ActionVitError, match="cannot be written"), store.writer() as out:
        out.append(numbered(2))
        (tmp_path / "store").rename(tmp_path / "away")
    assert len(FeatureStore.open(tmp_path / "away")) == 2


def test_bytes_are_safe_before_they_have_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    for name in ("write", "fsync", "replace"):
        plain = getattr(os, name)
        monkeypatch.setattr(durable.os, name, lambda *a, name=name, plain=plain: (log.append(name), plain(*a))[1])
    durable.publish(tmp_path / "file", b"x")
    assert log == ["write", "fsync", "replace", "fsync"]


def test_a_flipped_bit_anywhere_is_found_and_only_what_it_hit_is_dropped(tmp_path: Path) -> None:
    store = fill(tmp_path, range(6))
    part = list_parts(tmp_path)[0]
    whole, rows = part.read_bytes(), {id: store.read([id], "frame")[0].tobytes() for id in store.ids}
    random, lost = np.random.RandomState(0), 0
    for at in range(0, len(whole), max(1, len(whole) // 150)):
        part.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << random.randint(8)]) + whole[at + 1 :])
        assert [problem.file for problem in verify(tmp_path)] == [part.name], at
        verify(tmp_path, repair=True)
        assert verify(tmp_path) == []
        left = FeatureStore.open(tmp_path)
        assert {id: left.read([id], "frame")[0].tobytes() for id in left.ids}.items() <= rows.items()
        lost += len(rows) - len(left)
        for path in list_parts(tmp_path):
            path.unlink()
    assert lost > 0


def test_damage_to_one_row_costs_that_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actionvit.features.store.parts.CHUNK_BYTES", 1)  # a row a chunk
    fill(tmp_path, range(6))
    part = list_parts(tmp_path)[0]
    at = part.read_bytes().index(arrays_of(numbered(4).digest)["frame"].tobytes())
    data = bytearray(part.read_bytes())
    data[at + 5] ^= 4
    part.write_bytes(data)
    with pytest.raises(ActionVitError, match=r"damaged .*--repair"):
        FeatureStore.open(tmp_path).read(["v004"], "frame")
    problem = verify(tmp_path, repair=True)[0]
    assert (problem.ids, problem.rows) == (("v004",), 1)
    left = FeatureStore.open(tmp_path)
    assert left.ids == ["v000", "v001", "v002", "v003", "v005"]
    check_rows(left)


def test_a_lost_row_does_not_bring_back_the_one_before(tmp_path: Path) -> None:
    fill(tmp_path, (1, 2))
    fill(tmp_path, (1,))
    list_parts(tmp_path)[1].write_bytes(list_parts(tmp_path)[1].read_bytes()[:-1] + b"\xff")
    verify(tmp_path, repair=True)
    assert verify(tmp_path) == [] and FeatureStore.open(tmp_path).ids in (["v002"], ["v001", "v002"])


@pytest.mark.parametrize("name", ["key.json", "failures.csv", "seen.csv"])
def test_a_flipped_bit_in_a_small_file_is_found(tmp_path: Path, name: str) -> None:
    video = tmp_path / "v000"
    video.write_bytes(b"x")
    store = make(tmp_path / "store", weights="b")
    from storing import embed

    with store.writer() as out:
        out.append(embed("v000", video))
        out.fail("bad", "corrupt", "says so", "pyav", 3)
    os.utime(video, ns=(1, 1))
    with store.writer() as out:
        out.adopt(store.plan([("v000", video)]))
    path = tmp_path / "store" / name
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        assert [problem.file for problem in verify(tmp_path / "store")] == [name], at
    verify(tmp_path / "store", repair=True)
    assert verify(tmp_path / "store") == [] and FeatureStore.open(tmp_path / "store").ids == ["v000"]


HOLD = """
import sys
from pathlib import Path
from storing import make, numbered
with make(Path(sys.argv[1])).writer(wait=len(sys.argv) > 4, flush_seconds=0) as out:
    print("holds", flush=True)
    for number in range(int(sys.argv[2]), int(sys.argv[3])):
        out.append(numbered(number))
    if len(sys.argv) <= 4:
        sys.stdin.read()
"""


def start(*arguments: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", HOLD, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def test_a_second_writer_is_told_who_writes_and_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    with start(tmp_path, 0, 3) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "holds\n"
        with pytest.raises(ActionVitError, match=rf"process {holder.pid} on {os.uname().nodename} .*--wait"):
            make(tmp_path).writer().__enter__()
        holder.kill()
    store = fill(tmp_path, (7,))
    assert "v007" in store.ids


def test_two_writers_that_wait_both_get_their_turn_and_readers_see_whole_rows(tmp_path: Path) -> None:
    store = make(tmp_path)
    with start(tmp_path, 0, 60, "wait") as first, start(tmp_path, 60, 120, "wait") as second:
        held = 0
        while first.poll() is None or second.poll() is None:
            reader = FeatureStore.open(tmp_path)
            check_rows(reader)
            assert len(reader) >= held, "rows went missing while parts were merged"
            held = len(reader)
    assert first.returncode == second.returncode == 0
    store.refresh()
    assert store.digest() == fill(tmp_path / "whole", range(120)).digest()
