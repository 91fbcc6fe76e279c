"""Read HMDB51's split lists: `<class>_test_split<N>.txt`, one line `NAME.avi CODE` per video."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from actionvit.errors import ActionVitError, SettingError
from actionvit.pipeline.datasets.dataset import Split, Video
from actionvit.pipeline.datasets.names import stem
from actionvit.pipeline.datasets.textfile import head, read_lines
from actionvit.pipeline.datasets.ucf101 import read_ucf101, ucf101_file, ucf101_files
from actionvit.text import abbreviate, pluralize, printable

FOLDER_NAMES = ("testTrainMulti_7030_splits", "test_train_splits", "hmdb51_splits", "splits", "ucfTrainTestlist")
"""Usual folders of the lists; searched first, and one level deeper than other folders."""

_LOOKED_AT = 2000  # HMDB51 has 153 lists; a folder of a million files beside ROOT must not cost seconds
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{2,4}\Z")
_FILE = re.compile(r"(?P<label>.+)_test_split(?P<number>\d+)\.txt")


def is_official_list(file: Path) -> bool:
    """Return whether a file is a list of HMDB51 or UCF101, which needs its class folders to be read."""
    if _FILE.fullmatch(file.name):
        return all(line.rpartition(" ")[2] in ("0", "1", "2") for line in head(file))
    return ucf101_file(file.name) is not None


def find_lists(root: Path, labels: Iterable[str]) -> Path | None:
    """Return the folder inside or beside `root` that holds a list of one of these classes, or None.

    Folders inside `root` come before those beside it, usual names before others, then alphabetical order.
    """
    classes = set(labels)
    inside = [root, *(folder for folder in _subfolders(root) if folder.name not in classes)]
    parents = dict.fromkeys((root.absolute().parent, root.resolve().parent))  # beside a link, and beside its target
    beside = [folder for parent in parents for folder in (parent, *_subfolders(parent))]
    for folder in (*inside, *beside):
        nested = _subfolders(folder) if folder.name in FOLDER_NAMES else []
        for place in (folder, *nested):
            if _holds_list_of(place, classes):
                return place
    return None


def _holds_list_of(folder: Path, classes: set[str]) -> bool:
    """Return whether a folder has a list of one of these classes among its first entries; reads no more of it."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in islice(entries, _LOOKED_AT) if entry.name[0] != "."]
        if any(match["label"] in classes for name in names if (match := _FILE.fullmatch(name))):
            return True
        ucf101 = [folder / name for name in names if ucf101_file(name)]
        return any(line.partition("/")[0] in classes for file in ucf101 for line in head(file))
    except OSError:
        return False


def _subfolders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            folders = [Path(entry.path) for entry in entries if entry.name[0] != "." and entry.is_dir()]
    except OSError:  # an unreadable neighbor
        return []
    return sorted(folders, key=lambda path: (path.name not in FOLDER_NAMES, path.name))


def read_official(folder: Path, videos: Sequence[Video], *, certain: bool = True) -> tuple[list[Split], list[str]]:
    """Read every list in `folder` and match its names to the videos on disk; return splits and notes.

    A name matches the video of the same class and name, suffix apart; failing that, the one whose name differs only
    in characters that are neither letters nor digits (`@18` for `#18`), if there is exactly one on either side.
    Lists that are not `certain` to belong to these videos are ignored, with a note, if they name none of them.

    Raises
    ------
    ActionVitError
        If lists are missing, a line is not `NAME CODE`, or a list has none of its videos though their class exists.
    """
    if files := ucf101_files(folder):
        return read_ucf101(files, videos, certain=certain)
    lists = _read_lists(folder)
    ids: dict[str, dict[str, str]] = {}
    for video in videos:
        ids.setdefault(video.label, {})[stem(video.id)] = video.id
    listed: dict[str, set[str]] = {}
    for (_, label), codes in lists.items():
        listed.setdefault(label, set()).update(codes)
    matches = {label: _match(listed[label], ids.get(label, {})) for label in listed}
    if not certain and not any(matches.values()):
        return [], [f"split lists in `{folder}` ignored: they name none of these videos"]
    for (number, label), codes in lists.items():
        if label in ids and not any(name in matches[label] for name in codes):
            file, count = folder / f"{label}_test_split{number}.txt", pluralize(len(ids[label]), "video")
            raise ActionVitError(
                f"split list `{file}` names none of the {count} in class folder `{label}`;"
                " put its videos there, or correct or remove the list"
            )
    splits = [_split(number, lists, matches, folder) for number in sorted({number for number, _ in lists})]
    beside = [] if certain else [f"official split lists read from `{folder}`"]
    return splits, [*beside, *_notes(listed, matches, ids)]


