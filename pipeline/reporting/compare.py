"""Comparisons of runs on the same test clips, paired clip by clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from actionvit.errors import ActionVitError
from actionvit.evaluation.intervals import (
    Floats,
    groups,
    holm,
    paired_interval,
    paired_p,
    percentile_interval,
    resampled_counts,
)
from actionvit.evaluation.metrics import predicted
from actionvit.pipeline.reporting.model import ClassCounts, ClassDifference, Comparison, Difference, ResultCounts
from actionvit.pipeline.reporting.text import ALPHA, verdict
from actionvit.pipeline.runs import Predictions, Run
from actionvit.text import abbreviate

DELTAS = ("top1", "mean_class_accuracy")
"""Metrics whose difference is given an interval."""


def compare_all(
    runs: Sequence[Run], *, names: Sequence[str] | None = None, resamples: int = 2000, seed: int = 0
) -> list[Comparison]:
    """Compare every pair of runs; p values are corrected for the number of pairs.

    Parameters
    ----------
    runs : sequence of Run
        In every pair the earlier run is the baseline: a difference is "later − earlier".
    names : sequence of str, optional
        Display names; the runs' own names by default.
    resamples, seed : int
        Number of bootstrap resamples and their seed.

    Returns
    -------
    list of Comparison
        (first, second), (first, third), … (second, third), …

    Raises
    ------
    ActionVitError
        If two runs tested different clips or have different classes.
    """
    names = names or [run.name for run in runs]
    first = runs[0].predictions
    aligned = [
        _results(_aligned(first, run.predictions, (names[0], name)), first, resamples=resamples, seed=seed)
        for run, name in zip(runs, names, strict=True)
    ]
    pairs = list(combinations(range(len(runs)), 2))
    comparisons = [_compare(first, aligned[i], aligned[j], (names[i], names[j])) for i, j in pairs]
    corrected = holm([comparison.p_sources for comparison in comparisons])
    costs = [float(run.info.get("gmac") or 0) for run in runs]
    finished = []
    for comparison, (i, j), p in zip(comparisons, pairs, corrected, strict=True):
        ratio = costs[j] / costs[i] if costs[i] and costs[j] else None
        comparison = replace(comparison, p_holm=p, cost_ratio=ratio)
        finished.append(replace(comparison, verdict=verdict(comparison)))
    return finished


def compare(
    a: Predictions, b: Predictions, *, names: tuple[str, str] = ("a", "b"), resamples: int = 2000, seed: int = 0
) -> Comparison:
    """Compare two sets of predictions of the same clips; every difference is b − a.

    `delta` has for each metric the mean over the splits and a paired bootstrap interval over sources. In `p_clips` a
    clip that several splits test counts once, for the run that is correct in more of them. `p_holm` equals `p_sources`.
    """
    results = [_results(_aligned(a, one, names), a, resamples=resamples, seed=seed) for one in (a, b)]
    return _compare(a, results[0], results[1], names)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Results:
    """One run's results in the row order of the baseline."""

    best: NDArray[np.int64]
    """(M,), predicted classes."""
    correct: NDArray[np.bool_]
    """(M,)"""
    value: Mapping[str, float]
    """Each metric of `DELTAS`, averaged over the splits."""
    drawn: Mapping[str, Floats]
    """The same for each bootstrap resample; nan where a resample has no clip of a split."""


def _aligned(a: Predictions, b: Predictions, names: tuple[str, str]) -> NDArray[np.int64]:
    """Return b's predicted class for each row of a.

    Raises
    ------
    ActionVitError
        If the two tested different clips, or disagree on classes or labels.
    """
    pair = f"runs `{names[0]}` and `{names[1]}`"
    if a.class_names != b.class_names:
        odd = sorted(set(a.class_names) ^ set(b.class_names))
        raise ActionVitError(f"{pair} have different classes ({abbreviate(odd)}): compare runs of one dataset")
    key_a, key_b = (list(zip(run.split.tolist(), run.id.tolist(), strict=True)) for run in (a, b))
    only_a, only_b = set(key_a) - set(key_b), set(key_b) - set(key_a)
    if only_a or only_b:
        odd = [f"{split}: {id_}" for split, id_ in sorted(only_a | only_b)]
        raise ActionVitError(
            f"{pair} tested different clips: {len(only_a):,} only in the first, {len(only_b):,} only in the second, "
            f"{len(set(key_a) & set(key_b)):,} in both ({abbreviate(odd)}); make both with one protocol and seed"
        )
    row_of = {key: row for row, key in enumerate(key_b)}
    order = np.array([row_of[key] for key in key_a], dtype=np.int64)
    if changed := int((b.true[order] != a.true).sum()):
        raise ActionVitError(f"{pair} disagree on the true class of {changed:,} clips: make both from the same labels")
    return predicted(b.scores)[order]


