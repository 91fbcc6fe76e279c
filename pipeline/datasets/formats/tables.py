"""Read tables with a header: CSV, TSV, and the metadata files of a Hugging Face videofolder."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from actionvit.errors import ActionVitError
from actionvit.features.sampling import Segment
from actionvit.pipeline.datasets.formats.rows import Listing, Row, refuse_url
from actionvit.pipeline.datasets.reading import SETS, set_name, set_of
from actionvit.pipeline.datasets.textfile import read_lines, read_text
from actionvit.text import abbreviate, pluralize, printable

COLUMNS = {
    "path": (
        *(
            "path",
            "video_path",
            "clip_path",
            "file_path",
            "filepath",
            "file_name",
            "filename",
            "video_name",
            "clip_name",
        ),
        *("file", "video"),
    ),
    "label": ("label_name", "class_name", "label", "label_text", "class", "action", "category", "target", "tag"),
    "split": ("split", "set", "subset", "partition"),
    "source": ("source", "group"),
    "start": (
        *("start", "start_time", "time_start", "start_sec", "start_seconds", "start_s", "t_start", "starttime"),
        *("begin", "begin_time"),
    ),
    "end": (
        *("end", "end_time", "time_end", "end_sec", "end_seconds", "end_s", "t_end", "endtime"),
        *("stop", "stop_time"),
    ),
    "start_frame": ("start_frame", "frame_start"),
    "end_frame": ("end_frame", "stop_frame", "frame_end"),
}
"""Names of each column, the first present is read. A name comes before `label`, which may be its number."""
_EXCEL = re.compile(r"sep=.(\r\n|\r|\n)")
"""The first line with which Excel marks the delimiter."""
_SPLIT = re.compile(r"split_?([0-9]{1,3})")
_TIME = re.compile(
    r"(^|[\W_])((start|begin|onset|stop|end|offset)_?(s|ms|secs?|seconds?|time|frame|timestamp|idx|index)?"
    r"|(first|last)_?(frame|idx|index)|t_?[01])($|[\W_])"
)
_SEGMENTS: dict[Literal["seconds", "frames"], tuple[str, str]] = {
    "seconds": ("start", "end"),
    "frames": ("start_frame", "end_frame"),
}
METADATA = ("metadata.csv", "metadata.jsonl")
_DELIMITERS = ",\t;| "


def _plain(name: str) -> str:
    """Return the name of a column in lower case, `File Name` as `file_name`."""
    return re.sub(r"[\s-]+", "_", name.strip(' "\t#').lower())


def columns_of(names: Sequence[str]) -> dict[str, str]:
    """Return `{role: column}` of a header, its names in lower case; `split1`, `split2` … are roles of their own."""
    roles = {role: next((name for name in variants if name in names), "") for role, variants in COLUMNS.items()}
    roles.update({f"split {int(match[1])}": name for name in names if (match := _SPLIT.fullmatch(name))})
    return {role: name for role, name in roles.items() if name}


def delimiter_of(header: str) -> str:
    """Return the delimiter under which a header has most columns with known names; a blank if all names are known."""

    def recognized(delimiter: str) -> int:
        names = [_plain(name) for name in header.split(delimiter) if name or delimiter != " "]
        roles = columns_of(names)
        return len(roles) if delimiter != " " or len(roles) == len(names) else 0

    return max(_DELIMITERS, key=recognized)


def header_names(line: str) -> list[str]:
    """Return the names in a header."""
    delimiter = delimiter_of(line)
    return [_plain(name) for name in (line.split() if delimiter == " " else line.split(delimiter))]


def is_header(line: str) -> bool:
    """Return whether a line names a column of paths and another known column, or paths alone."""
    names = header_names(line)
    roles = columns_of(names)
    return "path" in roles and (len(names) > 1 or names[0] not in ("file", "video"))


def read_table(file: Path, *, label_needed: bool = True) -> Listing:
    """Read a CSV or TSV with a header: a path, a label, and optionally split and source, under any usual name.

    Paths are relative to the file's folder; a path to a folder of images is a video too. Without `label_needed`, the
    label may be missing, as in the list of a test set.
    """
    table = table_rows(file, needed=("path", "label") if label_needed else ("path",))
    rows = [_row(file, line, cells, label_needed=label_needed) for line, cells in table.rows]
    return Listing(
        format="csv",
        description="a table with a header",
        base=file.parent,
        files=[(file, rows)],
        notes=[*_segment_notes(rows), *table.notes],
        sets_by="column `split` names",
    )


def read_videofolder(root: Path, files: Sequence[Path]) -> Listing:
    """Read the `metadata.csv` or `metadata.jsonl` of a Hugging Face videofolder, in ROOT or in its split folders.

    `file_name` is relative to the metadata file. Without a column for the label, the folder of the video is its class.
    Without one for the split, the folder below ROOT is, if it is called `train`, `validation`, `test` or the like; or
    the file's name among several, `train.jsonl` and `test.jsonl`.
    """
    listed, notes = [], []
    for file in files:
        table = _json_rows(file) if file.suffix == ".jsonl" else table_rows(file, needed=("path",))
        notes += table.notes
        prefix = file.parent.relative_to(root)
        rows = []
        for line, cells in table.rows:
            row = _row(file, line, cells, label_needed=False)
            refuse_url(f"`{file}` line {line}", row.path)
            if not row.path:
                raise ActionVitError(f"`{file}` line {line}: empty path; fill it in or remove the line")
            path = PurePosixPath(prefix.as_posix(), row.path)
            parts = path.parts
            in_folder = SETS.get(parts[0].lower(), "") if len(parts) > 1 else ""
            in_set = in_folder or (set_of(file.name)[0] if len(files) > 1 else "")
            label = row.label
            if not label and not {"label"} & cells.keys() and len(parts) > 1 + bool(in_folder):
                label = parts[-2]
            rows.append(row._replace(path=str(path), label=label, sets=row.sets or (((1, in_set),) if in_set else ())))
        listed.append((file, rows))
    return Listing(
        format="videofolder",
        description="a Hugging Face videofolder",
        base=root,
        files=listed,
        notes=notes,
        sets_by="the folders name",
    )


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


def _segment_notes(rows: Sequence[Row]) -> list[str]:
    """Return a note if segments in seconds have whole numbers alone, as frames would."""
    times = [time for row in rows if row.segment for time in (row.segment.start, row.segment.end)]
    if not times or any(row.segment.unit == "frames" for row in rows if row.segment) or any(time % 1 for time in times):
        return []
    return ["`start` and `end` are read as seconds; call columns of frames `start_frame` and `end_frame`"]


class Table(NamedTuple):
    """The rows of a table: line number and cells by role."""

    rows: list[tuple[int, dict[str, str]]]
    notes: list[str]
    """On columns that are not read."""


def table_rows(file: Path, needed: Sequence[str], renamed: Mapping[str, str] | None = None) -> Table:
    """Return line numbers and stripped cells by role.

    Roles are those of `COLUMNS`, or `renamed`, from column to role.

    Raises
    ------
    ActionVitError
        If a needed column is missing, a column occurs twice, one that looks like a time has an unknown name, or a row
        has another number of cells than the header.
    """
    try:
        text = read_text(file, strict=True)
        preamble = _EXCEL.match(text)
        text = text[preamble.end() :] if preamble else text
        delimiter = delimiter_of(re.split(r"[\r\n]", text, maxsplit=1)[0])
        reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
        names = [_plain(name) for name in next(reader, [])]
        lines = [(reader.line_num + bool(preamble), [cell.strip() for cell in cells]) for cells in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ActionVitError(
            f"`{file}` is not a CSV in UTF-8 ({error}); save it as comma-separated UTF-8 text"
        ) from error
    lines = [(line, cells) for line, cells in lines if any(cells)]
    for line, cells in lines:
        if len(cells) < len(names) or any(cells[len(names) :]):
            raise ActionVitError(
                f"`{file}` line {line}: {pluralize(len(cells), 'cell')}, but the header names"
                f" {pluralize(len(names), 'column')}; quote a value that holds a `{printable(delimiter)}`, and leave no"
                " cell out"
            )
    places = {name: place for place, name in reversed(list(enumerate(names)))}
    if renamed is None:
        labels = {name: [cells[places[name]] for _, cells in lines] for name in COLUMNS["label"] if name in names}
        roles = _choose_roles(f"`{file}`", names, labels)
    else:
        labels, roles = {}, {renamed[name]: name for name in names if name in renamed}
    for role in needed:
        if role not in roles:
            raise ActionVitError(
                f"`{file}` has no column `{role}`; its first line must read path,label[,split[,source]]; rename one of"
                f" its columns: {abbreviate(set(names) - {''}, 8)}"
            )
    rows = [(line, {role: cells[places[name]] for role, name in roles.items()}) for line, cells in lines]
    return Table(rows, [] if renamed else _unread_notes(file, names, roles, labels))


def _name_column(labels: Mapping[str, Sequence[str]]) -> str:
    """Return the column of class names: the first, but for one of numbers the one that names them one to one."""
    columns = list(labels)
    if not columns or not _all_numbers(labels[columns[0]]):
        return columns[0] if columns else ""
    return next((name for name in columns[1:] if _one_to_one(labels, columns[0], name)), columns[0])


def _all_numbers(values: Iterable[str]) -> bool:
    return all(re.fullmatch(r"-?[0-9]+(\.0+)?", value) for value in values if value)


def _one_to_one(labels: Mapping[str, Sequence[str]], first: str, second: str) -> bool:
    """Return whether the values of two columns correspond, rows without a value apart."""
    pairs = {pair for pair in zip(labels[first], labels[second], strict=True) if any(pair)}
    return bool(pairs) and len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def _choose_roles(place: str, names: Sequence[str], labels: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return `{role: column}`, from the columns' names and the values of those that may be labels."""
    column_names = {name for columns in COLUMNS.values() for name in columns} | {
        name for name in names if _SPLIT.fullmatch(name)
    }
    if twice := {name for name in names if name in column_names and names.count(name) > 1}:
        raise ActionVitError(f"{place}: column {abbreviate(twice)} occurs twice; keep one of the two")
    splits = [name for name in names if (match := _SPLIT.fullmatch(name)) and int(match[1]) == 1]
    splits += [name for name in COLUMNS["split"] if name in names][:1]
    if len(splits) > 1:
        raise ActionVitError(f"{place}: columns {abbreviate(splits)} name the first split; keep one of them")
    roles = columns_of(names)
    if label := _name_column(labels):
        roles["label"] = label
    if {"start", "end"} & roles.keys():
        roles = {role: name for role, name in roles.items() if role not in ("start_frame", "end_frame")}
    times = [name for name in names if name not in column_names and _TIME.search(name)]
    if times:
        raise ActionVitError(
            f"{place}: column {abbreviate(times)} looks like a time; call the columns of a segment `start` and"
            " `end`, in seconds, or `start_frame` and `end_frame`, or rename it"
        )
    return roles


