"""Identity of a video's bytes: a cheap fingerprint from `stat`, and the digest of the content."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import NamedTuple

from actionvit.features.media import frame_files
from actionvit.features.sampling import Segment


class Fingerprint(NamedTuple):
    """Size in bytes and modification time in ns of a video file.

    For a frame folder: the total size, and a 63-bit hash of every frame's name, size and mtime and of the folder's
    mtime. A single latest mtime would miss a frame replaced by an older file; the folder's mtime catches renames.
    """

    size: int
    mtime_ns: int


NO_FILE = Fingerprint(-1, -1)
"""Fingerprint of a file that does not exist."""


def fingerprint(path: Path) -> Fingerprint:
    """Return the fingerprint of a video file or frame folder. Raises OSError where there is none."""
    status = path.stat()
    if not S_ISDIR(status.st_mode):
        return Fingerprint(status.st_size, status.st_mtime_ns)
    size, digest = 0, hashlib.sha256(b"%d" % status.st_mtime_ns)
    for frame in frame_files(path):
        stat = frame.stat()
        size += stat.st_size
        digest.update(f"{frame.name}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))
    return Fingerprint(size, int.from_bytes(digest.digest()[:8], "big") >> 1)


def content_digest(path: Path) -> str:
    """Return the sha256, in hex, of a video file's bytes, or of a frame folder's names and bytes in natural order.

    Raises
    ------
    OSError
        If a file cannot be read, or is not a regular file: reading a named pipe or a device may never end.
    """
    if not path.is_dir():
        return file_digest(path)
    digest = hashlib.sha256()
    for frame in frame_files(path):
        digest.update(f"{frame.name}\0{frame.stat().st_size}\0".encode("utf-8", "surrogateescape"))
        _update(digest, frame)
    return digest.hexdigest()


def segment_digest(digest: str, segment: Segment) -> str:
    """Return the digest that identifies a segment of the content with `digest`."""
    return hashlib.sha256(f"{digest}\0{segment}\0{segment.unit}".encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Return the sha256 of a regular file's bytes, in hex. Raises OSError."""
    require_file(path)
    _update(digest := hashlib.sha256(), path)
    return digest.hexdigest()


def require_file(path: Path) -> None:
    """Raise OSError if a path is neither a regular file nor a folder: opening a named pipe may wait forever."""
    mode = path.stat().st_mode
    if not (S_ISREG(mode) or S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def _update(digest: hashlib._Hash, path: Path) -> None:
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
