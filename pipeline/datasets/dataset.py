"""The types of a dataset: `Video`, `Split`, `Dataset`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Layout = Literal["hmdb51", "frames", "folder", "csv"]
Protocol = Literal["official", "stratified", "random", "grouped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """One video file or frame folder."""

    id: str
    """Path relative to the root, with `/` and the suffix: `clap/a.avi`. Unique; independent of the label."""
    path: Path
    label: str
    source: str
    """The film or upload that the video was cut from; equals `id` where it is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The ids of a training and a test set, sorted; ids in neither are unused."""

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
    """Splits that came with the data, restricted to the videos on disk."""
    notes: tuple[str, ...] = ()
    """Differences between lists and disk, and files passed over; one line per kind."""
    file: Path | None = None
    """The CSV file that lists the videos, if there is one."""
    sources_known: bool = False
    """Whether file names or a column give sources; if not, every video is its own source."""

    @property
    def y(self) -> NDArray[np.intp]:
        """The class number of each video, shape (N,)."""
        return self.labels_of(self.videos)

    def labels_of(self, videos: Sequence[Video]) -> NDArray[np.intp]:
        """Return the class numbers of some of the dataset's videos, shape (len(videos),)."""
        import numpy as np

        number = {name: place for place, name in enumerate(self.class_names)}
        return np.array([number[video.label] for video in videos], dtype=np.intp)
