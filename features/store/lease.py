"""A lock for file systems without `flock`: a file with host, process and a heartbeat."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from actionvit.errors import ActionVitError

LEASE = "lock.lease"
HEARTBEAT_SECONDS = 5.0
"""Interval at which a holder renews its lease."""
EXPIRY_SECONDS = 60.0
"""A lease without a heartbeat for this long, measured by the clock of the process that waits, has expired."""
POLL_SECONDS = 0.2
logger = logging.getLogger(__name__)


class Lease:
    """The lease of a store's folder.

    A lease of a dead process on this machine is taken over at once, one of another machine after `EXPIRY_SECONDS`
    without a heartbeat; clocks of different machines are never compared.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LEASE
        self._token = uuid.uuid4().hex
        self._stop = threading.Event()

    @contextlib.contextmanager
    def held(self, *, wait: bool, busy: str) -> Iterator[None]:
        """Hold the lease. Raises ActionVitError if another process holds it and `wait` is false."""
        self._acquire(wait, busy)
        logger.warning("%s: this file system has no flock; a lease file keeps other writers out", self.path.parent)
        heart = threading.Thread(target=self._beat, daemon=True)
        heart.start()
        try:
            yield
        finally:
            self._stop.set()
            heart.join()
            with contextlib.suppress(OSError):
                if self._is_ours():
                    self.path.unlink()

    def _acquire(self, wait: bool, busy: str) -> None:
        last, since = b"", time.monotonic()
        while not self._create():
            now = self._read()
            if now != last:
                last, since = now, time.monotonic()
            if now and (_is_dead(now) or time.monotonic() - since > EXPIRY_SECONDS):
                self._take_away(now)
                continue
            if not wait:
                host, pid = _holder(now)
                raise ActionVitError(
                    f"{self.path.parent}: process {pid} on {host} {busy}; if that process is dead, use wait=True: "
                    f"its lease expires after {EXPIRY_SECONDS:.0f} s"
                )
            time.sleep(POLL_SECONDS)

    def _create(self) -> bool:
        try:
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            return False
        except OSError as error:
            raise ActionVitError(f"{self.path}: cannot be written: {error.strerror}; choose another cache=") from error
        try:
            os.write(handle, self._text(0))
        except OSError as error:
            self.path.unlink()
            raise ActionVitError(f"{self.path}: cannot be written: {error.strerror}; free some space") from error
        finally:
            os.close(handle)
        return True

    def _text(self, beat: int) -> bytes:
        return json.dumps(
            {"host": socket.gethostname(), "pid": os.getpid(), "token": self._token, "beat": beat}
        ).encode()

    def _beat(self) -> None:
        beat = 0
        while not self._stop.wait(HEARTBEAT_SECONDS):
            beat += 1
            with contextlib.suppress(OSError):
                if not self._is_ours():
                    logger.error("%s: another writer took this lease; stop this process", self.path)
                    return
                with self.path.open("r+b", buffering=0) as file:  # never shorter: a reader must not find it empty
                    file.write(self._text(beat))

    def _is_ours(self) -> bool:
        return self._token.encode() in self._read()

    def _read(self) -> bytes:
        with contextlib.suppress(OSError):
            return self.path.read_bytes()
        return b""

    def _take_away(self, expired: bytes) -> None:
        """Remove an expired lease; if another process has replaced it meanwhile, put that one back."""
        aside = self.path.with_name(f"{LEASE}.{self._token}")
        with contextlib.suppress(FileNotFoundError):
            self.path.rename(aside)
            if aside.read_bytes() != expired:
                with contextlib.suppress(FileExistsError):
                    os.link(aside, self.path)
            aside.unlink()


def _holder(text: bytes) -> tuple[str, str]:
    try:
        value = json.loads(text)
        return str(value["host"]), str(value["pid"])
    except (ValueError, KeyError, TypeError):
        return "?", "?"


def _is_dead(text: bytes) -> bool:
    """Return whether the holder was a process of this machine that no longer runs."""
    host, pid = _holder(text)
    if host != socket.gethostname() or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
