"""A model of a disk after a power cut: writes that were not synced are lost, or partly lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class Disk:
    """Records the file operations of a process below a folder, and builds its possible states after a power cut.

    A file's bytes are safe once the file is synced, a name (made, moved or removed) once its folder is. The power cut
    loses every unsafe change, or (`lucky`) only the bytes: then the names exist, and their files are empty.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir()
        self.root = root
        self.log: list[tuple[str, Path, Any]] = []

    def record(self, patch: pytest.MonkeyPatch) -> None:
        """Log the system calls by which actionvit publishes files; HDF5 works in memory only."""
        names: dict[int, Path] = {}
        opened, written, synced = os.open, os.write, os.fsync
        moved, unlinked, made = Path.replace, Path.unlink, Path.mkdir

        def log(what: str, path: Path, more: Any = None) -> None:
            if self.root in path.parents or path == self.root:
                self.log.append((what, path, more))

        def open_(path: Any, *arguments: Any, **options: Any) -> int:
            handle = opened(path, *arguments, **options)
            names[handle] = Path(path)
            return handle

        def write(handle: int, data: Any) -> int:
            count = written(handle, data)
            if handle in names:
                log("write", names[handle], bytes(data)[:count])
            return count

        def fsync(handle: int) -> None:
            synced(handle)
            log("sync", names[handle])

        def replace(path: Path, to: Any) -> Path:
            result = moved(path, to)
            log("move", path, Path(to))
            return result

        def unlink(path: Path, missing_ok: bool = False) -> None:
            there = path.exists()
            unlinked(path, missing_ok=missing_ok)
            if there:
                log("unlink", path)

        def mkdir(path: Path, *arguments: Any, **options: Any) -> None:
            there = path.exists()
            made(path, *arguments, **options)
            if not there:
                log("mkdir", path)

        calls: list[tuple[Any, str, Callable[..., Any]]] = [(os, "open", open_), (os, "write", write)]
        calls += [(os, "fsync", fsync), (Path, "replace", replace), (Path, "unlink", unlink), (Path, "mkdir", mkdir)]
        for owner, name, call in calls:
            patch.setattr(owner, name, call)

    def cut(self, at: int, to: Path, *, lucky: bool) -> None:
        """Write to `to` the files that remain after a power cut behind the first `at` calls."""
        now: dict[Path, bytearray | None] = {self.root: None}
        safe: dict[Path, bytes | None] = {self.root: None}
        pending: list[tuple[str, Path, Any, Any]] = []
        bytes_safe: dict[int, bytes] = {}  # by the identity of a file, not by its name
        for what, path, more in self.log[:at]:
            if what == "mkdir":
                now[path] = None
                pending.append((what, path, None, None))
            elif what == "write":
                if path not in now:
                    now[path] = bytearray()
                    pending.append(("create", path, None, now[path]))
                now[path].extend(more)  # type: ignore[union-attr]
            elif what == "move":
                now[more] = now.pop(path)
                pending.append((what, path, more, now[more]))
            elif what == "unlink":
                now.pop(path, None)
                pending.append((what, path, None, None))
            elif (content := now.get(path)) is not None:
                bytes_safe[id(content)] = bytes(content)
            else:
                kept = [each for each in pending if each[1].parent != path]
                _apply([each for each in pending if each[1].parent == path], safe)
                pending = kept
        if lucky:
            _apply(pending, safe)
        for path, content in sorted(safe.items(), key=lambda item: len(item[0].parts)):
            place = to / path.relative_to(self.root)
            if not place.parent.exists() and path != self.root:
                continue  # its folder is gone with its content
            if content is None:
                place.mkdir()
            else:
                place.write_bytes(bytes_safe.get(id(content), b""))


def _apply(operations: list[tuple[str, Path, Any, Any]], names: dict[Path, Any]) -> None:
    for what, path, to, content in operations:
        if what == "mkdir":
            names[path] = None
        elif what == "create":
            names[path] = content
        elif what == "move":
            names.pop(path, None)
            names[to] = content
        else:
            names.pop(path, None)
