"""Two small tables beside the parts: `failures.csv`, videos without an embedding, and `seen.csv`, files checked again.

Plain CSV for people and spreadsheets. The last column of each line is a digest of the line, so that a flipped bit is
detected. A line may be deleted by hand: its video is then tried again.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

from actionvit.errors import ActionVitError
from actionvit.features.atomic import atomic_write
from actionvit.features.failures import Failure, Reason
from actionvit.features.fingerprint import Fingerprint

FAILURES = "failures.csv"
SEEN = "seen.csv"


@dataclass(frozen=True, slots=True)
class Seen:
    """A file whose size or time changed and whose content, read again, still matches its row."""

    id: str
    digest: str
    """sha256 of its content; a row with another digest is not meant."""
    size: int
    mtime_ns: int

    @property
    def fingerprint(self) -> Fingerprint:
        """Of the file when it was read again."""
        return Fingerprint(self.size, self.mtime_ns)


Line = TypeVar("Line", Failure, Seen)
COLUMNS = {
    Failure: ("id", "reason", "detail", "backend", "frames", "size", "mtime_ns", "decoder"),
    Seen: ("id", "digest", "size", "mtime_ns"),
}
"""Column names on disk, before the column `check`."""


def render(kind: type[Line], lines: Iterable[Line]) -> bytes:
    """Return the CSV text of some lines, sorted by id."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    quoting = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)  # the other one lets a lone \r through
    writer.writerow([*COLUMNS[kind], "check"])
    for line in sorted(lines, key=lambda line: line.id):
        texts: list[str] = _texts(line)
        (quoting if "\r" in "".join(texts) else writer).writerow([*texts, _check(texts)])
    return text.getvalue().encode("utf-8", "surrogateescape")


def parse(kind: type[Line], data: bytes) -> tuple[dict[str, Line], list[str]]:
    """Return the undamaged lines by id, and a description of each damaged one."""
    names = [*COLUMNS[kind], "check"]
    good: dict[str, Line] = {}
    bad: list[str] = []
    try:
        header, *rows = list(csv.reader(io.StringIO(data.decode("utf-8", "surrogateescape"), newline=""))) or [[]]
    except csv.Error as error:  # a NUL, before Python 3.11; a quote that swallows the rest
        return {}, [str(error)]
    if header != names:
        bad.append(f"line 1: got the columns {','.join(header)!r}, expected {','.join(names)!r}")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(names) or row[-1] != _check(row[:-1]):
            bad.append(f"line {number}: not as written ({(row or ['empty'])[0]!r})")
            continue
        good[row[0]] = cast(Line, _line(kind, row))
    return good, bad


def load(kind: type[Line], path: Path) -> dict[str, Line]:
    """Return a table's lines by id; empty without a file. Raises ActionVitError if a line was altered."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    good, bad = parse(kind, data)
    if bad:
        raise ActionVitError(f"{path}: {bad[0]}; run `actionvit cache verify {path.parent} --repair`")
    return good


def save(kind: type[Line], path: Path, lines: Mapping[str, Line]) -> None:
    """Publish a table if its content changes."""
    data = render(kind, lines.values())
    if (path.read_bytes() if path.exists() else render(kind, ())) != data:
        atomic_write(path, data)


def _texts(line: Failure | Seen) -> list[str]:
    if isinstance(line, Seen):
        return [line.id, line.digest, str(line.size), str(line.mtime_ns)]
    size, mtime_ns = line.fingerprint
    numbers = (str(number) for number in (line.frames_decoded, size, mtime_ns))
    return [line.id, line.reason, line.detail, line.backend, *numbers, line.decoder_version]


def _line(kind: type[Failure | Seen], row: list[str]) -> Failure | Seen:
    if kind is Seen:
        id, digest, size, mtime_ns, _ = row
        return Seen(id, digest, int(size), int(mtime_ns))
    id, reason, detail, backend, frames, size, mtime_ns, version, _ = row
    return Failure(
        id=id,
        reason=cast(Reason, reason),
        detail=detail,
        backend=backend,
        frames_decoded=int(frames),
        fingerprint=Fingerprint(int(size), int(mtime_ns)),
        decoder_version=version,
    )


def _check(values: list[str]) -> str:
    return hashlib.sha256("\0".join(values).encode("utf-8", "surrogateescape")).hexdigest()[:16]
