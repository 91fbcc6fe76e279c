"""The result of a reader, and the names of sets."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

from actionvit.errors import ActionVitError
from actionvit.pipeline.datasets.dataset import Split, Video
from actionvit.text import printable

SETS = {
    **dict.fromkeys(("train", "training", "trainval", "train_val", "train-val"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Common names of sets."""
_SET = re.compile(rf"(?<![a-z])({'|'.join(sorted(SETS, key=len, reverse=True))})(?:_?set|list)?(?![a-z])")
_TRAINVAL = re.compile(r"(?<![a-z])train[_-]?val(?![a-z])")
_NUMBER = re.compile(r"(?:split|fold)_?0*([0-9]{1,3})(?![0-9])|(?<=\{\})_?0*([0-9]{1,2})(?![0-9])")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SYSTEM_FOLDERS = frozenset(
    ("__macosx", "$recycle.bin", "@eadir", "#recycle", "system volume information", "lost+found")
)


@dataclass(slots=True, kw_only=True)
class Reading:
    """The videos and splits that a reader found, before they become a `Dataset`."""

    videos: list[Video]
    """Sorted by id."""
    frames: bool = False
    """Whether the videos are frame folders."""
    folders: tuple[str, ...] = ()
    """The names of the class folders, if there are any."""
    splits: list[Split] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    own_sources: set[str] = field(default_factory=set)
    """Ids whose source is given in a list, which takes precedence over the name."""


def set_name(text: str, place: str) -> str:
    """Return train, val, test or the empty string for a common name of a set. Raises ActionVitError."""
    if not text:
        return ""
    if (name := SETS.get(text.lower())) is None:
        raise ActionVitError(
            f"{place}: split `{printable(text)}`; expected train, test, val (or training; testing; valid, validation,"
            " dev) or nothing; rename a column of something else"
        )
    return name


def set_of(name: str) -> tuple[str, int, str]:
    """Return the set in the name of a list file or folder, the number of its split, and the name's pattern.

    `ucf101_train_split_1_videos.txt` gives `("train", 1, "ucf101_{}_split_#_videos.txt")`, the folder `videos_train`
    `("train", 1, "videos_{}")`; a name without a set, or with several as `train_test.txt`, gives an empty set.
    """
    lower = _HUMP.sub("_", name).lower()
    matches = [] if "_test_split" in lower else list(_SET.finditer(lower))
    if len(matches) != 1:
        return "", 1, name
    [match] = matches
    pattern = f"{lower[: match.start()]}{{}}{lower[match.end() :]}"
    number = _NUMBER.search(pattern)
    digits = (number[1] or number[2]) if number else "1"
    return SETS[match[1]], int(digits), _NUMBER.sub("#", pattern)


def is_trainval(name: str) -> bool:
    """Return whether a list file is called like the training and the validation set together."""
    return bool(_TRAINVAL.search(_HUMP.sub("_", name).lower()))


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, or a folder that a system or an archive leaves, as `__MACOSX`."""
    return name[0] == "." or name.lower() in _SYSTEM_FOLDERS


def is_loop(folder: str) -> bool:
    """Return whether a folder is a link to a folder that holds it."""
    if not os.path.islink(folder):  # noqa: PTH114 - called for each of 100,000 folders
        return False
    parent = os.path.realpath(os.path.dirname(folder))  # noqa: PTH120
    return os.path.join(parent, "").startswith(os.path.join(os.path.realpath(folder), ""))  # noqa: PTH118


def split_of(number: int, sets: dict[str, str]) -> Split:
    """Return an official split from `{video id: set name}`."""
    ids: dict[str, list[str]] = {"train": [], "val": [], "test": [], "": []}
    for id, name in sets.items():
        ids[name].append(id)
    train, val, test = (tuple(sorted(ids[name])) for name in ("train", "val", "test"))
    return Split(name=f"official-{number}", train=train, val=val, test=test)
