"""Read a folder of class folders, or of split folders of class folders; ignored files are listed in notes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from actionvit.errors import ActionVitError
from actionvit.features.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from actionvit.pipeline.datasets.dataset import Video
from actionvit.pipeline.datasets.names import is_text, parse_source, stem
from actionvit.pipeline.datasets.reading import SETS, Reading, is_hidden, is_loop, set_of, split_of
from actionvit.text import abbreviate, pluralize, printable

MAX_DEPTH = 6
"""Folders below a class folder that are searched for videos."""
_WAYS_OUT = (
    "list the videos with their labels in a CSV file (path,label,split), put the set's own annotation file into"
    " the folder, or read the names as classes with format=folder"
)

Tree = dict[str, list[os.DirEntry[str]]]
"""The entries of each class folder."""


class _Found(NamedTuple):
    """A video in a class folder: its path below it, and its path."""

    name: str
    path: str


def scan_tree(root: Path, *, frames: bool | None = None, sets_are_classes: bool = False) -> Reading:
    """Find the class folders of `root` and the videos in them: files, or folders of images if there are none.

    Folders called `train`, `val`, `test` or the like, or `videos_train`, `train_256` and so on for several sets, are
    the sets of an official split if they hold class folders. In a class folder without videos, those in the folders
    below it are taken.

    Parameters
    ----------
    root : Path
        A folder of class folders.
    frames : bool, optional
        Look only for frame folders, or only for video files. By default video files are taken if there are any.
    sets_are_classes : bool
        Read folders called `train`, `test` or the like as classes.

    Raises
    ------
    ActionVitError
        If `root` is missing, holds no class folder, or a class folder is empty; if folders called like sets hold
        videos; or if no name is UTF-8.
    """
    if not root.is_dir():
        where = f"`{root}`, a file that is no .csv, .txt or .json list" if root.exists() else f"no folder `{root}`"
        raise ActionVitError(
            f"dataset: {where}; give a folder of class folders or a CSV file, or get HMDB51 with"
            " `actionvit data fetch hmdb51`"
        )
    try:
        top = _entries(root)
        sets = {} if sets_are_classes else _set_folders(root, top)
        reading = _scan_sets(root, top, sets, frames) if sets else _scan(root, top, frames)
    except OSError as error:
        name = printable(str(error.filename or root))
        raise ActionVitError(f"dataset: cannot read `{name}` ({error.strerror}); check its permissions") from error
    if not sets_are_classes:
        _refuse_inner_sets(root, reading, depth=3 if sets else 2)
    return reading


def _refuse_inner_sets(root: Path, reading: Reading, depth: int) -> None:
    """Raise if class folders hold folders called like sets (`CLASS/train/VIDEO`), whose videos would be mixed."""
    parts = (video.id.split("/")[:-1] for video in reading.videos)
    if inner := {
        "/".join(names[:depth]) for names in parts if len(names) >= depth and names[depth - 1].lower() in SETS
    }:
        raise ActionVitError(
            f"dataset: {abbreviate(inner)} in `{root}`: a folder called like a set below a class folder; put the set's"
            f" folder above the classes (`train/CLASS`), check root=, or {_WAYS_OUT}"
        )


def _set_folders(root: Path, top: Sequence[os.DirEntry[str]]) -> dict[str, str]:
    """Return `{folder: set}` of the folders that are called like sets and hold class folders; refuse others."""
    folders = _folders(top)
    called = _called_like_sets(folders)
    if holding := [name for name in called if _holds_videos(_entries(root / name))]:
        raise ActionVitError(
            f"dataset: {abbreviate(holding)} in `{root}`: videos in a folder called like a set, not like a class;"
            f" {_WAYS_OUT}"
        )
    for name in set(called.values()):
        if len(several := [folder for folder, of in called.items() if of == name]) > 1:
            raise ActionVitError(
                f"dataset: {abbreviate(several)} in `{root}`: several folders of the set {name}; keep one, or"
                f" {_WAYS_OUT}"
            )
    incomplete = "train" not in called.values() or set(called.values()) == {"train"}
    others = [entry.name for entry in folders if entry.name not in called and _holds_below(entry)] if called else []
    if incomplete and others:
        absent = "val or test" if "train" in called.values() else "train"
        raise ActionVitError(
            f"dataset: {abbreviate(called)} in `{root}`: called like a set, but no folder is called {absent}, and"
            f" {abbreviate(others)} would be left out; rename the folders, or {_WAYS_OUT}"
        )
    return called


def _called_like_sets(folders: Sequence[os.DirEntry[str]]) -> dict[str, str]:
    """Return `{folder: set}` of the folders with videos that are called like sets.

    A name that only contains a set's, as `train_256` or `ride_train`, counts if others differ from it in the set alone
    (`val_256`), if all other folders with videos are called like sets as well, or beside a folder called `train`.
    """
    keys = {entry.name: set_of(entry.name) for entry in folders}
    called = {entry.name: keys[entry.name] for entry in folders if keys[entry.name][0] and _holds_below(entry)}
    patterns: dict[tuple[int, str], set[str]] = {}
    for name, number, pattern in called.values():
        patterns.setdefault((number, pattern), set()).add(name)
    plain = any(pattern == "{}" for _, pattern in patterns)
    several = len({name for name, _, _ in called.values()}) > 1
    if not plain and (not several or any(_holds_below(entry) for entry in folders if entry.name not in called)):
        called = {folder: key for folder, key in called.items() if len(patterns[key[1:]]) > 1}
    return {folder: key[0] for folder, key in called.items()}


def _holds_below(folder: os.DirEntry[str]) -> bool:
    """Return whether a folder holds videos or frame folders, or class folders with videos at any depth."""
    entries = _entries(folder.path)
    return (
        _holds_videos(entries)
        or any(_holds_videos(_entries(inner.path)) for inner in _folders(entries))
        or next(_below(entries), None) is not None
    )


def _holds_videos(entries: Sequence[os.DirEntry[str]]) -> bool:
    return any(map(_is_video_file, entries)) or any(map(is_frame_folder, entries))


def _scan_sets(root: Path, top: Sequence[os.DirEntry[str]], sets: dict[str, str], frames: bool | None) -> Reading:
    """Read `SET/CLASS/VIDEO`; ids begin with the set's folder."""
    reading = Reading(videos=[])
    members = {}
    for folder in sorted(sets):
        part = _scan(root / folder, _entries(root / folder), frames, prefix=f"{folder}/")
        reading.videos += part.videos
        reading.notes += [f"{folder}: {note}" for note in part.notes]
        reading.frames |= part.frames
        members.update(dict.fromkeys((video.id for video in part.videos), sets[folder]))
    others = [entry for entry in _folders(top) if entry.name not in sets]
    if unread := [entry.name for entry in others if _holds_below(entry)]:
        count = pluralize(len(unread), "folder")
        reading.notes.insert(
            0, f"{count} of videos beside the sets left out, not called like a set: {abbreviate(unread)}"
        )
    if empty := [entry.name for entry in others if entry.name not in unread]:
        reading.notes.append(f"{pluralize(len(empty), 'folder')} beside the sets ignored: {abbreviate(empty)}")
    reading.videos.sort(key=lambda video: video.id)
    reading.splits.append(split_of(1, members))
    return reading


