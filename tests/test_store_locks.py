"""The writer's lock: never through a symbolic link; a lease takes its place where `flock` does nothing."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from fake_store import environment

from actionvit.errors import ActionVitError
from actionvit.features.store import lease
from actionvit.features.store.lease import LEASE
from actionvit.features.store.locks import LOCK, locked

WITHOUT_FLOCK = """
import fcntl, sys
from pathlib import Path
fcntl.flock = lambda *_: None
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


def test_second_writer_is_refused_without_flock(tmp_path: Path, no_flock: None) -> None:
    command = [sys.executable, "-c", WITHOUT_FLOCK, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment(), **pipes) as child:
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
