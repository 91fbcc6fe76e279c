"""Detect which format a folder or a list file has, by fixed file names and by first lines."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from actionvit.errors import ActionVitError, SettingError
from actionvit.features.media import VIDEO_SUFFIXES
from actionvit.pipeline.datasets.formats import lists, public, tables
from actionvit.pipeline.datasets.formats.places import ListFile, existing, move_to_common_base
from actionvit.pipeline.datasets.formats.rows import Listing
from actionvit.pipeline.datasets.official import is_official_list
from actionvit.pipeline.datasets.reading import SETS, is_hidden, set_of
from actionvit.pipeline.datasets.textfile import head
from actionvit.pipeline.datasets.ucf101 import ucf101_file
from actionvit.text import abbreviate, pluralize

SUFFIXES = (*lists.SUFFIXES, ".json", ".jsonl")
ANNOTATIONS = ("annotations", "labels", "annotation", "lists", "splits", "split", "anno", "annos", "ann", "meta")
"""Folders in ROOT where sets keep their annotation files."""
_MAX_LISTS = 50


def is_list_file(path: Path) -> bool:
    """Return whether ROOT is a list rather than a folder or a video."""
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


def read_list_file(file: Path, format: str | None = None) -> Listing:
    """Read a list file given as ROOT, together with the lists of the other sets beside it."""
    if format is None:
        _refuse_official(file)
    first = [line for line in head(file) if not re.fullmatch("sep=.", line)]
    name = format or _format_of(file, first)
    folder, group = file.parent, lists.siblings(file)
    if name == "csv":
        return _read_table_group(file, group)
    if name in ("list", "frame-list"):
        return lists.read_lists(group, _roots(folder), frames=_frames(format))
    return _read_public(name, folder, [path for path, _, _ in group])


def _refuse_official(file: Path) -> None:
    """Raise for a list of HMDB51 or UCF101, whose numbers are codes of sets, or whose test list has no labels."""
    if is_official_list(file):
        raise ActionVitError(
            f"`{file}` is called like an official list of HMDB51 or UCF101; give the folder of the class folders as"
            f" root= and splits_dir={file.parent}, or read it as a list `path label` with format=list"
        )


def _read_table_group(file: Path, group: Sequence[ListFile]) -> Listing:
    """Read a table, and those of the other sets beside it unless it names its sets itself."""
    if len(group) == 1:
        return _read_tables([(file, "", 1)], _roots(file.parent))
    alone = _read_tables([(file, "", 1)], _roots(file.parent))
    if any(row.sets for _, rows in alone.files for row in rows):
        others = [path.name for path, _, _ in group if path != file]
        alone.notes.append(f"`{file.name}` has a column for the split: {abbreviate(others)} beside it not read")
        return alone
    if not all(tables.is_header(_first(path)) for path, _, _ in group):
        without = [path.name for path, _, _ in group if not tables.is_header(_first(path))]
        raise ActionVitError(f"`{file}` has a header, and {abbreviate(without)} beside it has none; give all lists one")
    return _read_tables(_one_split(group), _roots(file.parent))


def _one_split(group: Sequence[ListFile]) -> Sequence[ListFile]:
    """Return tables that are the sets of one split; raise if they are of several."""
    if len({name for _, name, _ in group}) < len(group):
        names = ", ".join(f"`{path.name}`" for path, _, _ in group)
        raise ActionVitError(f"{names}: several official splits as tables; give one table with `split1`, `split2`")
    return group


def _read_tables(files: Sequence[ListFile], roots: Sequence[Path]) -> Listing:
    """Read tables with a header; a file that is of a set puts its videos into it."""
    parts = [tables.read_table(file, label_needed=name != "test") for file, name, _ in files]
    listing = parts[0]
    listing.notes = [note for part in parts for note in part.notes]
    listed = []
    for (file, name, _), part in zip(files, parts, strict=True):
        [(_, rows)] = part.files
        for row in rows if name else ():
            if other := next((of for _, of in row.sets if of not in ("", name)), ""):
                raise ActionVitError(
                    f"`{file}` line {row.line}: split `{other}` in a list of the set {name}; give the file alone as"
                    " root= to read its column, or remove the column"
                )
        listed.append((file, [row._replace(sets=((1, name),)) for row in rows] if name else rows))
    listing.files = listed
    if len(files) > 1 or files[0][1]:
        listing.sets_by = "the list files name"
    move_to_common_base(listing, files, roots)
    return listing


def read_given_lists(root: Path, set_files: Mapping[str, Path], format: str | None = None) -> Listing:
    """Read one list file per set; paths start at ROOT, or at the file's folder where more of them exist."""
    files = [(file, _set(name), 1) for name, file in set_files.items()]
    for file, _, _ in files:
        if not file.is_file():
            raise SettingError(f"list: no file `{file}`; expected split=FILE")
        if format is None:
            _refuse_official(file)
    roots = (root, *_roots(root), *_roots(files[0][0].parent))
    headers = [tables.is_header(_first(file)) for file, _, _ in files]
    if format in (None, "csv") and all(headers):
        return _read_tables(files, roots)
    if format is None and any(headers):
        without = [str(file) for (file, _, _), header in zip(files, headers, strict=True) if not header]
        raise SettingError(f"list: {abbreviate(without)} has no header, but other lists have; give all lists one")
    return lists.read_lists(files, roots, frames=_frames(format))


