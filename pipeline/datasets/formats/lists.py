"""Read lists without a header: `path label`, `folder frames label`, or paths alone."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from actionvit.errors import ActionVitError
from actionvit.features.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from actionvit.pipeline.datasets.formats.places import ListFile, choose_places, common_base, existing, other_places
from actionvit.pipeline.datasets.formats.rows import Listing, Row
from actionvit.pipeline.datasets.reading import is_trainval, set_of
from actionvit.pipeline.datasets.textfile import head, read_lines
from actionvit.text import printable

SUFFIXES = (".csv", ".tsv", ".txt", ".list", ".lst")
_INTEGER = re.compile(r"-?[0-9]+")
_SEVERAL_LABELS = re.compile(rf"({'|'.join(map(re.escape, VIDEO_SUFFIXES))})\"?([\s,;]+-?[0-9]+){{2,}}\s*\Z")

Rows = tuple[Path, list[Row]]
"""A list file and its rows."""
Separator = Callable[[str], list[str]]
"""Splits a line into its fields."""


def siblings(file: Path) -> list[ListFile]:
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
    lists = _without_repeated_training(file, lists)
    return lists if {name for _, name, _ in lists} != {name} else [(file, "", 1)]


def _without_repeated_training(file: Path, lists: list[ListFile]) -> list[ListFile]:
    """Return the lists without `trainval.txt` beside `train.txt`; with `trainval.txt` as `file`, without its parts."""
    joint = {path for path, _, _ in lists if is_trainval(path.name)}
    if file in joint:
        return [item for item in lists if item[0] in joint or item[1] == "test"]
    if any(name == "train" and path not in joint for path, name, _ in lists):
        return [item for item in lists if item[0] not in joint]
    return lists


def read_lists(files: Sequence[ListFile], roots: Sequence[Path], *, frames: bool | None = None) -> Listing:
    """Read lists without a header, as mmaction2, SlowFast, VideoMAE, V-JEPA and pytorchvideo have them.

    A line is `path label`, separated by a blank, a tab or a comma, the label a number or a word; or `folder frames
    label` for folders of images; or a path alone, or `path 0 -1`, without a label.

    Parameters
    ----------
    files : sequence of (Path, str, int)
        File, set and number of the split.
    roots : sequence of Path
        Folders at which the paths may start; for each file the one where most of its first paths exist is taken, so
        that `videos_train/` and `videos_val/` may hold the two sets.
    frames : bool, optional
        Whether lines are `folder frames label`; by default detected from the first lines.
    """
    if not any(head(file) for file, _, _ in files):
        raise ActionVitError(f"`{files[0][0]}` lists no video; expected lines `path label`")
    split, places = _separator_and_places(files, roots)
    lines = [(split(line), place) for (file, _, _), place in zip(files, places, strict=True) for line in head(file)]
    kind = _kind(lines, frames)
    paths = [_paths(head(file), split) for file, _, _ in files]
    base, moves = common_base(places)
    listed = []
    for (file, name, number), move in zip(files, moves, strict=True):
        rows = []
        for line, text in read_lines(file):
            path, label = _fields(file, line, split(text), text, kind, unlabeled=name == "test")
            rows.append(Row(line, move(path), label, ((number, name),) if name else ()))
        listed.append((file, rows))
    description = {"label": "a list `path label`", "frames": "a list `folder frames label`", "path": "a list of paths"}
    if kind == "path" and any(name for _, name, _ in files) and (by_folder := _classes_by_folder(lines, listed)):
        listed, description["path"] = by_folder, "a list of paths, classes by folder"
    return Listing(
        format="frame-list" if kind == "frames" else "list",
        description=description[kind],
        base=base,
        files=listed,
        notes=[*other_places(files, paths, roots, places), *_frame_notes(kind, lines)],
    )


def looks_like_lists(files: Sequence[ListFile], roots: Sequence[Path]) -> bool:
    """Return whether most of the first paths in these files exist at the roots."""
    heads = [head(file) for file, _, _ in files]
    if not any(heads):
        return False
    split, places = _separator_and_places(files, roots)
    present = (existing(_paths(lines, split), place) for lines, place in zip(heads, places, strict=True))
    return 2 * sum(present) >= sum(map(len, heads))


def _by(delimiter: str) -> Separator:
    """Return a function that splits a line at a delimiter outside quotes."""

    def split(text: str) -> list[str]:
        try:
            return [field.strip() for field in next(csv.reader([text], delimiter=delimiter, skipinitialspace=True), [])]
        except csv.Error:
            return [text]

    return split


def _by_blank(text: str) -> list[str]:
    """Split `path label` or `path number number` from the right: a path may contain spaces."""
    fields = text.rsplit(None, 2)
    if len(fields) == 3 and not (_INTEGER.fullmatch(fields[1]) and _INTEGER.fullmatch(fields[2])):
        fields = text.rsplit(None, 1)
    if fields and len(fields[0]) > 2 and fields[0][0] == fields[0][-1] == '"':
        fields[0] = fields[0][1:-1]
    return fields


def _by_tab(text: str) -> list[str]:
    return [field.strip() for field in text.split("\t")]


def _alone(text: str) -> list[str]:
    return [text]


def _paths(lines: Sequence[str], split: Separator) -> list[str]:
    return [fields[0] for line in lines if (fields := split(line))]


def _separator_and_places(files: Sequence[ListFile], roots: Sequence[Path]) -> tuple[Separator, list[Path]]:
    """Return how to split lines, and where the paths of each file start: there most of the first paths exist."""
    heads = [head(file) for file, _, _ in files]
    lines = [line for first in heads for line in first]
    ways: list[Separator] = [_alone, _by_blank]
    if all("\t" in line for line in lines):
        ways.append(_by_tab)
    ways += [_by(delimiter) for delimiter in "|;," if all(delimiter in line for line in lines)]
    split, shared = max(
        ((way, root) for root in roots for way in reversed(ways)),
        key=lambda pair: existing(_paths(lines, pair[0]), pair[1]),
    )
    return split, choose_places(files, [_paths(first, split) for first in heads], roots, shared)


def _kind(first: Sequence[tuple[list[str], Path]], frames: bool | None) -> str:
    """Return the kind of the lines, `label`, `frames` or `path`, from the first lines and where their paths start."""
    if frames:
        return "frames"
    if all(len(fields) == 1 for fields, _ in first):
        return "path"
    three = [(fields, place) for fields, place in first if len(fields) == 3]
    if not all(_INTEGER.fullmatch(field) for fields, _ in three for field in fields[1:]) or not three:
        return "label"
    if all(fields[2].startswith("-") for fields, _ in three):  # VideoMAE's lists for pretraining: `path 0 -1`
        return "path"
    if frames is False or all(_is_video(place, fields[0]) for fields, place in three):
        return "label"
    if len(three) > 1 and all(fields[1] in ("0", "1") for fields, _ in three):
        # `folder first_frame frames`, of VideoMAE's, too; otherwise two labels.
        return "path" if any(_as_many(fields[2], _images(place, fields[0])) for fields, place in three) else "label"
    return "frames"


def _as_many(listed: str, images: int) -> bool:
    return images > 0 and abs(int(listed[:9]) - images) <= 2


def _classes_by_folder(lines: Sequence[tuple[list[str], Path]], listed: list[Rows]) -> list[Rows] | None:
    """Return the rows with their folders as labels, where lines are `CLASS/VIDEO` alone, of several classes."""
    folders = {row.path.rpartition("/")[0].rpartition("/")[2] for _, rows in listed for row in rows}
    if len(folders) < 2 or any(len(fields) > 1 or "/" not in fields[0] for fields, _ in lines):
        return None
    return [
        (file, [row._replace(label=row.path.rpartition("/")[0].rpartition("/")[2]) for row in rows])
        for file, rows in listed
    ]


def _is_video(place: Path, path: str) -> bool:
    return path.lower().endswith(VIDEO_SUFFIXES) or (place / path).is_file()


def _images(place: Path, path: str) -> int:
    try:
        return sum(entry.name.lower().endswith(IMAGE_SUFFIXES) for entry in (place / path).iterdir())
    except (OSError, ValueError):
        return 0


def _frame_notes(kind: str, lines: Sequence[tuple[list[str], Path]]) -> list[str]:
    """Return a note if no folder in the first lines holds the number of frames that is listed."""
    counts = [(fields[0], fields[1], _images(place, fields[0])) for fields, place in lines if len(fields) == 3]
    if kind != "frames" or not counts or any(_as_many(listed, images) for _, listed, images in counts):
        return []
    path, listed, images = counts[0]
    return [
        f"the second column is not a number of frames: `{printable(path)}` has {images}, listed {printable(listed)}"
    ]


def _fields(file: Path, line: int, fields: list[str], text: str, kind: str, *, unlabeled: bool) -> tuple[str, str]:
    """Return path and label of a line."""
    if kind == "label" and unlabeled and (len(fields) == 1 or fields[-1].lower().endswith(VIDEO_SUFFIXES)):
        return text.strip('"'), ""
    if kind != "path" and (len(fields) > 2 or fields[0][-1:].isdecimal()) and _SEVERAL_LABELS.search(text.lower()):
        raise ActionVitError(
            f"`{file}` line {line}: `{printable(text[:80])}`: several labels, or a number of frames for a file; give a"
            " video one label, and list `folder frames label` for folders of frames alone"
        )
    expected = {"label": (2,), "frames": (3,), "path": (1, 3)}[kind]
    if len(fields) not in expected or (kind == "frames" and not fields[1].isdecimal()):
        layout = {"label": "path label", "frames": "folder frames label", "path": "path"}[kind]
        hint = "; a label or path that holds a comma needs quotes" if kind == "label" and text.count(",") > 1 else ""
        hint += "; if this line is a header, call its columns path,label" if line == 1 else ""
        raise ActionVitError(
            f"`{file}` line {line}: `{printable(text[:80])}`; expected `{layout}`, as in other lines{hint}"
        )
    return fields[0], "" if kind == "path" else fields[-1]
