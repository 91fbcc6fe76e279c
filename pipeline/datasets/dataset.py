"""A folder or a list of videos -> a sorted `Dataset`, and its splits."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from actionvit.errors import ActionVitError
from actionvit.pipeline.datasets.csv_dataset import read_csv
from actionvit.pipeline.datasets.folder_dataset import Found, Scan, counted, scan_tree, some
from actionvit.pipeline.datasets.names import ClipMetadata, parse_metadata, parse_source
from actionvit.pipeline.datasets.official import Official, OfficialSplit, find_lists, read_official

Layout = Literal["hmdb51", "frames", "folder", "csv"]
Protocol = Literal["official", "stratified", "random", "grouped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """One video file or frame folder."""

    id: str
    """Path relative to the root, with `/`, suffix included: `clap/a.avi`. Unique; never holds the label's meaning."""
    path: Path
    label: str
    source: str
    """The film or upload it was cut from; clips of one source must not stand on both sides of a split."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Which videos train and which test; ids in neither are unused."""

    name: str
    train: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Videos sorted by id, classes sorted by name."""

    name: str
    root: Path
    layout: Layout
    videos: tuple[Video, ...]
    class_names: tuple[str, ...]
    official: tuple[Split, ...] = ()
    """Splits that came with the data, restricted to the videos that are there."""
    notes: tuple[str, ...] = ()
    """What a user must know, a line each: listed but absent, present but unlisted, passed over."""
    file: Path | None = None
    """The CSV file that lists the videos, where one does."""
    sources_known: bool = False
    """Whether names or a column told the sources; if not, every video counts as its own."""


def load_dataset(
    root: Path, *, splits_dir: Path | None = None, name: str | None = None, layout: Layout | None = None
) -> Dataset:
    """Read what videos there are; nothing is opened but lists.

    Parameters
    ----------
    root : Path
        A folder `ROOT/CLASS/VIDEO.avi` (`hmdb51` with official lists, else `folder`), `ROOT/CLASS/CLIP/*.jpg`
        (`frames`), or a CSV file `path,label[,split[,source]]` (`csv`).
    splits_dir : Path, optional
        The folder with the official lists; by default looked for inside and beside `root`.
    name : str, optional
        The dataset's name, which its folder in a cache has, too; by default that of the folder or file.
    layout : Layout, optional
        Insist on a layout instead of recognising it; `folder` looks for no official lists.

    Returns
    -------
    Dataset
        Videos sorted by id, whatever order the file system has them in.

    Raises
    ------
    ActionVitError
        If there is nothing there, a class is empty, a list is wrong, or the name is not that of a folder; see `layouts`
        and `official`.
    """
    if layout is not None and layout not in get_args(Layout):
        raise ActionVitError(f"layout: got `{layout}`, expected one of {', '.join(get_args(Layout))}")
    if layout == "csv" or (layout is None and root.suffix.lower() == ".csv" and not root.is_dir()):
        if splits_dir is not None:
            raise ActionVitError(f"`{root}`: --splits-dir is for folders; a CSV file has a column `split`")
        scan, layout = read_csv(root), "csv"
        official = _csv_split(root, scan)
    else:
        scan = scan_tree(root, frames=None if layout is None else layout == "frames")
        official = _official(root, scan, splits_dir, layout)
        layout = layout or ("frames" if scan.frames else "hmdb51" if official.splits else "folder")
    sources = [item.source or parse_source(item.stem, item.label) for item in scan.found]
    return Dataset(
        name=_folder_name(name or (root.stem if layout == "csv" else Path(os.path.normpath(root.absolute())).name)),
        root=root.parent if layout == "csv" else root,
        layout=layout,
        videos=tuple(
            Video(id=item.id, path=item.path, label=item.label, source=source or item.id)
            for item, source in zip(scan.found, sources, strict=True)
        ),
        class_names=tuple(sorted({item.label for item in scan.found})),
        official=tuple(Split(name=split.name, train=split.train, test=split.test) for split in official.splits),
        notes=(*scan.notes, *official.notes, *_source_notes(scan.found, sources)),
        file=root.absolute() if layout == "csv" else None,
        sources_known=any(sources),
    )


def _folder_name(name: str) -> str:
    """Return a dataset's name if a folder may have it; else its embeddings would lie outside the cache."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ActionVitError(f"dataset's name: got {name!r}, expected a word without `/`; give --dataset-name")
    return name


def clip_metadata(video: Video) -> ClipMetadata | None:
    """Return what an HMDB51 name says of body part, camera, people, viewpoint and quality; None for other names."""
    return parse_metadata(Found(video.id, video.path, video.label).stem)


def _official(root: Path, scan: Scan, splits_dir: Path | None, layout: Layout | None) -> Official:
    """Read the official lists given, or those found; lists beside ROOT that know none of its videos are not its own."""
    if splits_dir is not None:
        return read_official(splits_dir, scan.found)
    folder = None if layout == "folder" else find_lists(root, scan.folders)
    if folder is None:
        wanted = layout != "folder" and parse_metadata(scan.found[0].stem) is not None
        note = (
            "names as in HMDB51, but no official split lists inside or beside the folder; give --splits-dir to use them"
        )
        return Official((), (note,) if wanted else ())
    return read_official(folder, scan.found, certain=root in (folder, *folder.parents))


def _csv_split(file: Path, scan: Scan) -> Official:
    """Return the split that a CSV's column `split` tells, if it does."""
    train, test = (tuple(item.id for item in scan.found if item.split == side) for side in ("train", "test"))
    if not train and not test:
        return Official((), ())
    if not train or not test:
        raise ActionVitError(
            f"`{file}`: column `split` names no {'test' if train else 'train'} video; name some of each"
        )
    unused = [item.id for item in scan.found if not item.split]
    notes = (f"{counted(len(unused), 'video')} in neither train nor test: {some(unused)}",) if unused else ()
    return Official((OfficialSplit("official-1", train, test),), notes)


def _source_notes(found: tuple[Found, ...], sources: list[str | None]) -> tuple[str, ...]:
    """Say where names tell no source: a split by source means little there."""
    unknown = [item.id for item, source in zip(found, sources, strict=True) if source is None]
    if not unknown:
        return ()
    if len(unknown) == len(found):
        return ("file names tell no sources: every video counts as its own, and leaks cannot be seen",)
    return (f"{counted(len(unknown), 'name')} without a source, each its own: {some(unknown)}",)