def read_lists_in(root: Path, format: str | None = None) -> Listing | None:
    """Return the listing of the annotation files in a folder, or None if it holds none that name its videos."""
    files = [file for folder in (root, *(root / name for name in ANNOTATIONS)) for file in _list_files(folder)]
    by_format: dict[str, list[Path]] = {}
    for file in files:
        by_format.setdefault(_public_format(file), []).append(file)
    metadata = [root / name for name in tables.METADATA] + [
        folder / name for folder in _folders(root) if folder.name.lower() in SETS for name in tables.METADATA
    ]
    if present := [file for file in metadata if file.is_file() and _names_files(file)]:
        by_format["videofolder"] = present
    for name in ("ssv2", "diving48", "jester", "kinetics", "videofolder"):
        if by_format.get(name) and format in (None, name):
            return _read_public(name, root, by_format[name])
    if format in (None, "list", "frame-list"):
        return _generic_lists(root, by_format.get("", []), format)
    if format in ("ssv2", "diving48", "jester", "kinetics", "videofolder"):
        raise SettingError(f"dataset: no {format} lists in `{root}`; put them there or choose another format=")
    return None


def _generic_lists(root: Path, files: list[Path], format: str | None) -> Listing | None:
    """Read `train.csv`, `val.csv` and the like if most of the paths in them exist."""
    for file in files:
        group = lists.siblings(file)
        if len(group) < 2:
            continue
        roots = (*_roots(file.parent), *_roots(root))
        if all(tables.is_header(_first(path)) for path, _, _ in group):
            return _read_tables(_one_split(group), roots)
        if format or lists.looks_like_lists(group, roots):
            try:
                return lists.read_lists(group, roots, frames=_frames(format))
            except ActionVitError as error:
                raise ActionVitError(
                    f"{error}; to read the folders alone, choose format=sets or format=folder"
                ) from error
    return None


def unread_lists(root: Path, read: Collection[Path] = ()) -> list[Path]:
    """Return the list files in ROOT, its folders for annotations and beside it that name videos and were not read."""
    inside = [file for folder in (root, *(root / name for name in ANNOTATIONS)) for file in _list_files(folder)]
    beside = [] if read else [file for file in _list_files(root.absolute().parent) if _lists_videos(file, root)]
    of_sets = [
        file
        for file in inside
        if file not in read and (_has_set(file) or tables.is_header(_first(file)) or _lists_videos(file, root))
    ]
    return [*of_sets, *beside]


def _lists_videos(file: Path, root: Path) -> bool:
    """Return whether the first lines name videos in ROOT, by paths below it or beside it."""
    paths = {part.strip('"') for line in head(file) for part in (line, *re.split(r"[\s,;]", line)) if part}
    below = {path.removeprefix(f"{root.absolute()}/").removeprefix(f"{root.absolute().name}/") for path in paths}
    likely = {path for path in below if path.lower().endswith(VIDEO_SUFFIXES) or re.fullmatch(r"[^/.].*/.*[^/]", path)}
    return any(path[0] != "/" and existing([path], root) for path in likely)


