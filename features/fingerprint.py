"""What a video's bytes are: a cheap fingerprint that vouches for them, and the digest that decides."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from stat import S_ISDIR
from typing import NamedTuple

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})


class Fingerprint(NamedTuple):
    """A file's size in bytes and modification time in ns.

    Of a frame folder the sum of the frames' sizes and, in place of a time, 63 bits of a digest of their names, sizes
    and times, for a frame put in another's place may be older, and of the folder's own time: renamed frames, which may
    change places, change that alone.
    """

    size: int
    mtime_ns: int


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts `img_2` before `img_10`; runs of digits compare as numbers."""
    parts = re.split(r"([0-9]+)", name)  # at odd places the digits
    return tuple((1, int(part), part) if at % 2 else (0, 0, part) for at, part in enumerate(parts))


def frame_files(folder: Path) -> list[Path]:
    """Return the images of a frame folder in natural order; hidden files, and what is no file, are left out."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name[0] != "." and _is_image(entry)]
    return [folder / name for name in sorted(names, key=natural_key)]


def _is_image(entry: os.DirEntry[str]) -> bool:
    return os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES and entry.is_file()  # noqa: PTH122 - much cheaper


def fingerprint(path: Path) -> Fingerprint:
    """Return what `stat` knows of a video file or frame folder. Raises OSError where there is none."""
    own = path.stat()
    if not S_ISDIR(own.st_mode):
        return Fingerprint(own.st_size, own.st_mtime_ns)
    size, digest = 0, hashlib.sha256(b"%d" % own.st_mtime_ns)
    for frame in frame_files(path):
        stat = frame.stat()
        size += stat.st_size
        digest.update(f"{frame.name}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))
    return Fingerprint(size, int.from_bytes(digest.digest()[:8], "big") >> 1)


def content_digest(path: Path) -> str:
    """Return the sha256 of a video file's bytes, or of a frame folder's names and bytes in natural order."""
    digest = hashlib.sha256()
    for part in frame_files(path) if path.is_dir() else [path]:
        if part is not path:
            digest.update(f"{part.name}\0{part.stat().st_size}\0".encode("utf-8", "surrogateescape"))
        with part.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
