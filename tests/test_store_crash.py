"""A writer stopped in any way: published rows stay right, little is done twice, and the finished store is the same."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from disk_model import Disk
from fake_store import TESTS, check_rows, environment, failed, fill, make, numbered
from forked_commands import ForkedCommands
from small_extraction import draw, extract, extraction, rows_of, store_in, undisturbed

from actionvit.errors import ActionVitError
from actionvit.features import atomic
from actionvit.features.atomic import atomic_path, remove_stale_temporaries
from actionvit.features.store import writer
from actionvit.features.store.parts import list_parts
from actionvit.features.store.store import FeatureStore
from actionvit.features.store.verify import verify_store
from actionvit.features.store.writer import Writer


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    return undisturbed(tmp_path_factory.mktemp("undisturbed"))


# kills

SLOW = (pytest.mark.slow, pytest.mark.timeout(3600))


@pytest.mark.parametrize(
    ("arguments", "least"),
    [
        (["--every", "7", "--random", "4"], 18),
        # By default, kills of the whole command are tested by the test of repeated kills.
        pytest.param(["--command", "--every", "6", "--random", "1"], 10, marks=SLOW),
        pytest.param(["--command", "--every", "2", "--random", "3"], 30, marks=SLOW),
        pytest.param(["--every", "1", "--random", "60"], 150, marks=SLOW),
        pytest.param(["--command", "--every", "1", "--random", "150"], 200, marks=SLOW),
    ],
)
def test_killed_at_any_boundary_it_resumes_to_the_same_store(in_memory: Path, arguments: list[str], least: int) -> None:
    command = [sys.executable, str(TESTS / "kill_harness.py"), str(in_memory / "crash"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["kills"] >= least


def test_repeated_kills_end_at_the_same_store(
    forked: ForkedCommands, tmp_path: Path, clips: tuple[Path, dict[str, bytes]]
) -> None:
    root, whole = clips
    held: dict[str, bytes] = {}
    for wanted in (1, 5, 9):
        process = forked.start(extraction(root, tmp_path)[3:])
        deadline = time.monotonic() + 60
        while _rows_in(tmp_path) < wanted and time.monotonic() < deadline:
            time.sleep(0.001)
        os.kill(process, signal.SIGKILL)
        ended = forked.wait(process)
        assert ended.returncode == -signal.SIGKILL, f"it ended before it was killed: {ended.stderr}"
        store = store_in(tmp_path)
        assert verify_store(store.folder) == []
        now = rows_of(store)
        assert held.items() <= now.items() <= whole.items(), "published rows were lost or changed"
        held = now
    outcome = json.loads(extract(root, tmp_path, "--json").stdout)["outcomes"][0]
    assert (outcome["embedded"], outcome["cached"]) == (18 - len(held), len(held))
    assert rows_of(store_in(tmp_path)) == whole
    assert not list(tmp_path.rglob(".tmp-*"))


def _rows_in(cache: Path) -> int:
    try:
        return len(store_in(cache))
    except (ActionVitError, StopIteration):  # it is being made
        return 0


def test_what_a_kill_can_cost_is_bounded_by_time_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(writer.time, "monotonic", lambda: clock[0])
    store = make(tmp_path)

    def published() -> list[str]:
        return FeatureStore.open(tmp_path).ids

    with Writer(store, flush_seconds=5) as out:
        for clock[0], number in ((1.0, 0), (4.9, 1)):
            out.append(numbered(number))
        assert published() == []
        clock[0] = 5.0
        out.append(numbered(2))
        assert len(published()) == 3
        clock[0] = 14.0  # slower than that: each row at once, else its work would wait for the next one's
        out.append(numbered(3))
        assert len(published()) == 4
    row_bytes = writer.RECORD_BYTES + sum(array.nbytes for array in numbered(0).arrays.values())
    with Writer(store, flush_seconds=999, flush_bytes=3 * row_bytes) as out:
        for number in range(4, 9):
            out.append(numbered(number))
        assert len(published()) == 7
    check_rows(FeatureStore.open(tmp_path))


def test_the_command_passes_its_bounds_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, float] = {}
    plain = Writer.__init__
    monkeypatch.setattr(
        Writer, "__init__", lambda self, store, **how: settings.update(how) or plain(self, store, **how)
    )
    extract(draw(tmp_path / "clips", 1), tmp_path / "cache", "--flush-seconds", 7, "--flush-mib", 0.5)
    assert settings == {"wait": False, "flush_seconds": 7.0, "flush_bytes": 1 << 19}


def test_what_was_appended_before_an_exception_is_published(tmp_path: Path) -> None:
    store = make(tmp_path)
    with pytest.raises(KeyboardInterrupt), Writer(store, flush_seconds=999) as out:
        out.append(numbered(0))
        raise KeyboardInterrupt
    assert store.ids == ["v000"]
    check_rows(store)


# disks


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_failing_disk_is_one_line_and_keeps_published_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    store = fill(tmp_path / "store", range(3))

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(ActionVitError, match=os.strerror(number)) as caught, Writer(store) as out:
        out.append(numbered(3))
        monkeypatch.setattr(Path if call == "replace" else atomic.os, call, fail)
    monkeypatch.undo()
    assert "\n" not in str(caught.value)
    left = FeatureStore.open(tmp_path / "store")
    assert left.ids == ["v000", "v001", "v002"] and verify_store(left.folder) == []
    assert fill(left.folder, (3,)).digest() == fill(tmp_path / "whole", range(4)).digest()
    check_rows(FeatureStore.open(left.folder))
    assert not list(left.folder.glob(".tmp-*"))


def test_a_disk_that_syncs_no_folders_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fsync

    def unsupported(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        sync(handle)

    monkeypatch.setattr(atomic.os, "fsync", unsupported)
    check_rows(fill(tmp_path / "a" / "b", range(2)))


MOUNTED = ["unshare", "--map-root-user", "--mount", sys.executable, str(TESTS / "full_disk.py")]


@pytest.mark.parametrize("what", ["full", "read-only"])
def test_a_real_disk_that_is(what: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [*MOUNTED, what, str(tmp_path)], capture_output=True, text=True, check=False, env=environment()
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"no file system may be mounted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr


def test_vanished_folder_is_one_line_error(tmp_path: Path, clips: tuple[Path, dict[str, bytes]]) -> None:
    root, whole = clips
    cache, away = tmp_path / "cache", tmp_path / "away"
    with subprocess.Popen(extraction(root, cache), stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not _rows_in(cache):
            time.sleep(0.001)
        process.send_signal(signal.SIGSTOP)  # or a quick machine is done before the folder is gone
        cache.rename(away)
        process.send_signal(signal.SIGCONT)
        _, message = process.communicate()
    errors = [line for line in message.splitlines() if not line.startswith("note:") and ": read as " not in line]
    assert process.returncode == 1 and len(errors) == 1 and errors[0].startswith("error: "), message
    assert "cannot be" in errors[0] and "No such file" in errors[0]
    store = store_in(away)
    assert 1 <= len(store) < 18 and verify_store(store.folder) == []
    assert rows_of(store).items() <= whole.items()
    assert extract(root, away).exit_code == 0
    assert rows_of(store_in(away)) == whole


# power cuts


def cut_the_power_everywhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a store, then check every state that a power cut after any of the calls may leave."""
    monkeypatch.setattr(writer, "MANY_PARTS", 3)  # so that parts are merged, and a superseded row is removed
    disk, place = Disk(folder / "disk"), folder / "disk" / "d" / "store"
    promised: list[tuple[int, set[str]]] = []
    with monkeypatch.context() as patch:
        disk.record(patch)
        with Writer(make(place), flush_seconds=0) as out:
            for number in range(5):
                out.append(numbered(number))
                promised.append((len(disk.log), {f"v{at:03}" for at in range(number + 1)}))
        again = len(disk.log)
        with Writer(FeatureStore.open(place)) as out:
            out.append(numbered(2))
            out.add_failure(failed("bad", "corrupt", "bad header"))
    promised.append((len(disk.log), promised[-1][1]))
    check_rows(FeatureStore.open(place))
    for at in range(len(disk.log) + 1):
        wanted = set().union(*(ids for moment, ids in promised if moment <= at))
        if again < at < len(disk.log):
            wanted -= {"v002"}  # which is being replaced
        for lucky in (False, True):
            left = folder / f"cut-{at}-{lucky}"
            disk.cut(at, left, lucky=lucky)
            found = left / "d" / "store"
            if not (found / "key.json").exists():
                assert not wanted, f"power cut at {at}: the store is gone"
                continue
            assert verify_store(found) == [], f"power cut at {at}"
            store = FeatureStore.open(found)
            assert wanted <= set(store.ids), f"power cut at {at}: published rows are gone"
            check_rows(store)
            shutil.rmtree(left)
    assert len(disk.log) > 50


