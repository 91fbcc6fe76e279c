"""Read UCF101's official lists: `trainlistNN.txt`, with `CLASS/NAME.avi NUMBER`, and `testlistNN.txt`, without numbers.

The class is the folder in each path; the number, from 1 as in `classInd.txt`, repeats it and is not needed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from actionvit.errors import ActionVitError
from actionvit.pipeline.datasets.dataset import Split, Video
from actionvit.pipeline.datasets.names import stem
from actionvit.pipeline.datasets.reading import split_of
from actionvit.pipeline.datasets.textfile import read_lines
from actionvit.text import abbreviate, pluralize, printable

_FILE = re.compile(r"(train|test)list([0-9]{1,3})\.txt")


def ucf101_file(name: str) -> re.Match[str] | None:
    """Return the match of a list's file name, with the set and the number of the split."""
    return _FILE.fullmatch(name)


def ucf101_files(folder: Path) -> list[Path]:
    """Return UCF101's list files in a folder, sorted; none where the folder cannot be read."""
    try:
        return sorted(file for file in folder.iterdir() if ucf101_file(file.name))
    except OSError:
        return []


def read_ucf101(
    files: Sequence[Path], videos: Sequence[Video], *, certain: bool = True
) -> tuple[list[Split], list[str]]:
    """Match the lists to the videos on disk; return splits and notes.

    Names match but for case and suffix: the folder `HandstandPushups` holds `v_HandStandPushups_g01_c01.avi`.

    Raises
    ------
    ActionVitError
        If a line is not `CLASS/NAME.avi [NUMBER]`, a set has no video, or a video is in both sets of one split.
    """
    ids = {_key(video.id): video.id for video in videos}
    sets: dict[int, dict[str, str]] = {}
    absent: set[str] = set()
    for file in files:
        match = ucf101_file(file.name)
        assert match is not None
        members = sets.setdefault(int(match[2]), {})
        for line, text in read_lines(file):
            path, _, number = text.rpartition(" ")
            path = path.rstrip() if number.isdecimal() and path else text
            if "/" not in path:
                raise ActionVitError(f"`{file}` line {line}: `{printable(text)}`; expected `CLASS/NAME.avi`")
            if (id := ids.get(_key(path))) is None:
                absent.add(path)
            elif members.setdefault(id, match[1]) != match[1]:
                raise ActionVitError(f"`{file}` line {line}: `{printable(path)}` is in the other set of the split, too")
    folder = files[0].parent
    if not certain and not any(sets.values()):
        return [], [f"split lists in `{folder}` ignored: they name none of these videos"]
    splits = [split_of(number, members) for number, members in sorted(sets.items())]
    for split in splits:
        if not split.train or not split.test:
            raise ActionVitError(
                f"split lists in `{folder}`: {split.name} has {pluralize(len(split.train), 'training video')} and"
                f" {pluralize(len(split.test), 'test video')} here; complete the dataset or give another splits_dir="
            )
    notes = [] if certain else [f"official split lists read from `{folder}`"]
    if absent:
        notes.append(f"{pluralize(len(absent), 'video')} in the official lists, but not here: {abbreviate(absent)}")
    listed = {id for members in sets.values() for id in members}
    if unlisted := [video.id for video in videos if video.id not in listed]:
        notes.append(f"{pluralize(len(unlisted), 'video')} here, but in no official list: {abbreviate(unlisted)}")
    return splits, notes


def _key(path: str) -> str:
    """Return class folder and name of a path, in lower case and without a suffix."""
    return f"{path.rpartition('/')[0].rpartition('/')[2]}/{stem(path)}".lower()
