"""What videos a CSV file lists: `path,label[,split[,source]]`."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from actionvit.errors import ActionVitError
from actionvit.pipeline.datasets.folder_dataset import Found, Scan, counted, printable


def read_csv(file: Path) -> Scan:
    """Read a list of videos: columns `path`, `label` and, if wanted, `split` (train or test) and `source`.

    Paths are relative to the file's folder; a path to a folder of images is a video too.

    Raises
    ------
    ActionVitError
        If a column is missing, a path is missing on disk or stands there twice, a label is empty, or a split
        is none of train, test, val and empty.
    """
    found: dict[str, Found] = {}
    lines: dict[str, int] = {}
    spare = 0
    for line, row in _rows(file):
        at = f"`{file}` line {line}"
        if not row["path"] or not row["label"]:
            raise ActionVitError(f"{at}: empty {'path' if not row['path'] else 'label'}; fill it in or remove the line")
        split = row.get("split", "").lower()
        if split not in ("", "train", "test", "val"):
            raise ActionVitError(f"{at}: split `{printable(split)}`; expected train, test, val (set aside) or nothing")
        spare += split == "val"
        path = Path(os.path.normpath(file.parent / row["path"]))
        key = _csv_id(row["path"], file.parent)
        if key in found:
            raise ActionVitError(f"{at}: `{printable(key)}` stands in line {lines[key]} already; keep one of the two")
        found[key] = Found(key, path, row["label"], "" if split == "val" else split, row.get("source", ""))
        lines[key] = line
    if not found:
        raise ActionVitError(f"`{file}` lists no video; expected lines `path,label` below the header")
    if absent := [key for key, item in found.items() if not item.path.exists()]:
        raise ActionVitError(
            f"`{file}` line {lines[absent[0]]}: no video `{printable(absent[0])}` in `{file.parent}`"
            f" ({counted(len(absent), 'path')} missing); mend the path or remove the line"
        )
    folders = [item.path.is_dir() for item in found.values()]
    notes = [f"{counted(spare, 'video')} of split val set aside: neither train nor test"] if spare else []
    return Scan(tuple(sorted(found.values())), all(folders), (), tuple(notes))


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
