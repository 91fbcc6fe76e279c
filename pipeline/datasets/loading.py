"""Read a folder or a list of videos into a sorted `Dataset` with its official splits."""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from actionvit.errors import ActionVitError, SettingError
from actionvit.features.media import VIDEO_SUFFIXES
from actionvit.pipeline.datasets.dataset import Dataset, Format, Split, Video
from actionvit.pipeline.datasets.folder_dataset import scan_tree
from actionvit.pipeline.datasets.formats import sniffing
from actionvit.pipeline.datasets.formats.class_names import name_classes
from actionvit.pipeline.datasets.formats.rows import Listing, resolve
from actionvit.pipeline.datasets.names import letters
from actionvit.pipeline.datasets.official import find_lists, read_official
from actionvit.pipeline.datasets.reading import SETS, Reading, set_of
from actionvit.pipeline.datasets.sources import merge_sources
from actionvit.pipeline.datasets.ucf101 import ucf101_files
from actionvit.text import abbreviate, pluralize

FOLDER_FORMATS = {
    "hmdb51": "HMDB51's class folders and lists",
    "ucf101": "UCF101's class folders and lists",
    "folder": "class folders",
    "frames": "class folders of frame folders",
    "sets": "split folders of class folders",
}

_LEFTOVER = re.compile(r"\.(f[0-9]{2,4}|temp|tmp|part)\.[A-Za-z0-9]+\Z")
"""End of the names that yt-dlp gives to parts of a download."""


def load_dataset(
    root: Path | str,
    *,
    format: Format | None = None,
    lists: Mapping[str, Path | str] | None = None,
    splits_dir: Path | None = None,
    name: str | None = None,
    test_split: Literal["test", "val"] = "test",
    skip_missing: bool = False,
) -> Dataset:
    """Read a dataset's videos, labels and official splits; no video is opened.

    Parameters
    ----------
    root : path
        A folder, in any of the formats of `Format`, or a list file: a CSV table or a list without a header.
    format : str, optional
        Read this format instead of detecting it; `folder` looks for no lists.
    lists : mapping of str to path, optional
        A list file per set, `{"train": "train.txt", "val": "val.txt"}`; paths in them start at `root`.
    splits_dir : Path, optional
        The folder with HMDB51's or UCF101's official lists; by default looked for inside and beside `root`.
    name : str, optional
        The dataset's name, which its folder in a cache has, too; by default that of the folder or file.
    test_split : {"test", "val"}
        The set that official splits test on, for data without a public test set.
    skip_missing : bool
        Leave out listed videos that are not on disk, with a note, instead of refusing the list.

    Returns
    -------
    Dataset
        Videos sorted by id, independent of the order in which the file system lists them.

    Raises
    ------
    ActionVitError
        If no video is found, a class is empty, a list is wrong, or the name is not valid for a folder.
    """
    root = Path(root)
    if format is not None and format not in get_args(Format):
        raise SettingError(f"format: got `{format}`, expected one of {', '.join(get_args(Format))}")
    set_files = {set: Path(file) for set, file in (lists or {}).items()}
    listing = _listing(root, format, set_files, splits_dir)
    if listing is not None:
        listing.notes += name_classes(listing) if listing.format != "diving48" else []
        reading = resolve(listing, skip_missing=skip_missing)
        kind, description, base = listing.format, listing.description, listing.base
    else:
        reading = _scan_tree(root, format)
        kind = _read_folder(reading, root, splits_dir, format)
        description, base = FOLDER_FORMATS[kind], root
    reading.videos, merged = merge_sources(reading.videos, reading.own_sources)
    if merged:
        names = sum(map(len, merged.values()))
        reading.notes.append(f"{names} source names are parts or spellings of {pluralize(len(merged), 'film')}, merged")
    dataset = Dataset(
        name=_folder_name(name or _default_name(root, listing)),
        root=base,
        format=kind,  # type: ignore[arg-type]
        videos=tuple(reading.videos),
        class_names=tuple(sorted({video.label for video in reading.videos} - {""})),
        official=tuple(reading.splits),
        notes=tuple(
            dict.fromkeys(
                (
                    *_label_notes(reading),
                    *_copy_notes(reading.videos),
                    *reading.notes,
                    *_unread_notes(root, listing, format),
                    *_class_notes(reading),
                    *_source_notes(reading.videos),
                )
            )
        ),
        origin=None if root == base else root.absolute(),
        lists=tuple(set_files.items()),
        description=description,
        sources_known=any(video.source != video.id for video in reading.videos),
        merged_sources=merged,
        files=tuple(file for file, _ in listing.files) if listing else (),
    )
    return _choose_test_set(dataset, test_split)