def _scan(root: Path, top: Sequence[os.DirEntry[str]], frames: bool | None, prefix: str = "") -> Reading:
    tree = {entry.name: _entries(entry.path) for entry in _folders(top)}
    direct = {label: [entry for entry in entries if _is_video_file(entry)] for label, entries in tree.items()}
    if frames is None:
        frames = not any(direct.values()) and any(
            is_frame_folder(entry) for folder in tree.values() for entry in folder
        )
    nested: list[str] = []
    if frames:
        taken = {
            label: [_found(entry) for entry in entries if is_frame_folder(entry)] for label, entries in tree.items()
        }
    else:
        taken = {label: [_found(entry) for entry in entries] for label, entries in direct.items()}
        deep = {label: list(_below(tree[label])) for label, entries in direct.items() if not entries}
        nested = [label for label, videos in deep.items() if videos]
        if len(nested) > 1 or any(direct.values()):
            taken.update({label: deep[label] for label in nested})
    if not any(taken.values()):
        raise ActionVitError(_nothing_found(root))
    if empty := [label for label, entries in tree.items() if all(entry.name[0] == "." for entry in entries)]:
        raise ActionVitError(
            f"dataset: class folder {abbreviate(empty)} in `{root}` is empty; put its videos there or remove the folder"
        )
    videos, unreadable = [], []
    groups = {label: {video.name.rpartition("/")[0] for video in taken[label]} for label in nested if taken[label]}
    grouped = bool(groups) and all(len(folders) > 1 for folders in groups.values())
    for label, entries in taken.items():
        for video in entries:
            name = f"{prefix}{label}/{video.name}"
            if not is_text(name):
                unreadable.append(name)
                continue
            folder = name.rpartition("/")[0] if grouped and label in nested else name
            source = parse_source(stem(name), label) or folder
            videos.append(Video(id=name, path=Path(video.path), label=label, source=source))
    if not videos:
        raise ActionVitError(
            f"dataset: all {len(unreadable)} names in `{root}` are not UTF-8 (as from a zip made under Windows in"
            f" another language): {abbreviate(unreadable, 1)}; rename them, e.g. with convmv"
        )
    return Reading(
        videos=sorted(videos, key=lambda video: video.id),
        frames=frames,
        folders=tuple(sorted(label for label, entries in taken.items() if entries)),
        notes=list(_notes(top, tree, taken, unreadable, nested if not frames else ())),
    )