def _read_public(format: str, root: Path, files: list[Path]) -> Listing:
    if format == "ssv2":
        return public.read_ssv2(root, [file for file in files if file.suffix == ".json" and _has_set(file)])
    if format == "diving48":
        vocabulary = next((path for file in files for path in file.parent.glob("Diving48*vocab*.json")), None)
        return public.read_diving48(root, [file for file in files if _has_set(file)], vocabulary)
    if format == "jester":
        return public.read_jester(root, [file for file in files if _has_set(file)])
    if format == "kinetics":
        return public.read_kinetics(root, files)
    if format == "videofolder":
        listing = tables.read_videofolder(root, files)
        if others := public.unlisted(root, listing):
            listing.notes.append(f"{pluralize(len(others), 'video')} in no metadata file: {abbreviate(others)}")
        return listing
    raise SettingError(f"format: got `{format}` for a list file; it is for folders")


def _format_of(file: Path, first: list[str]) -> str:
    """Return the format of a list file given as ROOT."""
    if file.name in tables.METADATA or file.suffix.lower() == ".jsonl":
        return "videofolder"
    if name := _public_format(file):
        return name
    if file.suffix.lower() == ".json":
        raise ActionVitError(f"`{file}`: a JSON list of an unknown set; expected Something-Something's or Diving48's")
    header = not first or tables.is_header(first[0]) or _names_label(file, first[0])
    return "csv" if header and (first or file.suffix.lower() == ".csv") else "list"


def _names_label(file: Path, line: str) -> bool:
    """Return whether a line looks like a header without a column of paths: refused as a table, not read as a video."""
    names = tables.header_names(line)
    if len(names) < 2 or not tables.columns_of(names) or any(re.search(r"[/.]|^-?[0-9]+$", name) for name in names[1:]):
        return False
    first = line.split(tables.delimiter_of(line))[0].strip('" ')
    return "/" not in first and not any(existing([first], root) for root in _roots(file.parent) if first)


def _public_format(file: Path) -> str:
    """Return the public set that an annotation file belongs to, by its name and its first characters, or ''."""
    name, line = file.name.lower(), _first(file)
    if name.endswith(".json") and _has_set(file):
        start = " ".join(head(file, 6))[:600]
        if '"vid_name"' in start:
            return "diving48"
        return "ssv2" if '"id"' in start else ""
    if name.endswith(".csv"):
        if "youtube_id" in line.lower() and not tables.is_header(line):
            return "kinetics"
        identifier, semicolon, _ = line.partition(";")
        if _has_set(file) and (semicolon or "jester" in name) and identifier.isdecimal():
            return "jester"
    return ""


def _names_files(metadata: Path) -> bool:
    """Return whether the metadata of a folder names its videos."""
    line = _first(metadata)
    return '"file_name"' in line if metadata.suffix == ".jsonl" else "file_name" in line.lower()


def _has_set(file: Path) -> bool:
    return bool(set_of(file.name)[0])


def _first(file: Path) -> str:
    return next((line for line in head(file, 2) if not re.fullmatch("sep=.", line)), "")


def _set(name: str) -> str:
    if name.lower() not in SETS:
        raise SettingError(f"list: got `{name}`, expected train, val or test, as in train=FILE")
    return SETS[name.lower()]


def _frames(format: str | None) -> bool | None:
    return None if format is None else format == "frame-list"


def _roots(folder: Path) -> tuple[Path, ...]:
    """Return the folders at which paths of a list in `folder` may start: itself, those in it, and its parent."""
    return (folder, *_folders(folder)[:_MAX_LISTS], folder.absolute().parent)


def _folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted; none where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry.path) for entry in entries if not is_hidden(entry.name) and entry.is_dir())
    except OSError:
        return []


def _list_files(folder: Path) -> list[Path]:
    """Return the list files in a folder, sorted, apart from HMDB51's and UCF101's, which belong to class folders."""
    try:
        with os.scandir(folder) as entries:
            names = [
                entry.name
                for entry in entries
                if entry.name.lower().endswith(SUFFIXES) and entry.name[0] != "." and entry.is_file()
            ]
    except OSError:
        return []
    others = [name for name in sorted(names) if "_test_split" not in name and not ucf101_file(name)]
    return [folder / name for name in others[:_MAX_LISTS]]
