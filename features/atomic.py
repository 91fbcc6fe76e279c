"""Files that are there whole or not at all, whatever stops the process or the machine."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from actionvit.errors import ActionVitError

TEMPORARY = ".tmp-"


def publish(path: Path, data: bytes) -> None:
    """Write `data` to a temporary file, fsync, rename to `path`, fsync the folder. Raises like `publishing`."""
    with publishing(path) as temporary:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]
        finally:
            os.close(handle)


@contextlib.contextmanager
def publishing(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; at the end it is synced and renamed to `path`, after an exception removed.

    Raises
    ------
    ActionVitError
        If the disk is full or fails, or the folder is gone or read-only; `path` is then as it was.
    """
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        try:
            yield temporary
            _sync(temporary)
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        _sync(path.parent)
    except OSError as error:
        raise ActionVitError(
            f"{path}: cannot be written: {error.strerror or error}; what was published before is safe: mend that and "
            f"run again"
        ) from error


def _sync(path: Path) -> None:
    """Make a file's bytes, or a folder's names, survive a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():  # some disks sync no folders
            raise
    finally:
        os.close(handle)


def make_folder(path: Path) -> None:
    """Make a folder and what is missing above it, each name synced: else a power cut could take all that is in it.

    Raises
    ------
    ActionVitError
        If it cannot be made.
    """
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.is_dir()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in reversed(missing):
            _sync(folder.parent)
    except OSError as error:
        raise ActionVitError(f"{path}: cannot be made: {error.strerror}; choose another place") from error


def remove(paths: Iterable[Path]) -> None:
    """Unlink files for good; those already gone are fine. Raises ActionVitError if the folder forbids it."""
    folders = set()
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise ActionVitError(f"{path}: cannot be removed: {error.strerror}; make its folder writable") from error
        folders.add(path.parent)
    for folder in folders:
        with contextlib.suppress(OSError):  # what a power cut brings back is removed again by the next writer
            _sync(folder)


def sweep(folder: Path) -> None:
    """Remove the temporary files that a killed writer left; only the holder of the folder's lock may."""
    remove(folder.glob(f"{TEMPORARY}*"))


def file_digest(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
