"""Files that are there whole or not at all, whatever stops the process or the machine."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from actionvit.errors import ActionVitError

TEMPORARY = ".tmp-"


def publish(path: Path, data: bytes) -> None:
    """Write `data` to a temporary file, fsync, rename to `path`, fsync the folder.

    Raises
    ------
    ActionVitError
        If the disk is full or fails, or the folder is gone or read-only; `path` is then as it was.
    """
    temporary = path.parent / f"{TEMPORARY}{os.getpid()}-{path.name}"
    try:
        try:
            _write(temporary, data)
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise ActionVitError(
            f"{path}: cannot be written: {error.strerror}; what was published before is safe: mend that and run again"
        ) from error


def _write(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Make renames and removals in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(paths: Iterable[Path]) -> None:
    """Unlink files; those already gone are fine. Raises ActionVitError if the folder forbids it."""
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise ActionVitError(f"{path}: cannot be removed: {error.strerror}; make its folder writable") from error


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
