"""Atomic, durable writes: after a crash or a power cut a file is there complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

from actionvit.errors import ActionVitError

TEMPORARY_PREFIX = ".tmp-"
OLD_PREFIX = ".old-"
"""Of a folder while it is replaced."""


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
    temporary = _aside(path, TEMPORARY_PREFIX)
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
        raise _not_written(path, error) from error


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; then sync all of it and put it in the place of `path`.

    After an exception the temporary folder is removed and `path` is unchanged. Leftovers of an earlier, killed
    attempt are removed first; see `restore_folder`.

    Raises
    ------
    ActionVitError
        If the disk is full or fails, or the parent folder is read-only.
    """
    restore_folder(path)
    make_folder(path.parent)
    temporary, old = _aside(path, TEMPORARY_PREFIX), _aside(path, OLD_PREFIX)
    try:
        try:
            temporary.mkdir()
            yield temporary
            for folder, _, files in os.walk(temporary, topdown=False):
                for name in files:
                    sync(Path(folder, name))
                sync(Path(folder))
            if path.exists():
                path.rename(old)
            temporary.rename(path)
            sync(path.parent)
        except BaseException:
            if not temporary.exists() and path.exists():
                path.rename(temporary)  # its name is not durable, so it must not count as written
            if old.exists() and not path.exists():
                old.rename(path)
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    except OSError as error:
        raise _not_written(path, error) from error
    shutil.rmtree(old, ignore_errors=True)


def restore_folder(path: Path) -> None:
    """Clean up after processes of this machine that were killed while they replaced `path`.

    If the old folder was moved aside and not replaced, it gets its name back; other leftovers are removed.
    """
    for prefix in (OLD_PREFIX, TEMPORARY_PREFIX):
        for leftover, name in _leftovers(path.parent, prefix):
            if name == path.name:
                with contextlib.suppress(OSError):
                    _restore_or_remove(leftover, path)


def restore_folders(parent: Path) -> None:
    """Call `restore_folder` for each folder that was being replaced directly below `parent`."""
    for _, name in _leftovers(parent, OLD_PREFIX):
        restore_folder(parent / name)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders that killed processes of this machine left in a folder."""
    for leftover, _ in _leftovers(folder, TEMPORARY_PREFIX):
        with contextlib.suppress(OSError):
            _remove(leftover)


def _leftovers(parent: Path, prefix: str) -> list[tuple[Path, str]]:
    """Return the hidden entries of ended processes of this machine in a folder, each with the name it stood for."""
    pattern = re.compile(rf"{re.escape(prefix + _host())}-(\d+)-(.+)")
    try:
        entries = [(entry, pattern.fullmatch(entry.name)) for entry in parent.iterdir()]
    except OSError:
        return []
    return [(entry, match[2]) for entry, match in entries if match and not _is_running(int(match[1]))]


def _restore_or_remove(leftover: Path, path: Path) -> None:
    if leftover.name.startswith(OLD_PREFIX) and not path.exists():
        leftover.rename(path)
    else:
        _remove(leftover)


def _remove(leftover: Path) -> None:
    if leftover.is_dir() and not leftover.is_symlink():
        shutil.rmtree(leftover, ignore_errors=True)
    else:
        leftover.unlink()


def _aside(path: Path, prefix: str) -> Path:
    """Return a hidden name beside `path` with host and pid: two machines may share the folder and use equal pids."""
    return path.with_name(f"{prefix}{_host()}-{os.getpid()}-{path.name}")


def _host() -> str:
    return re.sub(r"[^\w.]", "_", socket.gethostname())[:32] or "host"


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _not_written(path: Path, error: OSError) -> ActionVitError:
    return ActionVitError(
        f"{path}: cannot be written: {error.strerror or error}; earlier results are intact; fix this and run again"
    )


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