def _scan_tree(root: Path, format: Format | None) -> Reading:
    """Read class folders; an error names the list files in ROOT that may be meant."""
    frames = format == "frames" if format in ("frames", "folder") else None
    try:
        return scan_tree(root, frames=frames, sets_are_classes=format == "folder")
    except ActionVitError as error:
        files = sniffing.unread_lists(root) if root.is_dir() else []
        if names := [os.path.relpath(file, root) for file in files if file.suffix.lower() != ".json"]:
            raise ActionVitError(
                f"{error}; to read a list file there, give it as root=: {abbreviate(names)}"
            ) from error
        raise


def reload(record: Mapping[str, Any], root: Path | None = None, *, official: bool = False) -> Dataset:
    """Read again the dataset that a store or run recorded, or the one at `root` in the same format.

    The split lists of HMDB51 and UCF101 do not change labels. They are read with `official`, if they are still there.
    """
    format = record.get("layout")
    if root is None:
        root = Path(record.get("csv") or record["root"])
    if format == "csv" and root.is_dir():  # of the first edition, which recorded only the folder of the list
        root = root / f"{record['dataset']}.csv"
    if format in ("hmdb51", "ucf101"):
        if official:
            with contextlib.suppress(ActionVitError):
                return load_dataset(root, format=format, skip_missing=True)
        format = "folder"
    return load_dataset(
        root,
        format=format,
        lists=record.get("lists"),
        skip_missing=True,
    )


def _listing(
    root: Path, format: Format | None, set_files: Mapping[str, Path], splits_dir: Path | None
) -> Listing | None:
    """Return the listing of the list files that are given, named by ROOT or in it; None for class folders alone."""
    if set_files:
        return sniffing.read_given_lists(root, set_files, format)
    if format in FOLDER_FORMATS:
        return None
    if sniffing.is_list_file(root) or (format is not None and not root.is_dir()):
        if splits_dir is not None:
            raise SettingError(f"`{root}`: splits_dir= is for folders; a CSV file has a column `split`")
        return sniffing.read_list_file(root, format)
    if splits_dir is not None or not root.is_dir():
        return None
    if format == "csv":
        raise SettingError(f"format: `csv` is for a file, and `{root}` is a folder; give the file as root=")
    return sniffing.read_lists_in(root, format)


def _default_name(root: Path, listing: Listing | None) -> str:
    """Return the name of the folder or list file; if the file is named like a set, that of its folder."""
    if listing is None or root.is_dir():
        return Path(os.path.normpath(root.absolute())).name
    of_set = root.stem.lower() in SETS or (len(listing.files) > 1 and set_of(root.name)[0])
    return root.absolute().parent.name if of_set else root.stem


