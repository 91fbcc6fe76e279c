"""Atomic, durable writes: after a crash or a power cut a file is there complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from actionvit.errors import ActionVitError

TEMPORARY_PREFIX = ".tmp-"


def atomic_write(path: Path, data: bytes) -> None:
    """Write `data` to a temporary file, fsync, rename to `path`, fsync the folder. Raises like `atomic_path`."""
    with atomic_path(path) as temporary:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]
        finally:
            os.close(handle)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; then sync it and rename it to `path`, or remove it after an exception.

    Raises
    ------
    ActionVitError
        If the disk is full or fails, or the folder is missing or read-only; `path` is then unchanged.
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{path.name}")
    try:
        try:
            yield temporary
            sync(temporary)
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        sync(path.parent)
    except OSError as error:
        raise ActionVitError(
            f"{path}: cannot be written: {error.strerror or error}; what was published before is safe: mend that and "
            f"run again"
        ) from error


def sync(path: Path) -> None:
    """Fsync a file's bytes, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():  # not every file system can
            raise
    finally:
        os.close(handle)


def make_folder(path: Path) -> None:
    """Make a folder and its missing parents, and fsync each name: a power cut must not lose the folder's content.

    Raises
    ------
    ActionVitError
        If the folder cannot be made.
    """
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.is_dir()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in reversed(missing):
            sync(folder.parent)
    except OSError as error:
        raise ActionVitError(f"{path}: cannot be made: {error.strerror}; choose another place") from error


def remove(paths: Iterable[Path]) -> None:
    """Remove files durably; missing ones are ignored. Raises ActionVitError if the folder is not writable."""
    folders = set()
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise ActionVitError(f"{path}: cannot be removed: {error.strerror}; make its folder writable") from error
        folders.add(path.parent)
    for folder in folders:
        with contextlib.suppress(OSError):  # if a power cut restores the file, the next writer removes it
            sync(folder)


def remove_stale_temporaries(folder: Path) -> None:
    """Remove temporary files of killed writers. Only the holder of the folder's lock may call this."""
    remove(folder.glob(f"{TEMPORARY_PREFIX}*"))
