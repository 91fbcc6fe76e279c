"""What to know of a dataset before using it: what it holds, what is broken, what leaks from one side to the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np

from actionvit.errors import ActionVitError
from actionvit.features.decoding import Decoded, DecodeRequest, decode_stream
from actionvit.features.fingerprint import fingerprint
from actionvit.features.sampling import ClipSpec, clip_indices
from actionvit.pipeline.datasets.dataset import Dataset, Split
from actionvit.pipeline.datasets.duplicates import digests_where_sizes_agree, identical, near_duplicates, picture_hash
from actionvit.pipeline.datasets.splits import default_protocol, leaking_sources, make_splits

SPEC = ClipSpec(num_frames=8, size=224)
"""The frames that are decoded and compared: those of `base`."""
BINS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """So many values from `low` up to, and with the last bin including, `high`."""

    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A video that gives no clip."""

    id: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two videos that show the same."""

    first: str
    second: str
    differing: float
    """Share of the bits of their picture hashes; 0 and `identical` where not a byte differs."""
    identical: bool
    same_source: bool
    splits: tuple[str, ...] = ()
    """Splits that have one of them in training and the other in testing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitCheck:
    """What is to be known of one split."""

    name: str
    train: int
    test: int
    classes_untrained: tuple[str, ...]
    leaking_sources: tuple[str, ...]
    """Sources with clips of one class on both sides."""


@dataclass(slots=True, kw_only=True)
class Findings:
    """All that was found; what needs decoding stays empty without it."""

    name: str
    format: str
    videos: int
    sources: int | None
    """None where names do not tell."""
    classes: dict[str, int]
    splits: list[SplitCheck]
    notes: tuple[str, ...]
    megabytes: list[Bin]
    duplicates: list[Pair] = field(default_factory=list)
    decoded: int | None = None
    """Videos that decode; None where that was not tried."""
    frames: list[Bin] = field(default_factory=list)
    seconds: list[Bin] = field(default_factory=list)
    """How long they play; a folder of frames does not say."""
    shorter: dict[int, int] = field(default_factory=dict)
    """Number of frames -> videos that have fewer: their last frame is repeated in clips of so many."""
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
    """Look a dataset over.

    Parameters
    ----------
    dataset : Dataset
        Without official splits, those of its default protocol are looked at.
    decode : bool
        Decode each video as `extract` does for `base`: finds the broken ones, and near-duplicates.
    workers, timeout
        As `decode_stream` takes them.
    on_video : callable
        Told how many videos are decoded.
    """
    splits, notes = _splits(dataset)
    counts = Counter(video.label for video in dataset.videos)
    findings = Findings(
        name=dataset.name,
        format=dataset.format,
        videos=len(dataset.videos),
        sources=len({video.source for video in dataset.videos}) if dataset.sources_known else None,
        classes={name: counts[name] for name in dataset.class_names},
        splits=[_look_at(dataset, split) for split in splits],
        notes=(*dataset.notes, *notes),
        megabytes=histogram(_megabytes(dataset)),
    )
    if decode:
        found = _decode_all(dataset, findings, workers, timeout, on_video)
    else:
        found = [(*pair, 0.0, True) for pair in _pairs(digests_where_sizes_agree(dataset.videos))]
    findings.duplicates = _judge(dataset, splits, found)
    return findings


def histogram(values: Sequence[float], bins: int = BINS) -> list[Bin]:
    """Return counts over equal steps from the least to the greatest; a bin a number where these are few."""
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
    try:
        return make_splits(dataset, default_protocol(dataset)), ()
    except ActionVitError as error:
        return (), (str(error),)


def _look_at(dataset: Dataset, split: Split) -> SplitCheck:
    label = {video.id: video.label for video in dataset.videos}
    return SplitCheck(
        name=split.name,
        train=len(split.train),
        test=len(split.test),
        classes_untrained=tuple(sorted(set(dataset.class_names) - {label[id] for id in split.train})),
        leaking_sources=leaking_sources(dataset, split),
    )


def _megabytes(dataset: Dataset) -> list[float]:
    sizes = []
    for video in dataset.videos:
        try:
            sizes.append(fingerprint(video.path).size / 1e6)
        except OSError:  # named in a list and not there
            continue
    return sizes


Found = tuple[str, str, float, bool]
"""Two ids, the share of differing bits, whether they are identical."""


def _decode_all(
    dataset: Dataset, findings: Findings, workers: int | None, timeout: float, on_video: Callable[[int], None]
) -> list[Found]:
    """Decode every video into the findings; return the pairs that show the same."""
    digests: dict[str, str] = {}
    hashes = {}
    counts, seconds = [], []
    requests = (DecodeRequest(video.id, video.path, (SPEC,)) for video in dataset.videos)
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
    equal = set(_pairs(digests))
    ids = sorted(hashes)
    near = ((ids[i], ids[j], share) for i, j, share in near_duplicates([hashes[id] for id in ids]))
    return [*((*pair, 0.0, True) for pair in equal), *((*pair, False) for pair in near if pair[:2] not in equal)]


def _pairs(digests: dict[str, str]) -> list[tuple[str, str]]:
    return [(a, b) for group in identical(digests) for at, a in enumerate(group) for b in group[at + 1 :]]


def _judge(dataset: Dataset, splits: Sequence[Split], found: Sequence[Found]) -> list[Pair]:
    """Say of each pair which splits it straddles; those that straddle one come first, then by likeness."""
    source = {video.id: video.source for video in dataset.videos}
    sides = [(split.name, set(split.train), set(split.test)) for split in splits]
    pairs = [
        Pair(
            first=a,
            second=b,
            differing=share,
            identical=same,
            same_source=source[a] == source[b],
            splits=tuple(
                name for name, train, test in sides if (a in train and b in test) or (b in train and a in test)
            ),
        )
        for a, b, share, same in found
    ]
    return sorted(pairs, key=lambda pair: (not pair.splits, pair.differing, pair.first, pair.second))