def _folder_name(name: str) -> str:
    """Return the dataset's name, which becomes a folder in the cache; refuse names that would lead elsewhere."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise SettingError(f"name: got {name!r}, expected a word without `/`; choose another name=")
    return name


def _read_folder(reading: Reading, root: Path, splits_dir: Path | None, format: Format | None) -> str:
    """Add the splits of the official lists given or found to a reading of class folders; return its format."""
    if reading.splits:
        return "sets"
    if splits_dir is None and format != "folder":
        splits_dir = find_lists(root, reading.folders)
    if splits_dir is None:
        return format or ("frames" if reading.frames else "folder")
    certain = format == "hmdb51" or root in (splits_dir, *splits_dir.parents)
    splits, notes = read_official(splits_dir, reading.videos, certain=certain)
    reading.splits += splits
    reading.notes += notes
    if format or reading.frames or not splits:
        return format or ("frames" if reading.frames else "folder")
    return "ucf101" if ucf101_files(splits_dir) else "hmdb51"


def _choose_test_set(dataset: Dataset, test_split: Literal["test", "val"]) -> Dataset:
    """Return the dataset with official splits that test on the requested set."""
    without = [split for split in dataset.official if not split.test]
    if test_split == "test":
        if not without:
            return dataset
        split = without[0]
        note = (
            f"no test set, but {pluralize(len(split.train), 'training video')}: protocol=grouped or stratified divides"
            " them"
            if not split.val
            else f"no test set, but {pluralize(len(split.train), 'training video')} and"
            f" {pluralize(len(split.val), 'validation video')}: test_split=val scores on the validation set"
        )
        return replace(dataset, notes=(note, *dataset.notes))
    if not dataset.official or not all(split.val for split in dataset.official):
        raise SettingError(f"test_split: got `val`, but dataset `{dataset.name}` has no validation set")
    official = tuple(Split(name=split.name, train=split.train, test=split.val) for split in dataset.official)
    notes = ("official splits test on the validation set (val), not on a test set", *dataset.notes)
    return replace(dataset, official=official, notes=notes, test_set="val")


def _unread_notes(root: Path, listing: Listing | None, format: Format | None) -> list[str]:
    """Return a note on list files in or beside a folder that were not read."""
    if not root.is_dir() or (listing is not None and format is not None):
        return []
    read = [file for file, _ in listing.files] if listing else []
    ignored = [os.path.relpath(file, root) for file in sniffing.unread_lists(root, read)]
    if not ignored:
        return []
    count = pluralize(len(ignored), "list file")
    return [f"{count} in `{root}` not read: {abbreviate(ignored)}; to read one, give it as root=, or name it in lists="]


def _class_notes(reading: Reading) -> list[str]:
    """Return notes if all videos are of one class, often because ROOT is wrong, and on similar class names."""
    labels = {video.label for video in reading.videos} - {""}
    notes = []
    if len(labels) == 1 and all(video.label for video in reading.videos):
        notes.append(
            f"all videos are of one class, {abbreviate(labels)}: check root=; they can be extracted, but not probed or"
            " fine-tuned"
        )
    spellings: dict[str, list[str]] = {}
    for label in sorted(labels):
        spellings.setdefault(letters(label) or label, []).append(label)
    if alike := [f"{' = '.join(names)}" for names in spellings.values() if len(names) > 1]:
        notes.append(f"classes differ in case or punctuation alone: {abbreviate(alike)}")
    return notes


def _label_notes(reading: Reading) -> Iterator[str]:
    """Yield notes on labels that may be wrong: descriptions, placeholders, contradicted by folders."""
    labels = {video.label for video in reading.videos} - {""}
    if len(labels) > len(reading.videos) / 2 and len(reading.videos) >= 10:
        yield (
            f"{pluralize(len(labels), 'class', 'classes')} of {len(reading.videos):,} videos, as"
            f" {abbreviate(labels, 1)}: are the labels descriptions or names of videos?"
        )
    yield from _column_source_notes(reading)
    class_of = {letters(label): label for label in labels if letters(label)}
    label = {video.id: video.label for video in reading.videos}
    folders = {id: id.rpartition("/")[0].rpartition("/")[2] for id in label}
    called = {folder: class_of.get(letters(folder), "") for folder in set(folders.values())}
    contradicted = [
        id for id, folder in folders.items() if called[folder] and letters(called[folder]) != letters(label[id])
    ]
    if contradicted:
        count = pluralize(len(contradicted), "video")
        yield f"{count} in folders called like another class than the label: {abbreviate(contradicted)}"
    for split in reading.splits[:1]:
        for name, ids in (("test", split.test), ("validation", split.val)):
            classes = {label[id] for id in ids}
            if len(ids) > 1 and len(classes) == 1 and len({label[id] for id in split.train}) > 1:
                yield f"all {len(ids):,} {name} videos are of one class, {abbreviate(classes)}: a placeholder?"
            elif classes - {""} and not classes & {label[id] for id in split.train}:
                yield f"no class of the {name} videos, as {abbreviate(classes)}, is in the training set: check root="


def _column_source_notes(reading: Reading) -> Iterator[str]:
    """Yield a note if the sources in a list group classes, or are too few to be films or recordings."""
    own = [video for video in reading.videos if video.id in reading.own_sources]
    sources = {video.source for video in own}
    pairs = {(video.label, video.source) for video in own if video.label}
    classes = {label for label, _ in pairs}
    groups_classes = len(pairs) == len(classes) and len(sources) < len(classes)
    if len(sources) > 1 and (groups_classes or (len(sources) < 5 and len(own) >= 20)):
        detail = ", each class in one" if groups_classes else ""
        yield (
            f"{len(sources)} sources of {len(own):,} videos{detail}, as {abbreviate(sources)}: if they are no films or"
            " recordings, rename the column"
        )


def _copy_notes(videos: Sequence[Video]) -> list[str]:
    """Return notes on videos in two containers, whose paths differ in the suffix alone, and on broken downloads."""
    files = [video.id for video in videos if video.segment is None and video.id.lower().endswith(VIDEO_SUFFIXES)]
    count_of = Counter(id.rpartition(".")[0] for id in files)
    copies = [id for id in files if count_of[id.rpartition(".")[0]] > 1] if len(count_of) < len(files) else []
    leftovers = [video.id for video in videos if _LEFTOVER.search(video.id)]
    notes = []
    if copies:
        notes.append(f"{len(copies):,} videos differ in the suffix alone: {abbreviate(copies)}; keep one of each")
    if leftovers:
        count = pluralize(len(leftovers), "video")
        notes.append(f"{count} called like leftovers of a download: {abbreviate(leftovers)}; remove them if they are")
    return notes


def _source_notes(videos: Sequence[Video]) -> tuple[str, ...]:
    """Return a note if videos have no known source, where a split by source has no effect."""
    unknown = [video.id for video in videos if video.source == video.id]
    if not unknown:
        return ()
    if len(unknown) == len(videos):
        return ("file names give no sources: every video counts as its own, and leaks cannot be seen",)
    return (f"{pluralize(len(unknown), 'name')} without a source, each its own: {abbreviate(unknown)}",)
