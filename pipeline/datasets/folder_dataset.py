"""Read a folder of class folders; everything passed over is noted."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from actionvit.errors import ActionVitError
from actionvit.features.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from actionvit.pipeline.datasets.dataset import Split, Video
from actionvit.pipeline.datasets.names import parse_source, stem
from actionvit.pipeline.text import abbreviate, pluralize, printable


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


def scan_tree(root: Path, *, frames: bool | None = None) -> Reading:
    """Find the class folders of `root` and the videos in them: files, or folders of images where there are no files.

    Parameters
    ----------
    root : Path
        A folder of class folders.
    frames : bool, optional
        Look only for frame folders, or only for video files. By default video files are taken if there are any.

    Raises
    ------
    ActionVitError
        If `root` is missing, holds no class folder, or a class folder is empty.
    """
    if not root.is_dir():
        where = f"`{root}`, a file that is no .csv" if root.exists() else f"no folder `{root}`"
        raise ActionVitError(
            f"dataset: {where}; give a folder of class folders or a CSV file, or get HMDB51 with"
            " `actionvit data fetch hmdb51`"
        )
    try:
        return _scan(root, frames)
    except OSError as error:
        name = printable(str(error.filename or root))
        raise ActionVitError(f"dataset: cannot read `{name}` ({error.strerror}); check its permissions") from error


def _scan(root: Path, frames: bool | None) -> Reading:
    top = _entries(root)
    tree = {entry.name: _entries(entry.path) for entry in top if entry.is_dir() and entry.name[0] != "."}
    files = {label: [entry for entry in entries if _is_video_file(entry)] for label, entries in tree.items()}
    if frames is None:
        frames = not any(files.values())
    if frames:
        taken = {label: [entry for entry in entries if is_frame_folder(entry)] for label, entries in tree.items()}
    else:
        taken = files
    if not any(taken.values()):
        raise ActionVitError(_nothing_found(root))
    if empty := [label for label, entries in tree.items() if all(entry.name[0] == "." for entry in entries)]:
        raise ActionVitError(
            f"dataset: class folder {abbreviate(empty)} in `{root}` is empty; put its videos there or remove the folder"
        )
    videos, unreadable = [], []
    for label, entries in taken.items():
        for entry in entries:
            name = f"{label}/{entry.name}"
            if _is_text(name):
                source = parse_source(stem(name), label) or name
                videos.append(Video(id=name, path=Path(entry.path), label=label, source=source))
            else:
                unreadable.append(name)
    return Reading(
        videos=sorted(videos, key=lambda video: video.id),
        frames=frames,
        folders=tuple(sorted(label for label, entries in taken.items() if entries)),
        notes=list(_notes(top, tree, taken, unreadable)),
    )


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def _is_video_file(entry: os.DirEntry[str]) -> bool:
    # A link to a file that is gone stays a video: it must fail by name in the ledger, not vanish here.
    return entry.name.lower().endswith(VIDEO_SUFFIXES) and entry.name[0] != "." and not entry.is_dir()


def is_frame_folder(entry: os.DirEntry[str] | Path) -> bool:
    """Tell whether an entry of a class folder is a folder of images."""
    return entry.name[0] != "." and entry.is_dir() and _holds(entry, IMAGE_SUFFIXES)


def _holds(folder: os.PathLike[str] | str, suffixes: tuple[str, ...]) -> bool:
    """Tell whether a folder directly holds a file of these suffixes; stops at the first."""
    with os.scandir(folder) as entries:
        return any(entry.name.lower().endswith(suffixes) and entry.name[0] != "." for entry in entries)


def _is_text(name: str) -> bool:
    return name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)


def _nothing_found(root: Path) -> str:
    """Say what a folder without class folders lacks, and where the videos may be instead."""
    wanted = f"videos ({', '.join(VIDEO_SUFFIXES)}) or frame folders"
    for child in sorted(entry.path for entry in _entries(root) if entry.is_dir()):
        for grandchild in sorted(entry.path for entry in _entries(child) if entry.is_dir()):
            if _holds(grandchild, VIDEO_SUFFIXES) or any(is_frame_folder(entry) for entry in _entries(grandchild)):
                return f"dataset: no class folders with {wanted} in `{root}`; did you mean `{child}`?"
    if _holds(root, VIDEO_SUFFIXES):
        return f"dataset: the videos lie in `{root}` itself; sort them into class folders, or list them in a CSV file"
    return f"dataset: no class folders with {wanted} in `{root}`; expected `{root}/CLASS/VIDEO.avi`"


def _notes(
    top: list[os.DirEntry[str]],
    tree: dict[str, list[os.DirEntry[str]]],
    taken: dict[str, list[os.DirEntry[str]]],
    unreadable: Sequence[str],
) -> Iterator[str]:
    """Tell of everything that lies in or beside the class folders and was not taken."""
    if unreadable:
        yield f"{pluralize(len(unreadable), 'name')} left out, not UTF-8: {abbreviate(unreadable)}; rename to use"
    if loose := [entry.name for entry in top if _is_video_file(entry)]:
        yield f"{pluralize(len(loose), 'video')} outside the class folders passed over: {abbreviate(loose)}"
    lists = {label for label, entries in tree.items() if any("_test_split" in entry.name for entry in entries)}
    if beside := [label for label, entries in taken.items() if not entries and label not in lists]:
        yield f"{pluralize(len(beside), 'folder')} without videos passed over: {abbreviate(beside)}"
    used = {entry.path for entries in taken.values() for entry in entries}
    stray = [
        f"{label}/{entry.name}" for label in taken if taken[label] for entry in tree[label] if entry.path not in used
    ]
    hidden = [name for name in stray if "/." in name]
    if hidden:
        yield f"{pluralize(len(hidden), 'hidden file')} passed over: {abbreviate(hidden)}"
    if other := sorted(set(stray) - set(hidden)):
        yield f"{pluralize(len(other), 'entry', 'entries')} passed over, no video: {abbreviate(other)}"
