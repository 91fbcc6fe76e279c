"""Archives from outside, unpacked so that nothing can land outside the folder, link out of it, or fill the disk."""

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
from typing import IO, NamedTuple

from actionvit.errors import ActionVitError
from actionvit.text import printable

_BLOCK = 1 << 18


class BadArchiveError(ActionVitError):
    """A file that is no archive, or a damaged one: keeping it is no use."""


class _Program(NamedTuple):
    """How a program lists and unpacks an archive; `{archive}` and `{into}` are filled in."""

    list: tuple[str, ...]
    unpack: tuple[str, ...]
    member: str
    """Pattern of a listed line that names a member."""


_UNRAR = _Program(("lb", "-p-", "--", "{archive}"), ("x", "-o-", "-p-", "-inul", "--", "{archive}", "{into}/"), "(.+)")
_7ZIP = _Program(
    ("l", "-slt", "-ba", "-p", "--", "{archive}"), ("x", "-y", "-p", "-o{into}", "--", "{archive}"), "Path = (.+)"
)
_PROGRAMS = {"unrar": _UNRAR, "7zz": _7ZIP, "7z": _7ZIP}


@dataclass(slots=True)
class Budget:
    """How much may still be unpacked; shared by an archive and the archives in it."""

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
    """Unpack a zip, a tar (plain, gz, bz2, xz) or, with a program that can, a rar or 7z into a new folder.

    Only folders and plain files are made, with no one's permissions but the user's. The folder is removed again if
    anything is wrong, so that it never holds part of an archive.

    Raises
    ------
    ActionVitError
        If the file is no archive or damaged; if a name in it is absolute or leads upwards; if it holds links,
        devices or encrypted files; if it is over the budget; or if a program for it is missing.
    """
    if into.exists():
        raise ValueError(f"into: `{into}` exists, expected a new folder")
    into.mkdir(parents=True)
    try:
        with archive.open("rb") as stream:
            head = stream.read(8)
        if head.startswith((b"Rar!\x1a\x07", b"7z\xbc\xaf\x27\x1c")):
            program = find_program(str(archive))
            unpack_by = _unpack_beside if program in _PROGRAMS else _unpack_through
            unpack_by(program, archive, into, budget)
        elif zipfile.is_zipfile(archive):
            _unpack_zip(archive, into, budget)
        elif tarfile.is_tarfile(archive):
            with archive.open("rb") as stream:
                _unpack_tar(stream, archive, into, budget)
        else:
            page = " (it is a web page)" if head.lstrip()[:1] == b"<" else ""
            raise BadArchiveError(f"`{archive}` is no zip, tar, rar or 7z{page}; check where it came from")
    except BaseException:
        shutil.rmtree(into, ignore_errors=True)
        raise


def _target(name: str, archive: Path, into: Path) -> Path:
    """Return where a member may be written; names that would leave the folder are refused."""
    # A backslash separates on Windows, where such archives are made and where they may be unpacked.
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or name.startswith(("/", "\\")) or ".." in parts or re.match("[A-Za-z]:", name) or "\0" in name:
        raise ActionVitError(f"`{archive}` holds `{printable(name)}`, which leads out of the folder; not unpacked")
    return into.joinpath(*parts)


def _write(source: IO[bytes], target: Path, archive: Path, budget: Budget) -> None:
    budget.take_file(archive)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as stream:  # x: what is there already may be read by someone, or be another member
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


def _unpack_tar(stream: IO[bytes], archive: Path, into: Path, budget: Budget, mode: str = "r:*") -> None:
    with _damage(archive), tarfile.open(fileobj=stream, mode=mode) as opened:  # type: ignore[call-overload]
        for member in opened:
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
            pass  # to the very end, where a compressed file keeps its checksum


@contextmanager
def _damage(archive: Path) -> Iterator[None]:
    """Turn what a damaged archive raises into one line."""
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, gzip.BadGzipFile) as error:
        raise BadArchiveError(f"`{archive}` is damaged ({error}); remove it and get it again") from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        name = printable(Path(error.filename or "").name)
        raise ActionVitError(f"`{archive}` holds `{name}` twice; not unpacked") from error
    except (OSError, NotImplementedError) as error:
        raise ActionVitError(f"`{archive}` could not be unpacked: {printable(str(error))}") from error


def find_program(archive: str) -> str:
    """Return the program that will unpack a rar or 7z. Raises ActionVitError, with the remedy, if there is none."""
    if found := _bsdtar() or next(filter(shutil.which, _PROGRAMS), None):
        return found
    raise ActionVitError(
        f"`{archive}` needs a program to unpack it, and none is here: install bsdtar (apt install libarchive-tools),"
        " unrar or 7z, or give a zip or tar of it with --from FILE"
    )


def _bsdtar() -> str | None:
    """Return the path of a tar that reads rar: bsdtar, which on macOS and Windows is called tar."""
    if found := shutil.which("bsdtar"):
        return found
    if (found := shutil.which("tar")) is None:
        return None
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    return found if "bsdtar" in version else None


def _unpack_through(bsdtar: str, archive: Path, into: Path, budget: Budget) -> None:
    """Have bsdtar turn the archive into a tar on its standard output, and unpack that with all of our checks."""
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
            raise ActionVitError(_complaint(archive, bsdtar, errors.read()))


def _unpack_beside(name: str, archive: Path, into: Path, budget: Budget) -> None:
    """Check the names that a program lists, let it unpack while watching the size, and check what it made."""
    program = _PROGRAMS[name]

    def command(arguments: tuple[str, ...]) -> list[str]:
        return [name, *(part.format(archive=archive.resolve(), into=into.resolve()) for part in arguments)]

    listed = subprocess.run(command(program.list), capture_output=True, stdin=subprocess.DEVNULL, check=False)
    if listed.returncode:
        raise ActionVitError(_complaint(archive, name, listed.stderr or listed.stdout))
    for member in re.findall(f"^{program.member}$", os.fsdecode(listed.stdout), re.MULTILINE):
        _target(member, archive, into)
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen(
            command(program.unpack), stdout=errors, stderr=errors, stdin=subprocess.DEVNULL
        ) as process:
            while process.poll() is None:
                try:
                    process.wait(timeout=1)
                except subprocess.TimeoutExpired:
                    if sum(_made(into, archive)) > budget.bytes:
                        process.kill()
        for size in _made(into, archive):
            budget.take_file(archive)
            budget.take(size, archive)
        if process.returncode:
            errors.seek(0)
            raise ActionVitError(_complaint(archive, name, errors.read()))


def _made(into: Path, archive: Path) -> Iterator[int]:
    """Yield the size of each file below a folder; anything but files and folders is refused."""
    for item in into.rglob("*"):
        try:
            found = item.lstat()
        except FileNotFoundError:  # a program's own passing file
            continue
        if stat.S_ISREG(found.st_mode):
            yield found.st_size
        elif not stat.S_ISDIR(found.st_mode):
            raise ActionVitError(f"`{archive}`: `{printable(item.name)}` is a link or device; not unpacked")


def _complaint(archive: Path, program: str, output: bytes) -> str:
    last = printable((os.fsdecode(output).strip().splitlines() or ["no reason given"])[-1])
    return f"`{archive}` could not be unpacked with {Path(program).name} ({last}); it may be damaged: get it again"
