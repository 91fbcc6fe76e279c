"""Read the text files that users write: lists, CSV tables, settings."""

from __future__ import annotations

import codecs
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from actionvit.errors import ActionVitError
from actionvit.text import printable

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_LINE_END = re.compile(r"\r\n|\r|\n")


def read_text(file: Path, *, strict: bool = False) -> str:
    r"""Return the text of a file in UTF-8, or in UTF-16 with a byte order mark; the mark is dropped.

    Parameters
    ----------
    file : Path
        A regular file, or a link to one; reading a FIFO would wait forever.
    strict : bool
        Raise UnicodeDecodeError for bytes that are not UTF-8. By default they become lone surrogates, as in the file
        names that Python lists, so that a list in another encoding still names its files.

    Raises
    ------
    ActionVitError
        If the file is missing, unreadable, not a regular file, or binary.
    """
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise ActionVitError(f"`{file}` is not a regular file; expected a text file")
        data = file.read_bytes()
    except FileNotFoundError as error:
        raise ActionVitError(f"dataset: no file `{file}`; give a folder of class folders or a CSV file") from error
    except OSError as error:
        raise ActionVitError(f"cannot read `{printable(str(file))}` ({error.strerror}); check the file") from error
    bom, encoding = next(((bom, name) for bom, name in _BOMS if data.startswith(bom)), (b"", "utf-8"))
    if not encoding.startswith("utf-16") and b"\0" in data:
        raise ActionVitError(f"`{file}` is binary; expected a text file in UTF-8")
    errors = "strict" if strict or encoding != "utf-8" else "surrogateescape"
    if encoding.startswith("utf-16"):
        try:
            return data[len(bom) :].decode(encoding)
        except UnicodeDecodeError as error:
            raise ActionVitError(f"`{file}` is damaged UTF-16 ({error.reason}); save it as UTF-8") from error
    return data[len(bom) :].decode(encoding, errors)


def read_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the number and the text, without surrounding blanks, of each line that is not blank."""
    for number, line in enumerate(_LINE_END.split(read_text(file)), start=1):
        if text := line.strip():
            yield number, text


def head(file: Path, count: int = 20) -> list[str]:
    """Return the first lines of a text file that are not blank, from its first 64 KiB; none of a binary file."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            return []
        with file.open("rb") as stream:
            data = stream.read(1 << 16)
    except OSError:
        return []
    bom, encoding = next(((bom, name) for bom, name in _BOMS if data.startswith(bom)), (b"", "utf-8"))
    if not encoding.startswith("utf-16") and b"\0" in data:
        return []
    text = data[len(bom) :].decode(encoding, "replace")
    lines = [line.strip() for line in _LINE_END.split(text)]
    cut = len(data) == 1 << 16 and len(lines) > 1  # the last line is incomplete
    return [line for line in (lines[:-1] if cut else lines) if line][:count]