def _results(best: NDArray[np.int64], a: Predictions, *, resamples: int, seed: int) -> _Results:
    """Return metrics of predicted classes (M,), and of bootstrap resamples of a's sources, the same for every run."""
    clusters, number = groups(a.cluster)
    correct = best == a.true
    classes = len(a.class_names)
    tables = []
    for name in a.split_names:
        rows = np.flatnonzero(a.split == name)
        cell = number[rows] * classes + a.true[rows]
        sums = [np.bincount(cell, weights=w, minlength=clusters * classes) for w in (None, correct[rows])]
        tables.append([table.reshape(clusters, classes).astype(np.float64) for table in sums])

    def metrics(counts: Floats) -> dict[str, Floats]:
        """Return each metric for counts (B, clusters) of each source."""
        top1, of_classes = [], []
        with np.errstate(invalid="ignore", divide="ignore"):
            for support, hits in (([counts @ table for table in pair]) for pair in tables):
                top1.append(hits.sum(axis=1) / support.sum(axis=1))
                recall = np.where(support > 0, hits / support, 0.0)
                of_classes.append(recall.sum(axis=1) / (support > 0).sum(axis=1))
        return {"top1": np.mean(top1, axis=0), "mean_class_accuracy": np.mean(of_classes, axis=0)}

    blocks = [metrics(counts) for counts in resampled_counts(clusters, resamples=resamples, seed=seed)]
    return _Results(
        best=best,
        correct=correct,
        value={name: float(value[0]) for name, value in metrics(np.ones((1, clusters))).items()},
        drawn={name: np.concatenate([block[name] for block in blocks]) for name in DELTAS},
    )


def _compare(a: Predictions, first: _Results, second: _Results, names: tuple[str, str]) -> Comparison:
    difference = second.correct.astype(np.int64) - first.correct.astype(np.int64)
    per_class = _per_class(a, difference, (first.correct, second.correct))
    sign = [np.sign(row.delta) for row in per_class if row.delta is not None]
    p_sources = paired_p(difference, a.cluster)
    return Comparison(
        a=names[0],
        b=names[1],
        n_clips=len(set(a.id.tolist())),
        n_results=len(a.id),
        n_sources=len(set(a.cluster.tolist())),
        delta={name: _difference(a, first, second, name) for name in DELTAS},
        p_clips=paired_p(_sign_by(difference, a.id), np.unique(a.id)),
        p_sources=p_sources,
        p_holm=p_sources,
        clips=ResultCounts(
            both=int((first.correct & second.correct).sum()),
            only_a=int((first.correct & ~second.correct).sum()),
            only_b=int((~first.correct & second.correct).sum()),
            neither=int((~first.correct & ~second.correct).sum()),
        ),
        classes=ClassCounts(
            wins=sign.count(1),
            ties=sign.count(0),
            losses=sign.count(-1),
            shown=[row.class_ for row in per_class if row.p_holm is not None and row.p_holm < ALPHA],
        ),
        per_class=per_class,
    )


def _difference(a: Predictions, first: _Results, second: _Results, name: str) -> Difference:
    low, high = percentile_interval(second.drawn[name] - first.drawn[name])
    if np.array_equal(first.best, second.best):
        # Every resample gives exactly 0, which the clips at hand do not prove of others.
        low, high = paired_interval(np.zeros(len(a.true)), a.cluster)
    return Difference(value=second.value[name] - first.value[name], ci95=(round(low, 6), round(high, 6)))


def _per_class(
    a: Predictions, difference: NDArray[np.int64], correct: tuple[NDArray[np.bool_], NDArray[np.bool_]]
) -> list[ClassDifference]:
    rows, cluster = [], a.cluster
    for number, name in enumerate(a.class_names):
        members = np.flatnonzero(a.true == number)
        if not len(members):
            rows.append(ClassDifference(class_=name, support=0))
            continue
        low, high = paired_interval(difference[members], cluster[members])
        row = ClassDifference(
            class_=name,
            support=len(members),
            a=float(correct[0][members].mean()),
            b=float(correct[1][members].mean()),
            delta=float(difference[members].mean()),
            ci95=(round(low, 6), round(high, 6)),
            p=paired_p(difference[members], cluster[members]),
        )
        rows.append(row)
    corrected = iter(holm([row.p for row in rows if row.p is not None]))
    return [row if row.p is None else replace(row, p_holm=next(corrected)) for row in rows]


def _sign_by(difference: NDArray[np.int64], name: NDArray[np.str_]) -> NDArray[np.int64]:
    """Return the sign of the sum for each name, sorted by name."""
    _, number = groups(name)
    return np.sign(np.bincount(number, weights=difference)).astype(np.int64)