def _unread_notes(
    file: Path, names: Sequence[str], roles: Mapping[str, str], labels: Mapping[str, Sequence[str]]
) -> list[str]:
    """Return a note on the columns that are not read, apart from those that repeat the label."""
    label = roles.get("label", "")
    unread = {name for name in names if name and name not in roles.values()}
    unread -= {name for name in labels if name != label and _one_to_one(labels, label, name)}
    if not unread:
        return []
    words = {word for name in unread for word in re.split(r"[\W_]+", name)}
    folds = words & {"fold", "folds", "kfold", "cv"}
    sets = words & SETS.keys()
    hint = "; give folds as columns `split1`, `split2` …, each with train and test" if folds else ""
    hint = hint or ("; give the sets as a column `split`" if sets and "split" not in roles else "")
    return [f"columns of `{file.name}` not read: {abbreviate(unread, 6)}{hint}"]


def _json_rows(file: Path) -> Table:
    """Return line numbers and cells by role of a file with one JSON object per line."""
    records = []
    for line, text in read_lines(file):
        try:
            record = json.loads(text)
            records.append((line, {_plain(str(key)): _text(value) for key, value in record.items()}))
        except (ValueError, AttributeError, RecursionError) as error:
            raise ActionVitError(f"`{file}` line {line}: `{printable(text[:60])}`; expected a JSON object") from error
    names = list(dict.fromkeys(name for _, record in records for name in record))
    labels = {name: [record.get(name, "") for _, record in records] for name in COLUMNS["label"] if name in names}
    roles = _choose_roles(f"`{file}`", names, labels)
    rows = []
    for line, record in records:
        if roles.get("path") not in record:
            raise ActionVitError(f"`{file}` line {line}: no `file_name`; expected the path of a video")
        cells = {role: record[name] for role, name in roles.items() if name in record}
        if cells.get("label", "")[:1] in ("[", "{"):
            raise ActionVitError(
                f"`{file}` line {line}: label `{printable(cells['label'][:60])}`; give a video one label, as a word or"
                " a number"
            )
        rows.append((line, cells))
    return Table(rows, _unread_notes(file, names, roles, labels))


def _text(value: object) -> str:
    """Return a JSON value as the text of a cell; a list or an object as JSON."""
    if isinstance(value, (list, dict)):
        return json.dumps(value)
    return "" if value is None else str(value)
