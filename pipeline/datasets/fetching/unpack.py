"""Unpack archives from outside: nothing may land outside the folder, link out of it, or fill disk or memory."""

from __future__ import annotations

import gzip
import lzma
import os
import re
import shutil
import stat
import subprocess
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from actionvit.errors import ActionVitError
from actionvit.text import printable

_BLOCK = 1 << 18
MAX_DEPTH = 32
"""Folders in the path of a member; deeper ones exceed Python's recursion limit when they are removed."""
MAX_HEADER = 1 << 16
"""Bytes of a tar header with a long name or attributes, which tarfile reads into memory as a whole."""
MAX_HEADERS = 1 << 24
"""Bytes of all such headers of an archive."""


class BadArchiveError(ActionVitError):
    """A file that is not an archive, or is damaged."""


@dataclass(slots=True)
class Budget:
    """Bytes and files that may still be unpacked; shared by an archive and the archives in it."""

    bytes: int
    files: int

    def take(self, size: int, archive: Path) -> None:
        """Count bytes about to be written. Raises ActionVitError if they are too many."""
        self.bytes -= size
        if self.bytes < 0:
            raise ActionVitError(f"`{archive}` unpacks to more than was allowed; not unpacked")

    def take_file(self, archive: Path) -> None:
        """Count a file about to be written. Raises ActionVitError if there are too many."""
        self.files -= 1
        if self.files < 0:
            raise ActionVitError(f"`{archive}` holds more files than were allowed; not unpacked")


def unpack(archive: Path, into: Path, budget: Budget) -> None:
    """Unpack a zip, a tar (plain, gz, bz2, xz) or, with bsdtar, a rar or 7z into a new folder.

    Only folders and plain files are made, without the archive's permissions. The folder is removed again if anything
    is wrong, so that it never holds part of an archive.

    Raises
    ------
    ActionVitError
        If the file is damaged or not an archive; if a name in it is absolute or leads upwards; if it holds links,
        devices or encrypted files; if it is over the budget; or if bsdtar is needed and missing.
    """
    if into.exists():
        raise ValueError(f"into: `{into}` exists, expected a new folder")
    into.mkdir(parents=True)
    try:
        with archive.open("rb") as stream:
            head = stream.read(8)
        if head.startswith((b"Rar!\x1a\x07", b"7z\xbc\xaf\x27\x1c")):
            _unpack_rar(find_bsdtar(str(archive)), archive, into, budget)
        elif zipfile.is_zipfile(archive):
            _unpack_zip(archive, into, budget)
        elif tarfile.is_tarfile(archive):
            with archive.open("rb") as stream:
                _unpack_tar(stream, archive, into, budget)
        else:
            page = " (it is a web page)" if head.lstrip()[:1] == b"<" else ""
            raise BadArchiveError(f"`{archive}` is not a zip, tar, rar or 7z{page}; check where it came from")
    except BaseException:
        shutil.rmtree(into, ignore_errors=True)
        raise


def _target(name: str, archive: Path, into: Path) -> Path:
    """Return where a member may be written; names that would leave the folder are refused."""
    # A backslash separates on Windows, where such archives are made and where they may be unpacked.
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or name.startswith(("/", "\\")) or ".." in parts or re.match("[A-Za-z]:", name) or "\0" in name:
        raise ActionVitError(f"`{archive}` holds `{printable(name)}`, which leads out of the folder; not unpacked")
    if len(parts) > MAX_DEPTH:
        raise ActionVitError(f"`{archive}` holds a path of {len(parts)} folders, expected at most {MAX_DEPTH}")
    return into.joinpath(*parts)


def _write(source: IO[bytes], target: Path, archive: Path, budget: Budget) -> None:
    budget.take_file(archive)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as stream:  # x: an existing file may be another member
        while block := source.read(_BLOCK):
            budget.take(len(block), archive)
            stream.write(block)


def _unpack_zip(archive: Path, into: Path, budget: Budget) -> None:
    with _damage(archive), zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            target = _target(member.filename, archive, into)
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or member.flag_bits & 1:
                what = "encrypted" if member.flag_bits & 1 else "a link or device"
                raise ActionVitError(f"`{archive}`: `{printable(member.filename)}` is {what}; not unpacked")
            if member.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            with opened.open(member) as source:
                _write(source, target, archive, budget)


class _Header(tarfile.TarInfo):
    """A tar header whose long names and attributes are limited before they are read into memory."""

    def _proc_member(self, archive: Any) -> tarfile.TarInfo:
        if self.type in (b"L", b"K", b"x", b"g", b"X"):
            archive.header_bytes = getattr(archive, "header_bytes", 0) + self.size
            if self.size > MAX_HEADER or archive.header_bytes > MAX_HEADERS:
                raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        member: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        return member


def _unpack_tar(stream: IO[bytes], archive: Path, into: Path, budget: Budget, mode: str = "r:*") -> None:
    with _damage(archive), tarfile.open(fileobj=stream, mode=mode, tarinfo=_Header) as opened:  # type: ignore[call-overload]
        while (member := opened.next()) is not None:
            opened.members.clear()  # the list would grow with the archive
            if member.name in (".", "./"):
                continue
            target = _target(member.name, archive, into)
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            if not member.isreg():
                raise ActionVitError(f"`{archive}`: `{printable(member.name)}` is a link or device; not unpacked")
            source = opened.extractfile(member)
            assert source is not None
            _write(source, target, archive, budget)
        while opened.fileobj is not None and opened.fileobj.read(_BLOCK):
            pass  # to the end, where a compressed file keeps its checksum


@contextmanager
def _damage(archive: Path) -> Iterator[None]:
    """Turn the exceptions that a damaged archive raises into one line."""
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, gzip.BadGzipFile) as error:
        raise BadArchiveError(f"`{archive}` is damaged ({error}); remove it and get it again") from error
    except RecursionError as error:
        raise BadArchiveError(f"`{archive}` is damaged (headers in headers); remove it and get it again") from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        name = printable(Path(error.filename or "").name)
        raise ActionVitError(f"`{archive}` holds `{name}` twice; not unpacked") from error
    except (OSError, NotImplementedError) as error:
        raise ActionVitError(f"`{archive}` could not be unpacked: {printable(str(error))}") from error


def find_bsdtar(archive: str) -> str:
    """Return the path of a tar that reads rar: bsdtar, which macOS and Windows call tar.

    Raises
    ------
    ActionVitError
        If there is none, with the remedy.
    """
    if program := shutil.which("bsdtar"):
        return program
    if program := shutil.which("tar"):
        version = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
        if "bsdtar" in version:
            return program
    raise ActionVitError(
        f"`{archive}` needs a program to unpack it, and none is here: install bsdtar (apt install libarchive-tools),"
        " or give a zip or tar of it with from=FILE"
    )


def _unpack_rar(bsdtar: str, archive: Path, into: Path, budget: Budget) -> None:
    """Let bsdtar convert the archive to a tar on its standard output, and unpack that with all checks."""
    command = [bsdtar, "--format", "pax", "-cf", "-", f"@{archive.resolve()}"]
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            try:
                _unpack_tar(process.stdout, archive, into, budget, mode="r|")
                while process.stdout.read(_BLOCK):
                    pass  # else the program fails on a pipe closed too early
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            errors.seek(0)
            last = printable((os.fsdecode(errors.read()).strip().splitlines() or ["no reason given"])[-1])
            name = Path(bsdtar).name
            raise ActionVitError(
                f"`{archive}` could not be unpacked with {name} ({last}); it may be damaged: get it again"
            )
