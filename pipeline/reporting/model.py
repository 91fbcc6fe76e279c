"""The content of a report: the data in `report.json`, from which page, tables and figures are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

Interval = tuple[float, float]
"""Lower and upper end of a 95 % confidence interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One metric of a run over its splits."""

    mean: float
    std: float | None
    """Standard deviation between the splits; None for a single split."""
    ci95: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The difference of a metric between two runs; None where it is not computed."""

    value: float
    ci95: Interval
    se: float | None = None
    """Standard error, clustered by source, with the variance of the training sets."""
    std: float | None = None
    """Standard deviation between the splits."""
    p: float | None = None
    p_holm: float | None = None
    """`p` after Holm's correction over the comparisons of the report."""
    detectable: float | None = None
    """Smallest true difference that would be significant in 80 % of cases, without Holm's correction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRow:
    """The metrics of one split; the rest is in the run's `metrics.json`."""

    name: str
    n_train: int
    n_test: int
    top1: float
    top5: float
    mean_class_accuracy: float
    macro_f1: float
    ece: float
    log_loss: float
    brier: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRow:
    """One class of a run, pooled over the splits; None is 0/0."""

    class_: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    """Clips."""
    tests: int
    """Results: a clip that several splits test has several."""
    recall_ci95: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusedPair:
    """Results of a true class that were predicted as another."""

    true: str
    predicted: str
    count: int
    fraction: float
    """Of the true class's results."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """Results whose confidence lies in (lower, upper]."""

    lower: float
    upper: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Time and operations; None where the run does not record them. `extract`, `fit` and `predict` are in seconds."""

    gmac: float | None = None
    """10⁹ multiply-adds per video."""
    clips_per_second: float | None = None
    device: str | None = None
    extract: float | None = None
    fit: float | None = None
    predict: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSection:
    """One run: its metrics as stored, everything else pooled over its splits."""

    name: str
    """Short: without the words that all runs of the report share."""
    folder: str
    variant: str | None
    head: Mapping[str, Any]
    splits: Sequence[SplitRow]
    summary: Mapping[str, Summary]
    per_class: Sequence[ClassRow]
    confusion: Sequence[Sequence[int]]
    """(C, C) counts, rows the true class."""
    most_confused: Sequence[ConfusedPair]
    cmc: Sequence[float]
    """Top-k accuracy for k = 1 to C."""
    reliability: Sequence[ReliabilityBin]
    cost: Cost
    coverage: Mapping[str, Any]
    leaks: Mapping[str, int]
    """Sources in both the training and the test set, by split."""
    search: Sequence[Mapping[str, Any]]
    curves: Sequence[Mapping[str, Any]]
    provenance: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassDifference:
    """One class of a comparison; None where the class has no results."""

    class_: str
    support: int
    tests: int = 0
    sources: int = 0
    a: float | None = None
    b: float | None = None
    delta: float | None = None
    ci95: Interval | None = None
    p: float | None = None
    p_holm: float | None = None
    detectable: float | None = None
    """Half width of `ci95`."""
    testable: bool | None = None
    """Whether "always correct" against "always wrong" would be significant with so few sources."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultCounts:
    """Test results by which of two runs is correct."""

    both: int
    only_a: int
    only_b: int
    neither: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCounts:
    """Classes in which b has the higher, the same or the lower recall."""

    wins: int
    ties: int
    losses: int
    shown: Sequence[str]
    """Classes that differ significantly after correction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two runs on the same test clips; every difference is b − a."""

    a: str
    b: str
    n_clips: int
    n_results: int
    n_sources: int
    delta: Mapping[str, Difference]
    """By metric: mean over the splits, paired."""
    cost_ratio: float | None = None
    """Multiply-adds of b over those of a."""
    clips: ResultCounts
    classes: ClassCounts
    per_class: Sequence[ClassDifference]
    verdict: str = ""

    @property
    def p_holm(self) -> float:
        """The corrected p value of top-1."""
        p = self.delta["top1"].p_holm
        return 1.0 if p is None else p


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Top-1 accuracy of one run on a kind of clips."""

    accuracy: float
    ci95: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataRow:
    """Results on the clips whose name has one value of a field, pooled over the splits."""

    field: str
    value: str
    n: int
    """Clips."""
    tests: int
    """Results."""
    runs: Sequence[Accuracy]
    deltas: Sequence[Difference]
    """Difference of every other run from the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipResult:
    """The prediction of one run for a clip."""

    name: str
    predicted: str
    score: float
    true_score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HardClip:
    """A clip worth looking at."""

    id: str
    split: str
    true: str
    why: str
    results: Sequence[ClipResult]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A test clip in the projection."""

    id: str
    true: str
    x: float
    y: float
    correct: float
    """Fraction of all results that are correct."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectedClips:
    """The embeddings of the test clips in two dimensions."""

    method: str
    explained: Sequence[float]
    """Fractions of the variance; PCA's only."""
    points: Sequence[Point]
    shown: Sequence[str]
    """Ids that stand for their class as a thumbnail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbor:
    """A training clip near a test clip."""

    id: str
    class_: str | None
    cosine: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbors:
    """The nearest training clips of a test clip."""

    id: str
    split: str
    nearest: Sequence[Neighbor]


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicatePair:
    """A test clip and a training clip that are nearly the same."""

    clips: tuple[str, str]
    cosine: float
    same_file: bool
    same_class: bool | None
    times: int
    """Splits in which one is tested with the other in the training set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateEffect:
    """Top-1 of a run, pooled over the splits, with and without the flagged results, and of these alone."""

    name: str
    top1: float
    without: float | None
    flagged: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates:
    """Test clips with a near-duplicate in the training set of their split."""

    threshold: float | None
    """Cosine from which a pair is flagged; None where the encoder's distribution sets no pair apart."""
    clips: int
    results: int
    n_pairs: int
    pairs: Sequence[DuplicatePair]
    effect: Sequence[DuplicateEffect]


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """Findings from the embeddings of the first run."""

    projection: ProjectedClips
    neighbors: Sequence[Neighbors]
    duplicates: Duplicates | None
    """None where the run does not list its training clips."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One run, or several over the same test clips."""

    schema: int
    class_names: Sequence[str]
    n_clips: int
    n_results: int
    n_sources: int
    order: Sequence[int]
    """Class numbers as the confusion matrices show them."""
    runs: Sequence[RunSection]
    comparisons: Sequence[Comparison]
    by_metadata: Sequence[MetadataRow]
    hard: Sequence[HardClip]
    analysis: Analysis | None


def as_json(value: Any) -> Any:
    """Return dataclasses as dicts, ready for JSON; a trailing underscore of a field's name is left out."""
    if is_dataclass(value):
        return {field.name.rstrip("_"): as_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {name: as_json(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    return value