def test_after_a_power_cut_every_published_row_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_the_power_everywhere(tmp_path, monkeypatch)


@pytest.mark.parametrize("unsynced", ["files", "folders", "new folders"])
def test_that_test_fails_where_one_sync_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unsynced: str
) -> None:
    sync = atomic.sync

    def forgetful(path: Path) -> None:
        kind = "files" if path.is_file() else "folders" if path.name == "store" else "new folders"
        if kind != unsynced:
            sync(path)

    monkeypatch.setattr(atomic, "sync", forgetful)
    with pytest.raises((AssertionError, ActionVitError), match=r"power cut at|damaged"):
        cut_the_power_everywhere(tmp_path, monkeypatch)


def test_a_published_file_that_fails_half_way_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "file") as temporary:
        temporary.write_text("new")
        raise ZeroDivisionError
    assert (tmp_path / "file").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    store = fill(tmp_path, range(2))
    for path in (tmp_path / ".tmp-1-part", tmp_path / ".tmp-2-key.json"):
        path.write_bytes(b"half")
    assert verify_store(tmp_path) == [] and len(store) == 2, "readers pass them over"
    check_rows(make(tmp_path))
    assert not list(tmp_path.glob(".tmp-*"))
    (tmp_path / ".tmp-3-part").write_bytes(b"half")
    remove_stale_temporaries(tmp_path)
    assert len(list_parts(tmp_path)) == 1
