"""Read lists without a header: `path label`, `folder frames label`, or paths alone."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from actionvit.errors import ActionVitError
from actionvit.pipeline.datasets.formats.rows import Listing, Row, existing
from actionvit.pipeline.datasets.reading import set_of
from actionvit.pipeline.datasets.textfile import head, read_lines
from actionvit.text import pluralize, printable

SUFFIXES = (".csv", ".tsv", ".txt", ".list", ".lst")
_CLASS_FILES = ("classInd.txt", "classes.txt", "class_names.txt", "class_list.txt", "labels.txt", "categories.txt")
_INTEGER = re.compile(r"-?[0-9]+")

Line = tuple[int, list[str]]
"""Line number and fields."""


def siblings(file: Path) -> list[tuple[Path, str, int]]:
    """Return the list files of all sets beside a list file called `train.csv`, `val_list.txt` or the like.

    Returns
    -------
    list of (Path, str, int)
        File, set and number of the split; the file alone, in no set, if its name has none.
    """
    name, _, pattern = set_of(file.name)
    if not name:
        return [(file, "", 1)]
    lists = []
    for other in sorted(file.parent.iterdir()):
        other_set, other_number, other_pattern = set_of(other.name)
        if other_pattern == pattern and other.name[0] != "." and other.is_file():
            lists.append((other, other_set, other_number))
    return lists if {name for _, name, _ in lists} != {name} else [(file, "", 1)]


def read_lists(files: Sequence[tuple[Path, str, int]], roots: Sequence[Path], *, frames: bool | None = None) -> Listing:
    """Read lists without a header, as mmaction2, SlowFast, VideoMAE, V-JEPA and pytorchvideo have them.

    A line is `path label`, separated by a blank, a tab or a comma, the label a number or a word; or `folder frames
    label` for folders of images; or a path alone, or `path 0 -1`, without a label.

    Parameters
    ----------
    files : sequence of (Path, str, int)
        File, set and number of the split.
    roots : sequence of Path
        Folders at which the paths may start; the one where most of the first paths exist is taken.
    frames : bool, optional
        Whether lines are `folder frames label`; by default detected from the first lines.
    """
    first = [line for file, _, _ in files for line in head(file)]
    if not first:
        raise ActionVitError(f"`{files[0][0]}` lists no video; expected lines `path label`")
    split, base = _separator_and_base(first, roots)
    kind = _kind([split(line) for line in first], frames)
    listed = []
    for file, name, number in files:
        rows = []
        for line, text in read_lines(file):
            path, label = _fields(file, line, split(text), text, kind, unlabeled=name == "test")
            rows.append(Row(line, path, label, ((number, name),) if name else ()))
        listed.append((file, rows))
    notes = _name_classes(listed)
    description = {"label": "a list `path label`", "frames": "a list `folder frames label`", "path": "a list of paths"}
    return Listing(
        format="frame-list" if kind == "frames" else "list",
        description=description[kind],
        base=base,
        files=listed,
        notes=notes,
    )


def looks_like_lists(files: Sequence[tuple[Path, str, int]], roots: Sequence[Path]) -> bool:
    """Return whether most of the first paths in these files exist at one of the roots."""
    first = [line for file, _, _ in files for line in head(file)]
    if not first:
        return False
    split, base = _separator_and_base(first, roots)
    return 2 * existing([fields[0] for line in first if (fields := split(line))], base) >= len(first)


def _by_comma(text: str) -> list[str]:
    try:
        return [field.strip() for field in next(csv.reader([text]), [])]
    except csv.Error:
        return [text]


def _by_blank(text: str) -> list[str]:
    """Split `path label` or `path number number` from the right: a path may hold blanks."""
    fields = text.rsplit(None, 2)
    if len(fields) == 3 and not (_INTEGER.fullmatch(fields[1]) and _INTEGER.fullmatch(fields[2])):
        return text.rsplit(None, 1)
    return fields


def _by_tab(text: str) -> list[str]:
    return [field.strip() for field in text.split("\t")]


def _alone(text: str) -> list[str]:
    return [text]


def _separator_and_base(lines: Sequence[str], roots: Sequence[Path]) -> tuple[Callable[[str], list[str]], Path]:
    """Return how to split lines, and where paths start: the pair under which most of the paths exist."""
    ways = [_alone, _by_blank]
    if all("\t" in line for line in lines):
        ways.append(_by_tab)
    if all("," in line for line in lines):
        ways.append(_by_comma)
    best = max(
        ((way, root) for root in roots for way in reversed(ways)),
        key=lambda pair: existing([fields[0] for line in lines if (fields := pair[0](line))], pair[1]),
    )
    return best


def _kind(first: Sequence[list[str]], frames: bool | None) -> str:
    """Return what lines hold: `label`, `frames` or `path`."""
    if frames:
        return "frames"
    if any(len(fields) == 3 for fields in first):
        numbers = [fields[1:] for fields in first if len(fields) == 3]
        # VideoMAE's lists for pretraining: `path 0 -1`, and `folder first_frame frames`.
        without = all(last.startswith("-") for _, last in numbers) or (
            len(numbers) > 1 and all(start in ("0", "1") for start, _ in numbers)
        )
        return "path" if without else "frames" if frames is None else "label"
    return "path" if all(len(fields) == 1 for fields in first) else "label"


def _fields(file: Path, line: int, fields: list[str], text: str, kind: str, *, unlabeled: bool) -> tuple[str, str]:
    """Return path and label of a line."""
    expected = {"label": (2,), "frames": (3,), "path": (1, 3)}[kind]
    if kind == "label" and unlabeled and len(fields) == 1:
        return fields[0], ""
    if len(fields) not in expected or (kind == "frames" and not fields[1].isdecimal()):
        wanted = {"label": "path label", "frames": "folder frames label", "path": "path"}[kind]
        raise ActionVitError(f"`{file}` line {line}: `{printable(text[:80])}`; expected `{wanted}`, as in other lines")
    return fields[0], "" if kind == "path" else fields[-1]


def _name_classes(listed: list[tuple[Path, list[Row]]]) -> list[str]:
    """Replace numbers by the class names in a file beside the lists; return a note if the file is missing."""
    labels = {row.label for _, rows in listed for row in rows if row.label}
    if not labels or not all(label.isdecimal() for label in labels):
        return []
    if (file := _class_file(listed[0][0].parent)) is None:
        return [
            f"labels are numbers without names ({pluralize(len(labels), 'class', 'classes')}):"
            " put classes.txt, one name per line from 0, beside the list"
        ]
    names = dict(_class_names(file))
    for number, (path, rows) in enumerate(listed):
        renamed = []
        for row in rows:
            if row.label and int(row.label) not in names:
                raise ActionVitError(
                    f"`{path}` line {row.line}: label {row.label} has no name in `{file}`, which numbers"
                    f" {min(names)} to {max(names)}; number its lines as the list does: `{row.label} NAME`"
                )
            renamed.append(row._replace(label=names[int(row.label)] if row.label else ""))
        listed[number] = (path, renamed)
    return [f"class names from `{file.name}`"]


def _class_file(folder: Path) -> Path | None:
    maps = sorted(file for file in folder.glob("*label_map*.txt") if file.name[0] != ".")
    return next((file for file in (*(folder / name for name in _CLASS_FILES), *maps) if file.is_file()), None)


def _class_names(file: Path) -> Iterator[tuple[int, str]]:
    """Yield numbers and class names: `NUMBER NAME` per line, or a name per line, from 0."""
    lines = [text for _, text in read_lines(file)]
    numbered = [re.fullmatch(r"([0-9]+)[\s,:]+(\S.*)", text) for text in lines]
    if not lines:
        raise ActionVitError(f"`{file}` is empty; expected one class name per line")
    for place, (text, match) in enumerate(zip(lines, numbered, strict=True)):
        yield (int(match[1]), match[2]) if match and all(numbered) else (place, text)
