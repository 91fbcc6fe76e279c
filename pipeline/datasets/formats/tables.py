"""Read tables with a header: CSV, TSV, and the metadata files of a Hugging Face videofolder."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import Literal

from actionvit.errors import ActionVitError
from actionvit.features.sampling import Segment
from actionvit.pipeline.datasets.formats.rows import Listing, Row
from actionvit.pipeline.datasets.reading import SETS, set_name
from actionvit.pipeline.datasets.textfile import read_lines, read_text
from actionvit.text import printable

COLUMNS = {
    "path": ("path", "video_path", "file_path", "filepath", "file_name", "filename", "video_name", "file", "video"),
    "label": ("label_name", "class_name", "label", "class", "action", "category", "target"),
    "split": ("split", "set", "subset", "partition"),
    "source": ("source", "group"),
    "start": ("start", "start_time", "time_start", "start_sec", "t_start"),
    "end": ("end", "end_time", "time_end", "end_sec", "t_end"),
    "start_frame": ("start_frame",),
    "end_frame": ("end_frame",),
}
"""Names of each column, the first present is read. A name comes before `label`, which may be its number."""
_SPLIT = re.compile(r"split_?([0-9]+)")
_SEGMENTS: dict[Literal["seconds", "frames"], tuple[str, str]] = {
    "seconds": ("start", "end"),
    "frames": ("start_frame", "end_frame"),
}
METADATA = ("metadata.csv", "metadata.jsonl")
_DELIMITERS = ",\t;|"


def columns_of(names: Sequence[str]) -> dict[str, str]:
    """Return `{role: column}` of a header, its names in lower case; `split1`, `split2` … are roles of their own."""
    roles = {role: next((name for name in known if name in names), "") for role, known in COLUMNS.items()}
    roles.update({f"split {int(match[1])}": name for name in names if (match := _SPLIT.fullmatch(name))})
    return {role: name for role, name in roles.items() if name}


def delimiter_of(header: str) -> str:
    """Return the delimiter under which a header has most columns with known names."""

    def recognized(delimiter: str) -> int:
        return len(columns_of([name.strip(' "\t').lower() for name in header.split(delimiter)]))

    return max(_DELIMITERS, key=recognized)


def is_header(line: str) -> bool:
    """Return whether a line names a column of paths and another known column, or paths alone."""
    names = [name.strip(' "').lower() for name in line.split(delimiter_of(line))]
    roles = columns_of(names)
    return "path" in roles and (len(roles) > 1 or len(names) > 1 or names[0] in ("path", "video_path", "file_name"))


def read_table(file: Path) -> Listing:
    """Read a CSV or TSV with a header: a path, a label, and optionally split and source, under any usual name.

    Paths are relative to the file's folder; a path to a folder of images is a video too.
    """
    rows = [_row(file, line, cells) for line, cells in table_rows(file, needed=("path", "label"))]
    return Listing(format="csv", description="a table with a header", base=file.parent, files=[(file, rows)])


def read_videofolder(root: Path, files: Sequence[Path]) -> Listing:
    """Read the `metadata.csv` or `metadata.jsonl` of a Hugging Face videofolder, in ROOT or in its split folders.

    `file_name` is relative to the metadata file. Without a column for the label, the folder of the video is its class.
    Without one for the split, the folder below ROOT is, if it is called `train`, `validation`, `test` or the like.
    """
    listed = []
    for file in files:
        table = _json_rows(file) if file.suffix == ".jsonl" else table_rows(file, needed=("path",))
        prefix = file.parent.relative_to(root)
        rows = []
        for line, cells in table:
            row = _row(file, line, cells, label_needed=False)
            path = PurePosixPath(prefix.as_posix(), row.path)
            parts = path.parts
            in_set = SETS.get(parts[0].lower(), "") if len(parts) > 1 else ""
            label = row.label
            if not label and not {"label"} & cells.keys() and len(parts) > 1 + bool(in_set):
                label = parts[-2]
            rows.append(row._replace(path=str(path), label=label, sets=row.sets or (((1, in_set),) if in_set else ())))
        listed.append((file, rows))
    return Listing(format="videofolder", description="a Hugging Face videofolder", base=root, files=listed)


def _row(file: Path, line: int, cells: Mapping[str, str], *, label_needed: bool = True) -> Row:
    """Return a row from its cells by role."""
    place = f"`{file}` line {line}"
    sets = []
    for role, text in cells.items():
        if role == "split" or role.startswith("split "):
            number = int(role[6:]) if role != "split" else 1
            sets.append((number, set_name(text, place)))
    label = cells.get("label", "")
    if label_needed and not label and {name for _, name in sets} != {"test"}:
        raise ActionVitError(f"{place}: empty label; fill it in or remove the line")
    return Row(line, cells["path"], label, tuple(sets), cells.get("source", ""), _segment(place, cells))


def _segment(place: str, cells: Mapping[str, str]) -> Segment | None:
    """Return the segment in the cells `start`, `end`, in seconds, or `start_frame`, `end_frame`."""
    for unit, names in _SEGMENTS.items():
        texts = [cells.get(name, "") for name in names]
        if any(texts):
            try:
                return Segment(float(texts[0]), float(texts[1]), unit)
            except ValueError as error:
                raise ActionVitError(
                    f"{place}: {names[0]} `{printable(texts[0])}`, {names[1]} `{printable(texts[1])}`: expected two"
                    f" numbers of {unit}, the first smaller"
                ) from error
    return None


def table_rows(
    file: Path, needed: Sequence[str], renamed: Mapping[str, str] | None = None
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and stripped cells by role. Raises ActionVitError if a needed column is missing.

    Roles are those of `COLUMNS`, or `renamed`, from column to role.
    """
    try:
        text = read_text(file, strict=True)
        delimiter = delimiter_of(text[: text.find("\n") + 1] or text)
        reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
        names = [name.strip().lower() for name in next(reader, [])]
        roles = columns_of(names) if renamed is None else {renamed[name]: name for name in names if name in renamed}
        for role in needed:
            if role not in roles:
                raise ActionVitError(
                    f"`{file}` has no column `{role}`; its first line must read path,label[,split[,source]]"
                )
        places = {role: names.index(name) for role, name in roles.items()}
        for cells in reader:
            if cells:
                row = {role: cells[place].strip() for role, place in places.items() if place < len(cells)}
                yield reader.line_num, dict.fromkeys(roles, "") | row
    except (UnicodeDecodeError, csv.Error) as error:
        raise ActionVitError(f"`{file}` is no CSV in UTF-8 ({error}); save it as comma-separated UTF-8 text") from error


def _json_rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and cells by role of a file with one JSON object per line."""
    for line, text in read_lines(file):
        try:
            record = json.loads(text)
            names = {str(key).lower(): value for key, value in record.items()}
        except (ValueError, AttributeError, RecursionError) as error:
            raise ActionVitError(f"`{file}` line {line}: `{printable(text[:60])}`; expected a JSON object") from error
        roles = columns_of(list(names))
        if "path" not in roles:
            raise ActionVitError(f"`{file}` line {line}: no `file_name`; expected the path of a video")
        cells = {role: names[name] for role, name in roles.items()}
        yield line, {role: "" if value is None else str(value) for role, value in cells.items()}
