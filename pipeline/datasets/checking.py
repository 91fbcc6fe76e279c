"""Checks of a dataset before use: how it was read, undecodable videos, leaks from training to test sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import numpy as np

from actionvit.errors import ActionVitError
from actionvit.features.decoding import Decoded, DecodeRequest, decode_stream
from actionvit.features.fingerprint import fingerprint
from actionvit.features.sampling import ClipSpec, clip_indices
from actionvit.pipeline.datasets.dataset import Dataset, Split
from actionvit.pipeline.datasets.duplicates import digests_where_sizes_agree, identical, near_duplicates, picture_hash
from actionvit.pipeline.datasets.names import parse_metadata, stem
from actionvit.pipeline.datasets.splits import (
    default_protocol,
    leaking_sources,
    leaking_videos,
    make_splits,
    untested_classes,
)

SPEC = ClipSpec(num_frames=8, size=224)
"""The frames that are decoded and compared: those of `base`."""
BINS = 8
ROWS_SHOWN = 3
MAX_PAIRS = 10_000
"""Pairs of look-alikes that are listed; thousands of black videos would make millions."""

HMDB51_NAMES = (
    "names are those of HMDB51; its official split lists are not in or beside the folder (splits_dir= reads them from"
    " elsewhere)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """A bin of a histogram, from `low` up to, and in the last bin including, `high`."""

    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A video that cannot be decoded."""

    id: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Alike:
    """Duplicates: a group of videos with equal bytes, or a pair of look-alikes."""

    ids: tuple[str, ...]
    differing: float
    """Fraction of differing bits of their picture hashes; 0 for equal bytes."""
    same_source: bool
    splits: tuple[str, ...] = ()
    """Splits with some of them in the training set and others in the test set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitCheck:
    """Sizes, leaks and first rows of one split."""

    name: str
    train: int
    val: int
    test: int
    classes_untrained: tuple[str, ...]
    leaking_sources: tuple[str, ...]
    """Sources with clips of one class in training and test set."""
    leaking_videos: int
    """Test videos whose source is in training under the same class."""
    shared_videos: int
    """Test videos whose source is in training under any class."""
    first: dict[str, list[dict[str, str]]]
    """The first rows of each set: id, label and source."""


@dataclass(slots=True, kw_only=True)
class Findings:
    """The results of a check; fields that need decoding are empty without it."""

    name: str
    format: str
    read_as: str
    files: list[str]
    """List files that were read."""
    videos: int
    sources: int | None
    """None if the sources are unknown."""
    merged_sources: dict[str, tuple[str, ...]]
    """Names that were merged as parts or spellings of one film."""
    classes: dict[str, int]
    splits: list[SplitCheck]
    notes: tuple[str, ...]
    megabytes: list[Bin]
    identical: list[Alike] = field(default_factory=list)
    """Groups of videos with equal bytes."""
    look_alikes: list[Alike] = field(default_factory=list)
    """Pairs of similar pictures, at most `MAX_PAIRS`."""
    decoded: int | None = None
    """Videos that decode; None without decoding."""
    frames: list[Bin] = field(default_factory=list)
    seconds: list[Bin] = field(default_factory=list)
    """Durations; frame folders have none."""
    shorter: dict[int, int] = field(default_factory=dict)
    """Number of frames -> videos that have fewer, whose last frame is repeated in clips of that many."""
    pictures: dict[str, int] = field(default_factory=dict)
    """Width × height -> videos."""
    undecodable: list[Failed] = field(default_factory=list)
    flagged: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Damaged videos whose sampled frames are intact."""


def check(
    dataset: Dataset,
    *,
    decode: bool,
    workers: int | None = None,
    timeout: float = 60.0,
    on_video: Callable[[int], None] = lambda done: None,
) -> Findings:
    """Check a dataset's files, splits and sources.

    Parameters
    ----------
    dataset : Dataset
        Without official splits, those of its default protocol are checked.
    decode : bool
        Decode each video as `extract` does for `base`, to find broken videos and look-alikes.
    workers, timeout
        As for `decode_stream`.
    on_video : callable
        Called with the number of videos decoded.
    """
    splits, notes = _splits(dataset)
    if untested := untested_classes(dataset, [split for split in splits if split.test]):
        notes = (*notes, untested)
    counts = Counter(video.label for video in dataset.videos)
    findings = Findings(
        name=dataset.name,
        format=dataset.format,
        read_as=dataset.summary,
        files=[str(file) for file in dataset.files],
        videos=len(dataset.videos),
        sources=len({video.source for video in dataset.videos}) if dataset.sources_known else None,
        merged_sources=dict(dataset.merged_sources),
        classes={name: counts[name] for name in dataset.class_names},
        splits=[_check_split(dataset, split) for split in splits],
        notes=(*dataset.notes, *notes),
        megabytes=histogram(_megabytes(dataset)),
    )
    if not dataset.official and dataset.format in ("folder", "frames") and parse_metadata(stem(dataset.videos[0].id)):
        findings.notes = (*findings.notes, HMDB51_NAMES)
    if decode:
        groups, pairs = _decode_all(dataset, findings, workers, timeout, on_video)
    else:
        groups, pairs = identical(digests_where_sizes_agree(dataset.videos)), []
    judge = _Judge(dataset, splits)
    findings.identical = judge.sorted([judge.alike(group, 0.0) for group in groups])
    findings.look_alikes = judge.sorted([judge.alike((pair.first, pair.second), pair.differing) for pair in pairs])
    return findings