def _read_lists(folder: Path) -> dict[tuple[int, str], dict[str, str]]:
    """Return `{(split number, class): {name without suffix: code}}` of every list in a folder."""
    try:
        files = sorted(path for path in folder.iterdir() if _FILE.fullmatch(path.name) and path.name[0] != ".")
    except OSError as error:
        raise SettingError(f"split lists: cannot read `{folder}` ({error.strerror}); check splits_dir=") from error
    if not files:
        raise SettingError(f"split lists: no `CLASS_test_split1.txt` in `{folder}`; check splits_dir=")
    lists: dict[tuple[int, str], dict[str, str]] = {}
    for file in files:
        match = _FILE.fullmatch(file.name)
        assert match is not None
        lists[int(match["number"]), match["label"]] = dict(_read_list(file))
    return lists


def _read_list(file: Path) -> Iterator[tuple[str, str]]:
    for line, text in read_lines(file):
        name, _, code = text.replace("\t", " ").rpartition(" ")
        if not name or code not in ("0", "1", "2"):
            raise ActionVitError(f"`{file}` line {line}: `{printable(text)}`; expected `NAME.avi CODE`, CODE 0, 1 or 2")
        yield _SUFFIX.sub("", name.rstrip()), code


def _match(names: Iterable[str], ids: Mapping[str, str]) -> dict[str, str]:
    """Return `{listed name: video id}` for one class; see `read_official` for the rule."""
    matched = {name: ids[name] for name in names if name in ids}
    listed, on_disk = _by_letters(name for name in names if name not in ids), _by_letters(ids.keys() - matched.keys())
    for letters, candidates in listed.items():
        if len(candidates) == 1 and len(on_disk.get(letters, ())) == 1:
            matched[candidates[0]] = ids[on_disk[letters][0]]
    return matched


def _by_letters(names: Iterable[str]) -> dict[str, list[str]]:
    """Group names that agree but for characters that are neither letters nor digits."""
    groups: dict[str, list[str]] = {}
    for name in names:
        letters = "".join(char if char.isalnum() else "_" for char in unicodedata.normalize("NFKC", name))
        groups.setdefault(letters, []).append(name)
    return groups


def _split(
    number: int,
    lists: Mapping[tuple[int, str], Mapping[str, str]],
    matches: Mapping[str, Mapping[str, str]],
    folder: Path,
) -> Split:
    sets: dict[str, list[str]] = {"0": [], "1": [], "2": []}  # unused, train, test
    for (other, label), codes in lists.items():
        if other == number:
            for name, video in matches[label].items():
                if name in codes:
                    sets[codes[name]].append(video)
    if not sets["1"] or not sets["2"]:
        raise ActionVitError(
            f"split lists in `{folder}`: split {number} has {pluralize(len(sets['1']), 'training video')} and"
            f" {pluralize(len(sets['2']), 'test video')} here; complete the dataset or give another splits_dir="
        )
    return Split(name=f"official-{number}", train=tuple(sorted(sets["1"])), test=tuple(sorted(sets["2"])))


def _notes(
    listed: Mapping[str, set[str]],
    matches: Mapping[str, Mapping[str, str]],
    ids: Mapping[str, Mapping[str, str]],
) -> Iterator[str]:
    if missing_classes := sorted(listed.keys() - ids.keys()):
        videos = sum(len(listed[label]) for label in missing_classes)
        classes = pluralize(len(missing_classes), "listed class", "listed classes")
        yield f"{classes} not here, with {pluralize(videos, 'video')}: {abbreviate(missing_classes)}"
    absent = [f"{label}/{name}" for label in ids for name in listed.get(label, set()) - matches.get(label, {}).keys()]
    if absent:
        yield f"{pluralize(len(absent), 'video')} in the official lists, but not here: {abbreviate(absent)}"
    listed_ids = {video for by_name in matches.values() for video in by_name.values()}
    unlisted = [video for by_stem in ids.values() for video in by_stem.values() if video not in listed_ids]
    if unlisted:
        yield f"{pluralize(len(unlisted), 'video')} here, but in no official list: {abbreviate(unlisted)}"
    respelt = [
        video for label, by_name in matches.items() for name, video in by_name.items() if ids[label].get(name) != video
    ]
    if respelt:
        yield f"{pluralize(len(respelt), 'video')} matched to the lists but for punctuation: {abbreviate(respelt)}"
