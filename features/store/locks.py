"""One writer at a time: a lock that ends with its process, also on file systems without `flock`."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from actionvit.errors import ActionVitError
from actionvit.features.atomic import make_folder
from actionvit.features.store.lease import Lease

LOCK = "lock"
POLL_SECONDS = 0.2
NO_FLOCK = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
logger = logging.getLogger(__name__)
STORE_BUSY = "is writing this store; wait for it with wait=True, or write another part of the dataset with shard="


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = False, busy: str = STORE_BUSY) -> Iterator[None]:
    """Hold the writer's lock of a folder; `busy` completes the error "FOLDER: process PID on HOST ...".

    The lock is `flock` on the file `lock`, which the kernel releases when the process ends; the text in the file only
    names the holder. Where two handles in this process can both take it, or the file system has no locks, a lease takes
    its place: a file with host, process and a heartbeat. A file system whose `flock` is local to each machine cannot be
    recognized from one machine; there each machine must write a shard of its own.

    Raises
    ------
    ActionVitError
        If another process holds the lock and `wait` is false, or the folder cannot be written.
    """
    path = folder / LOCK
    handle, works = _acquire(path, wait, busy)
    try:
        with contextlib.ExitStack() as stack:
            if not works:
                stack.enter_context(Lease(folder).held(wait=wait, busy=busy))
            with contextlib.suppress(OSError):  # on a full disk the lock holds all the same, without a name
                text = f"{socket.gethostname()} {os.getpid()}"
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"{text} {_check(text)}\n".encode(), 0)
            yield
    finally:
        os.close(handle)  # which releases the lock; the file stays, as removing it would race with the next writer


@contextlib.contextmanager
def locked_folder(folder: Path, *, wait: bool = False, busy: str) -> Iterator[None]:
    """Make a folder and hold its lock; at the end remove both, if the folder holds no more.

    Raises
    ------
    ActionVitError
        As for `locked`, or if the folder cannot be made.
    """
    with contextlib.ExitStack() as stack:
        while True:
            try:
                make_folder(folder)
                stack.enter_context(locked(folder, wait=wait, busy=busy))
                break
            except ActionVitError as error:
                blocked = os.path.lexists(folder) and not folder.is_dir()
                if blocked or not isinstance(error.__cause__, (FileNotFoundError, FileExistsError)):
                    raise  # otherwise the last holder removed the folder meanwhile
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # not empty: work to be resumed, or the lock of the next holder
                (folder / LOCK).unlink()
                folder.rmdir()


def _acquire(path: Path, wait: bool, busy: str) -> tuple[int, bool]:
    """Return an open lock file, and whether `flock` on it keeps others out."""
    announced = False
    while True:
        handle = _open(path)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(handle, path):
                return handle, _excludes(path)
            os.close(handle)  # the store was deleted meanwhile, and this lock with it
            continue
        except OSError as error:
            if error.errno in NO_FLOCK:
                return handle, False
            os.close(handle)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise ActionVitError(f"{path}: cannot be locked: {error.strerror}; check the disk") from error
        host, pid = holder(path) or ("?", "?")
        if not wait:
            raise ActionVitError(f"{path.parent}: process {pid} on {host} {busy}")
        if not announced:
            logger.warning("waiting for process %s on %s to finish writing %s", pid, host, path.parent)
            announced = True
        time.sleep(POLL_SECONDS)


def _open(path: Path) -> int:
    """Open the lock file, or make it; never through a symbolic link, whose target another user may have chosen."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    while True:
        try:
            handle = os.open(path, flags)
        except FileNotFoundError:
            try:
                handle = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
            except FileExistsError:  # another process made it first
                continue
            except OSError as error:
                raise _not_writable(path, error) from error
        except OSError as error:
            raise _not_writable(path, error) from error
        if stat.S_ISREG(os.fstat(handle).st_mode):
            return handle
        os.close(handle)
        raise ActionVitError(f"{path}: not a regular file; remove it, the next writer creates it again")


def _not_writable(path: Path, error: OSError) -> ActionVitError:
    if error.errno == errno.ELOOP:
        return ActionVitError(f"{path}: is a symbolic link; remove it, the next writer creates the file again")
    return ActionVitError(
        f"{path.parent}: cannot be written: {error.strerror}; make it writable, or choose another place"
    )


def _excludes(path: Path) -> bool:
    """Return whether a second handle is kept out: some network file systems grant every `flock`."""
    second = _open(path)
    try:
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(second)


def _is_at(handle: int, path: Path) -> bool:
    """Return whether an open file still is the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def holder(path: Path) -> tuple[str, str] | None:
    """Return host and process of the last holder of a lock file, or None if it does not name one."""
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