def _found(entry: os.DirEntry[str]) -> _Found:
    return _Found(entry.name, entry.path)


def _below(entries: Sequence[os.DirEntry[str]], prefix: str = "", depth: int = MAX_DEPTH) -> Iterator[_Found]:
    """Yield the video files in the folders below a class folder."""
    for folder in _folders(entries) if depth else ():
        inner = _entries(folder.path)
        for entry in inner:
            if _is_video_file(entry):
                yield _Found(f"{prefix}{folder.name}/{entry.name}", entry.path)
        yield from _below(inner, f"{prefix}{folder.name}/", depth - 1)


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def _folders(entries: Sequence[os.DirEntry[str]]) -> list[os.DirEntry[str]]:
    return [entry for entry in entries if entry.is_dir() and not is_hidden(entry.name) and not is_loop(entry.path)]


def _is_video_file(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a video file, and not a FIFO or device."""
    if entry.name[0] == "." or not entry.name.lower().endswith(VIDEO_SUFFIXES):
        return False
    # A dangling link counts as a video, so that it is listed among the failures instead of vanishing.
    return entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists())


def is_frame_folder(entry: os.DirEntry[str] | Path) -> bool:
    """Return whether an entry of a class folder is a folder of images."""
    return not is_hidden(entry.name) and entry.is_dir() and _holds(entry, IMAGE_SUFFIXES)


def _holds(folder: os.PathLike[str] | str, suffixes: tuple[str, ...]) -> bool:
    """Return whether a folder directly holds a file of these suffixes; stops at the first."""
    with os.scandir(folder) as entries:
        return any(entry.name.lower().endswith(suffixes) and entry.name[0] != "." for entry in entries)


def _nothing_found(root: Path) -> str:
    """Return an error for a folder without class folders, which suggests where the videos may be instead."""
    contents = "videos (.avi, .mp4, .mkv, .webm and the like) or frame folders"
    if likely := _class_folder_parents(_entries(root)):
        classes = " If these are the classes, list the videos in a CSV file (path,label)" if len(likely) > 1 else ""
        return f"dataset: no class folders with {contents} in `{root}`; did you mean {abbreviate(likely)}?{classes}"
    if _holds(root, VIDEO_SUFFIXES):
        return f"dataset: the videos lie in `{root}` itself; sort them into class folders, or list them in a CSV file"
    if any(map(is_frame_folder, _entries(root))):
        return (
            f"dataset: folders of images lie in `{root}` itself; if each is a video, sort them into class folders, or"
            " list them in a CSV file"
        )
    return f"dataset: no class folders with {contents} in `{root}`; expected `{root}/CLASS/VIDEO.avi`"


def _class_folder_parents(entries: Sequence[os.DirEntry[str]], depth: int = 3) -> list[str]:
    """Return the folders below these entries that hold folders of videos; those of the least depth."""
    folders = sorted(_folders(entries), key=lambda entry: entry.name)
    inner = {folder.path: _entries(folder.path) for folder in folders}
    likely = [path for path, below in inner.items() if any(_holds_videos(_entries(f.path)) for f in _folders(below))]
    if likely or depth == 1:  # `videos` for `videos/train` and `videos/test`
        return list(dict.fromkeys(os.path.dirname(path) if set_of(Path(path).name)[0] else path for path in likely))  # noqa: PTH120
    return [path for below in inner.values() for path in _class_folder_parents(below, depth - 1)]


def _notes(
    top: Sequence[os.DirEntry[str]],
    tree: Tree,
    videos: dict[str, list[_Found]],
    unreadable: Sequence[str],
    nested: Sequence[str],
) -> Iterator[str]:
    """Yield a note for each kind of file or folder, in or beside the class folders, that is not part of the dataset."""
    if unreadable:
        yield f"{pluralize(len(unreadable), 'name')} left out, not UTF-8: {abbreviate(unreadable)}; rename to use"
    if system := [entry.name for entry in top if entry.is_dir() and entry.name[0] != "." and is_hidden(entry.name)]:
        yield f"{pluralize(len(system), 'folder')} of the system or an archive ignored: {abbreviate(system)}"
    if loose := [entry.name for entry in top if _is_video_file(entry)]:
        yield f"{pluralize(len(loose), 'video')} outside the class folders ignored: {abbreviate(loose)}"
    lists = {
        label
        for label, entries in tree.items()
        if any("_test_split" in entry.name or entry.name.startswith(("trainlist", "testlist")) for entry in entries)
    }
    if beside := [label for label, entries in videos.items() if not entries and label not in lists]:
        framed = [label for label in beside if any(map(is_frame_folder, tree[label]))]
        if framed and any(videos.values()):
            count = pluralize(len(framed), "class folder")
            yield f"{count} of frame folders ignored, as others hold video files: {abbreviate(framed)}"
        if bare := [label for label in beside if label not in framed]:
            yield f"{pluralize(len(bare), 'folder')} without videos ignored: {abbreviate(bare)}"
    if taken_nested := [label for label in nested if videos[label]]:
        count = pluralize(len(taken_nested), "class", "classes")
        yield f"videos of {count} lie in folders below the class folder: {abbreviate(taken_nested)}"
        shared = set.intersection(
            *({video.name.partition("/")[0] for video in videos[label]} for label in taken_nested)
        )
        if len(taken_nested) > 1 and len(words := [name for name in shared if not name.isdecimal()]) > 1:
            yield (
                f"the folders below have the same names, {abbreviate(words)}: if they are the classes, change root= or"
                " list the videos in a CSV file (path,label)"
            )
    direct = [label for label in videos if videos[label] and label not in nested]
    deeper = [f"{label}/{video.name}" for label in direct for video in _below(tree[label])]
    if deeper:
        count = pluralize(len(deeper), "video")
        yield f"{count} in folders below class folders that hold videos themselves ignored: {abbreviate(deeper)}"
    used = {video.path for entries in videos.values() for video in entries}
    inner = {"/".join(name.split("/")[:2]) for name in deeper}
    stray = [f"{label}/{entry.name}" for label in direct for entry in tree[label] if entry.path not in used]
    hidden = [name for name in stray if "/." in name]
    if hidden:
        yield f"{pluralize(len(hidden), 'hidden file')} ignored: {abbreviate(hidden)}"
    if other := sorted(set(stray) - set(hidden) - inner):
        yield f"{pluralize(len(other), 'entry', 'entries')} ignored, no video: {abbreviate(other)}"
