"""The types of a dataset: `Video`, `Split`, `Dataset`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from actionvit.text import pluralize

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from actionvit.features.sampling import Segment

Format = Literal[
    "hmdb51",
    "frames",
    "folder",
    "csv",
    "ucf101",
    "sets",
    "list",
    "frame-list",
    "kinetics",
    "ssv2",
    "diving48",
    "jester",
    "videofolder",
]
Protocol = Literal["official", "grouped", "stratified", "random"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """One video file or frame folder."""

    id: str
    """Path relative to the root, with `/` and the suffix: `clap/a.avi`. Unique; independent of the label."""
    path: Path
    label: str
    source: str
    """The film or upload that the video was cut from; `id` if unknown."""
    segment: Segment | None = None
    """The part of the file used as this video, whose id is `path@start-end`; None for the whole file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The ids of a training and a test set, sorted; ids in neither are unused."""

    name: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    """Empty if the dataset has no test set."""
    val: tuple[str, ...] = ()
    """The dataset's own validation set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Videos sorted by id, classes sorted by name."""

    name: str
    root: Path
    format: Format
    videos: tuple[Video, ...]
    class_names: tuple[str, ...]
    official: tuple[Split, ...] = ()
    """The dataset's own splits, restricted to the videos on disk."""
    notes: tuple[str, ...] = ()
    """Differences between lists and disk, and ignored files; one line per kind."""
    origin: Path | None = None
    """The list file, or the folder with the list files, from which the videos were read; None where it is `root`."""
    lists: tuple[tuple[str, Path], ...] = ()
    """The list file of each set, as given to `load_dataset`."""
    description: str = ""
    """The format in words: `an mmaction2 list`."""
    test_set: Literal["test", "val"] = "test"
    """The set that official splits test on."""
    sources_known: bool = False
    """Whether file names or a column give sources; if not, every video is its own source."""
    merged_sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The names that were merged into one source, as `sources.merge_sources` describes."""
    files: tuple[Path, ...] = ()
    """The list files that were read."""

    @property
    def y(self) -> NDArray[np.intp]:
        """The class number of each video, shape (N,)."""
        return self.labels_of(self.videos)

    def labels_of(self, videos: Sequence[Video]) -> NDArray[np.intp]:
        """Return the class numbers of some of the dataset's videos, shape (len(videos),)."""
        import numpy as np

        number = {name: place for place, name in enumerate(self.class_names)}
        return np.array([number[video.label] for video in videos], dtype=np.intp)

    @property
    def segments(self) -> dict[str, Segment]:
        """The segments of the videos that are parts of a file, by id."""
        return {video.id: video.segment for video in self.videos if video.segment is not None}

    @property
    def summary(self) -> str:
        """The format and the counts, in one line."""
        counts = [pluralize(len(self.videos), "video"), pluralize(len(self.class_names), "class", "classes")]
        splits = [pluralize(len(self.official), "official split")] if self.official else []
        return f"read as {self.description or self.format}: {', '.join([*counts, *splits])}"

    @property
    def record(self) -> dict[str, Any]:
        """The fields that a store keeps of its dataset, by their names on disk; `reload` reads the dataset again."""
        origin = {} if self.origin is None else {"csv": str(self.origin)}
        lists = {name: str(file.absolute()) for name, file in self.lists}
        return {
            "root": str(self.root.resolve()),
            "layout": self.format,
            "videos": len(self.videos),
            **origin,
            **({"lists": lists} if lists else {}),
        }

    @property
    def run_record(self) -> dict[str, Any]:
        """The block `dataset` of `run.json`."""
        return {
            "name": self.name,
            "root": str(self.root),
            "layout": self.format,
            "videos": len(self.videos),
            "notes": list(self.notes),
            "test_set": self.test_set,
        }
