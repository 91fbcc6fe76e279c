"""One writer at a time: a lock that the kernel drops when its process dies."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from actionvit.errors import ActionVitError

LOCK = "lock"
POLL_SECONDS = 0.2
logger = logging.getLogger(__name__)
STORE_BUSY = "is writing this store; --wait for it, or write another part of the dataset with --shard"


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = False, busy: str = STORE_BUSY) -> Iterator[None]:
    """Hold the writer's lock of a folder; `busy` completes the error "FOLDER: process PID on HOST ...".

    The lock is `flock` on the file `lock`, so it dies with its process, however that ends; the text in the file only
    tells others who holds it. Across machines it works where the file system carries `flock` over the network (NFSv4,
    Lustre with `-o flock`); where it does not, let each machine write its own shard.

    Raises
    ------
    ActionVitError
        If another process holds it and `wait` is false, or the folder cannot be written.
    """
    path = folder / LOCK
    handle = _acquire(path, wait, busy)
    try:
        with contextlib.suppress(OSError):  # on a full disk the lock holds all the same, only namelessly
            text = f"{socket.gethostname()} {os.getpid()}"
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{text} {_check(text)}\n".encode(), 0)
        yield
    finally:
        os.close(handle)  # which releases the lock; the file stays, as removing it would race with the next writer


def _acquire(path: Path, wait: bool, busy: str) -> int:
    announced = False
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise ActionVitError(
                f"{path.parent}: cannot be written: {error.strerror}; choose another --cache"
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(handle, path):
                return handle
            os.close(handle)  # the store was deleted meanwhile, and this lock with it
            continue
        except OSError as error:
            os.close(handle)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise ActionVitError(
                    f"{path.parent}: this file system has no locks ({error.strerror}); write on a local disk and "
                    f"`actionvit cache merge` the result here"
                ) from error
        host, pid = holder(path) or ("?", "?")
        if not wait:
            raise ActionVitError(f"{path.parent}: process {pid} on {host} {busy}")
        if not announced:
            logger.warning("waiting for process %s on %s to finish writing %s", pid, host, path.parent)
            announced = True
        time.sleep(POLL_SECONDS)


def _is_at(handle: int, path: Path) -> bool:
    """Return whether an open file still is the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def holder(path: Path) -> tuple[str, str] | None:
    """Return host and process of the last holder of a lock file, or None where it does not tell."""
    text, _, check = _text(path).rpartition(" ")
    host, _, pid = text.partition(" ")
    return (host, pid) if text and check == _check(text) else None


def is_as_written(path: Path) -> bool:
    """Return whether a lock file holds what its last holder wrote, or nothing."""
    return not path.exists() or not path.stat().st_size or holder(path) is not None


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        text = path.read_text(encoding="utf-8", errors="replace")
        return text[:-1] if text.endswith("\n") else ""
    return ""


def _check(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
