"""The writer's lock: never through a symbolic link; a lease takes its place where `flock` does nothing."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from fake_store import environment, fill, make

from actionvit.errors import ActionVitError
from actionvit.features.store import lease
from actionvit.features.store.lease import LEASE
from actionvit.features.store.locks import LOCK, locked
from actionvit.features.store.store import FeatureStore

HOLDER = """
import sys
from pathlib import Path
from actionvit.features.store.locks import locked
with locked(Path(sys.argv[1])):
    print("holds", flush=True)
    sys.stdin.read()
"""


def test_lock_is_not_opened_through_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / LOCK).symlink_to(victim)
    with pytest.raises(ActionVitError, match="is a symbolic link; remove it"), locked(tmp_path / "store"):
        pass
    assert victim.read_text() == "precious"


def test_lock_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / LOCK)
    with pytest.raises(ActionVitError, match="not a regular file"), locked(tmp_path):
        pass


@pytest.fixture(params=["does nothing", "not supported"])
def no_flock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: Any) -> None:
        if request.param == "not supported":
            raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.fixture(params=["", "-DERROR=ENOLCK"])
def preload(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The environment of processes for which no file system has a working `flock`."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("needs Linux and a C compiler")
    library = tmp_path / "no_flock.so"
    flags = ["-shared", "-fPIC", *request.param.split()]
    source = Path(__file__).parent / "support" / "no_flock.c"
    subprocess.run([compiler, *flags, "-o", str(library), str(source)], check=True)
    return environment(LD_PRELOAD=str(library))


def test_writers_and_merge_work_where_flock_does_not(tmp_path: Path, preload: dict[str, str]) -> None:
    shards = [fill(tmp_path / f"v.shard-{number}-of-2", [number]).folder for number in (1, 2)]
    merged = make(tmp_path / "v").folder
    merge = [sys.executable, "-m", "actionvit", "cache", "merge", *map(str, shards)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(merged)], env=preload, **pipes) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"holds\n"
        second = subprocess.run(merge, env=preload, capture_output=True, text=True)
        assert second.returncode == 1 and f"process {holder.pid} on " in second.stderr and "--wait" in second.stderr
        holder.kill()
    assert (merged / LEASE).exists()  # of a process that no longer runs
    done = subprocess.run(merge, env=preload, capture_output=True, text=True)
    assert done.returncode == 0 and "2 rows" in done.stdout, done.stderr
    assert FeatureStore.open(merged).ids == ["v001", "v002"] and not list(merged.glob(f"{LEASE}*"))


def test_lease_of_a_dead_process_is_taken_over(tmp_path: Path, no_flock: None, preload: dict[str, str]) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=preload, **pipes) as child:
        assert child.stdout is not None and child.stdout.readline() == b"holds\n"
        with pytest.raises(ActionVitError, match=f"process {child.pid} on .* is writing"), locked(tmp_path):
            pass
        child.kill()
    with locked(tmp_path):  # the holder died on this machine
        assert json.loads((tmp_path / LEASE).read_text())["pid"] == os.getpid()
    assert not list(tmp_path.glob(f"{LEASE}*"))


def test_lease_of_another_machine_expires_without_heartbeat(
    tmp_path: Path, no_flock: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "EXPIRY_SECONDS", 0.5)
    text = json.dumps({"host": "elsewhere", "pid": 1, "token": "t", "beat": 3})
    (tmp_path / LEASE).write_text(text)
    with pytest.raises(ActionVitError, match="process 1 on elsewhere is writing"), locked(tmp_path):
        pass
    assert (tmp_path / LEASE).read_text() == text
    with locked(tmp_path, wait=True):
        assert json.loads((tmp_path / LEASE).read_text())["host"] == socket.gethostname()


def test_lease_with_heartbeat_is_respected(tmp_path: Path, no_flock: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "EXPIRY_SECONDS", 1.0)
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.1)
    order, entered = [], threading.Event()

    def second() -> None:
        entered.wait()
        with locked(tmp_path, wait=True):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with locked(tmp_path):
        beat = json.loads((tmp_path / LEASE).read_text())["beat"]
        entered.set()
        threading.Event().wait(2.5)
        assert order == [] and json.loads((tmp_path / LEASE).read_text())["beat"] > beat
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