def histogram(values: Sequence[float], bins: int = BINS) -> list[Bin]:
    """Return counts over equal steps from the least to the greatest value; one bin per number if there are few."""
    if not values:
        return []
    least, most = min(values), max(values)
    if least == most:
        return [Bin(low=float(least), high=float(least), count=len(values))]
    if most - least < bins and all(isinstance(value, int) for value in values):
        each = range(int(least), int(most) + 1)
        return [Bin(low=float(number), high=float(number), count=values.count(number)) for number in each]
    counts, edges = np.histogram(np.asarray(values, np.float64), bins)
    return [
        Bin(low=float(low), high=float(high), count=int(count))
        for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True)
    ]


def _splits(dataset: Dataset) -> tuple[tuple[Split, ...], tuple[str, ...]]:
    if dataset.official:  # also those without a test set
        return dataset.official, ()
    try:
        return make_splits(dataset, default_protocol(dataset)), ()
    except ActionVitError as error:
        return (), (str(error),)


def _check_split(dataset: Dataset, split: Split) -> SplitCheck:
    videos = {video.id: video for video in dataset.videos}
    sets = {"train": split.train, "val": split.val, "test": split.test}
    first = {
        name: [{"id": id, "label": videos[id].label, "source": videos[id].source} for id in ids[:ROWS_SHOWN]]
        for name, ids in sets.items()
        if ids
    }
    return SplitCheck(
        name=split.name,
        train=len(split.train),
        val=len(split.val),
        test=len(split.test),
        classes_untrained=tuple(sorted(set(dataset.class_names) - {videos[id].label for id in split.train})),
        leaking_sources=leaking_sources(dataset, split),
        leaking_videos=len(leaking_videos(dataset, split)),
        shared_videos=len(leaking_videos(dataset, split, within_class=False)),
        first=first,
    )


def _megabytes(dataset: Dataset) -> list[float]:
    sizes = []
    for video in dataset.videos:
        try:
            sizes.append(fingerprint(video.path).size / 1e6)
        except OSError:  # listed, but removed since
            continue
    return sizes


class _Pair(NamedTuple):
    first: str
    second: str
    differing: float


def _decode_all(
    dataset: Dataset, findings: Findings, workers: int | None, timeout: float, on_video: Callable[[int], None]
) -> tuple[list[tuple[str, ...]], list[_Pair]]:
    """Decode every video into the findings; return the groups with equal bytes and the pairs of look-alikes."""
    digests: dict[str, str] = {}
    hashes = {}
    counts, seconds = [], []
    requests = (DecodeRequest(video.id, video.path, (SPEC,), video.segment) for video in dataset.videos)
    with closing(decode_stream(requests, workers=workers, timeout=timeout)) as stream:
        for done, item in enumerate(stream, start=1):
            on_video(done)
            if not isinstance(item, Decoded):
                findings.undecodable.append(Failed(id=item.id, reason=item.reason, detail=item.detail))
                continue
            frames = item.frames
            digests[item.id] = item.record.digest
            hashes[item.id] = picture_hash(frames.data[frames.positions(clip_indices(frames.count, SPEC)[0])])
            counts.append(frames.count)
            seconds += [frames.duration] if frames.duration is not None else []
            size = f"{frames.data.shape[2]} × {frames.data.shape[1]}"
            findings.pictures[size] = findings.pictures.get(size, 0) + 1
            if frames.flags:
                findings.flagged[item.id] = frames.flags
    findings.decoded = len(digests)
    findings.frames, findings.seconds = histogram(counts), histogram(seconds)
    findings.shorter = {least: sum(count < least for count in counts) for least in (8, 16)}
    findings.pictures = dict(sorted(findings.pictures.items(), key=lambda item: (-item[1], item[0])))
    groups = identical(digests)
    copies = {id for group in groups for id in group[1:]}
    ids = [id for id in sorted(hashes) if id not in copies]
    near = (_Pair(ids[i], ids[j], share) for i, j, share in near_duplicates([hashes[id] for id in ids]))
    pairs = list(islice(near, MAX_PAIRS))
    if len(pairs) == MAX_PAIRS:
        findings.notes = (*findings.notes, f"only the first {MAX_PAIRS:,} pairs of look-alikes are listed")
    return groups, pairs


class _Judge:
    """Finds the splits that have a group of videos on both sides."""

    def __init__(self, dataset: Dataset, splits: Sequence[Split]) -> None:
        self.source = {video.id: video.source for video in dataset.videos}
        self.sets = [(split.name, set(split.train), set(split.test)) for split in splits]

    def alike(self, ids: tuple[str, ...], differing: float) -> Alike:
        """Return the group with the splits that have parts of it in both the training and the test set."""
        group = set(ids)
        straddled = tuple(name for name, train, test in self.sets if group & train and group & test)
        same = len({self.source[id] for id in ids}) == 1
        return Alike(ids=ids, differing=differing, same_source=same, splits=straddled)

    def sorted(self, groups: list[Alike]) -> list[Alike]:
        """Return groups divided by a split first, then the most similar."""
        return sorted(groups, key=lambda alike: (not alike.splits, alike.differing, alike.ids))
