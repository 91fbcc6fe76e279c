"""One writer at a time: a lock that the kernel drops when its process dies."""

from __future__ import annotations

import contextlib
import errno
import fcntl
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


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the writer's lock of a store's folder.

    The lock is `flock` on the file `lock`, so it dies with its process, however that ends; the text in the file only
    tells others who holds it. Across machines it works where the file system carries `flock` over the network (NFSv4,
    Lustre with `-o flock`); where it does not, let each machine write its own shard.

    Raises
    ------
    ActionVitError
        If another process holds it and `wait` is false, or the folder cannot be written.
    """
    path = folder / LOCK
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise ActionVitError(f"{folder}: cannot be written: {error.strerror}; choose another --cache") from error
    try:
        _acquire(handle, path, wait)
        with contextlib.suppress(OSError):  # on a full disk the lock holds all the same, only namelessly
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{socket.gethostname()} {os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)  # which releases the lock; the file stays, as removing it would race with the next writer


def _acquire(handle: int, path: Path, wait: bool) -> None:
    announced = False
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise ActionVitError(
                    f"{path.parent}: this file system has no locks ({error.strerror}); write on a local disk and "
                    f"`actionvit cache merge` the result here"
                ) from error
        host, _, pid = holder(path).partition(" ")
        if not wait:
            raise ActionVitError(
                f"{path.parent}: process {pid or '?'} on {host or '?'} is writing this store; --wait for it, or write "
                f"another part of the dataset with --shard"
            )
        if not announced:
            logger.warning("waiting for process %s on %s to finish writing %s", pid or "?", host or "?", path.parent)
            announced = True
        time.sleep(POLL_SECONDS)


def holder(path: Path) -> str:
    """Return `host pid` as the last holder of the lock file wrote it."""
    return path.read_text(encoding="utf-8", errors="replace").strip()
