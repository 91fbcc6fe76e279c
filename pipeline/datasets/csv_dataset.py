"""Read a CSV file of videos: `path,label[,split[,source]]`."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from actionvit.errors import ActionVitError
from actionvit.pipeline.datasets.dataset import Split, Video
from actionvit.pipeline.datasets.folder_dataset import Reading
from actionvit.pipeline.datasets.names import parse_source, stem
from actionvit.pipeline.text import abbreviate, pluralize, printable


def read_csv(file: Path) -> Reading:
    """Read a list of videos: columns `path`, `label` and optionally `split` (train, test or val) and `source`.

    Paths are relative to the file's folder; a path to a folder of images is a video too.

    Raises
    ------
    ActionVitError
        If a column is missing, a path is missing on disk or listed twice, a label is empty, or a split
        is none of train, test, val and empty.
    """
    videos: dict[str, Video] = {}
    lines: dict[str, int] = {}
    sets: dict[str, list[str]] = {"train": [], "test": [], "val": [], "": []}
    for line, row in _rows(file):
        place = f"`{file}` line {line}"
        if not row["path"] or not row["label"]:
            empty = "path" if not row["path"] else "label"
            raise ActionVitError(f"{place}: empty {empty}; fill it in or remove the line")
        split = row.get("split", "").lower()
        if split not in sets:
            raise ActionVitError(
                f"{place}: split `{printable(split)}`; expected train, test, val (set aside) or nothing"
            )
        path = Path(os.path.normpath(file.parent / row["path"]))
        id = _csv_id(row["path"], file.parent)
        if id in videos:
            raise ActionVitError(f"{place}: `{printable(id)}` stands in line {lines[id]} already; keep one of the two")
        source = row.get("source") or parse_source(stem(path.name), row["label"]) or id
        videos[id] = Video(id=id, path=path, label=row["label"], source=source)
        lines[id] = line
        sets[split].append(id)
    if not videos:
        raise ActionVitError(f"`{file}` lists no video; expected lines `path,label` below the header")
    if absent := [id for id, video in videos.items() if not video.path.exists()]:
        raise ActionVitError(
            f"`{file}` line {lines[absent[0]]}: no video `{printable(absent[0])}` in `{file.parent}`"
            f" ({pluralize(len(absent), 'path')} missing); mend the path or remove the line"
        )
    reading = Reading(
        videos=sorted(videos.values(), key=lambda video: video.id),
        frames=all(video.path.is_dir() for video in videos.values()),
    )
    _add_split(reading, file, sets)
    return reading


def _add_split(reading: Reading, file: Path, sets: dict[str, list[str]]) -> None:
    """Add the split of the column `split`, if the column is filled in anywhere."""
    if sets["val"]:
        reading.notes.append(f"{pluralize(len(sets['val']), 'video')} of split val set aside: neither train nor test")
    if not sets["train"] and not sets["test"]:
        return
    if not sets["train"] or not sets["test"]:
        missing = "test" if sets["train"] else "train"
        raise ActionVitError(f"`{file}`: column `split` names no {missing} video; name some of each")
    if unused := [*sets["val"], *sets[""]]:
        reading.notes.append(f"{pluralize(len(unused), 'video')} in neither train nor test: {abbreviate(unused)}")
    split = Split(name="official-1", train=tuple(sorted(sets["train"])), test=tuple(sorted(sets["test"])))
    reading.splits.append(split)


def _rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and stripped cells by column name."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, restval="", strict=True)
            columns = [(name or "").strip().lower() for name in reader.fieldnames or ()]
            for needed in ("path", "label"):
                if needed not in columns:
                    raise ActionVitError(
                        f"`{file}` has no column `{needed}`; its first line must read path,label[,split[,source]]"
                    )
            reader.fieldnames = columns
            for row in reader:
                yield reader.line_num, {name: cell.strip() for name, cell in row.items() if isinstance(cell, str)}
    except (UnicodeDecodeError, csv.Error) as error:
        raise ActionVitError(f"`{file}` is no CSV in UTF-8 ({error}); save it as comma-separated UTF-8 text") from error
    except FileNotFoundError as error:
        raise ActionVitError(f"dataset: no file `{file}`; give a folder of class folders or a CSV file") from error


def _csv_id(written: str, folder: Path) -> str:
    """Return the path relative to the CSV's folder, or the whole path where an absolute one leads elsewhere."""
    # Not resolved: a link into another folder keeps the name it was given here.
    target, base = (Path(os.path.normpath(path.absolute())) for path in (folder / written, folder))
    outside = Path(written).is_absolute() and not target.is_relative_to(base)
    return (target if outside else Path(os.path.relpath(target, base))).as_posix()
