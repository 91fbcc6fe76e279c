"""Read a folder or a list of videos into a sorted `Dataset` with its official splits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from actionvit.errors import ActionVitError
from actionvit.pipeline.datasets.csv_dataset import read_csv
from actionvit.pipeline.datasets.dataset import Dataset, Layout, Video
from actionvit.pipeline.datasets.folder_dataset import Reading, scan_tree
from actionvit.pipeline.datasets.names import parse_metadata, stem
from actionvit.pipeline.datasets.official import find_lists, read_official
from actionvit.pipeline.text import abbreviate, pluralize


def load_dataset(
    root: Path | str, *, splits_dir: Path | None = None, name: str | None = None, layout: Layout | None = None
) -> Dataset:
    """Read a dataset's videos, labels and official splits; no video is opened.

    Parameters
    ----------
    root : path
        A folder `ROOT/CLASS/VIDEO.avi` (`hmdb51` with official lists, else `folder`), `ROOT/CLASS/CLIP/*.jpg`
        (`frames`), or a CSV file `path,label[,split[,source]]` (`csv`).
    splits_dir : Path, optional
        The folder with the official lists; by default looked for inside and beside `root`.
    name : str, optional
        The dataset's name, which its folder in a cache has, too; by default that of the folder or file.
    layout : {"hmdb51", "frames", "folder", "csv"}, optional
        Read this layout instead of detecting it; `folder` looks for no official lists.

    Returns
    -------
    Dataset
        Videos sorted by id, in whatever order the file system lists them.

    Raises
    ------
    ActionVitError
        If there is nothing to read, a class is empty, a list is wrong, or the name cannot be a folder's.
    """
    root = Path(root)
    if layout is not None and layout not in get_args(Layout):
        raise ActionVitError(f"layout: got `{layout}`, expected one of {', '.join(get_args(Layout))}")
    if layout == "csv" or (layout is None and root.suffix.lower() == ".csv" and not root.is_dir()):
        if splits_dir is not None:
            raise ActionVitError(f"`{root}`: --splits-dir is for folders; a CSV file has a column `split`")
        reading, layout = read_csv(root), "csv"
    else:
        reading = scan_tree(root, frames=None if layout is None else layout == "frames")
        _add_official(reading, root, splits_dir, layout)
        layout = layout or ("frames" if reading.frames else "hmdb51" if reading.splits else "folder")
    return Dataset(
        name=_folder_name(name or (root.stem if layout == "csv" else Path(os.path.normpath(root.absolute())).name)),
        root=root.parent if layout == "csv" else root,
        layout=layout,
        videos=tuple(reading.videos),
        class_names=tuple(sorted({video.label for video in reading.videos})),
        official=tuple(reading.splits),
        notes=(*reading.notes, *_source_notes(reading.videos)),
        file=root.absolute() if layout == "csv" else None,
        sources_known=any(video.source != video.id for video in reading.videos),
    )


def _folder_name(name: str) -> str:
    """Return the dataset's name, which becomes a folder in the cache; refuse names that would lead elsewhere."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ActionVitError(f"dataset's name: got {name!r}, expected a word without `/`; give --dataset-name")
    return name


def _add_official(reading: Reading, root: Path, splits_dir: Path | None, layout: Layout | None) -> None:
    """Add the splits of the official lists given or found; lists beside ROOT that name none of its videos are not."""
    certain = True
    if splits_dir is None:
        if layout == "folder":
            return
        splits_dir = find_lists(root, reading.folders)
        if splits_dir is None:
            if parse_metadata(stem(reading.videos[0].id)) is not None:
                reading.notes.append(
                    "names as in HMDB51, but no official split lists inside or beside the folder;"
                    " give --splits-dir to use them"
                )
            return
        certain = root in (splits_dir, *splits_dir.parents)
    splits, notes = read_official(splits_dir, reading.videos, certain=certain)
    reading.splits += splits
    reading.notes += notes


def _source_notes(videos: Sequence[Video]) -> tuple[str, ...]:
    """Return a note where names give no source: a split by source means little there."""
    unknown = [video.id for video in videos if video.source == video.id]
    if not unknown:
        return ()
    if len(unknown) == len(videos):
        return ("file names tell no sources: every video counts as its own, and leaks cannot be seen",)
    return (f"{pluralize(len(unknown), 'name')} without a source, each its own: {abbreviate(unknown)}",)
