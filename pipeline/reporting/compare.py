"""Runs against each other on the same test clips, paired clip by clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
from actionvit.evaluation.metrics import measures, predicted
from actionvit.pipeline.reporting.text import ALPHA, listing, verdict
from actionvit.pipeline.runs import Predictions, Run

DELTAS = ("top1", "mean_class_accuracy")
"""Metrics whose difference is given an interval."""


def compare_all(
    runs: Sequence[Run], *, names: Sequence[str] | None = None, resamples: int = 2000, seed: int = 0
) -> list[dict[str, Any]]:
    """Compare each run with the first; p values are corrected for the number of comparisons.

    Parameters
    ----------
    runs : sequence of Run
        The first is the baseline; a difference is "other − baseline".
    names : sequence of str, optional
        What to call them; their own names by default.
    resamples, seed : int
        Of the bootstrap.

    Returns
    -------
    list of dict
        One for each run but the first, see `compare`, with `p_holm`, `cost_ratio` and `verdict` added.

    Raises
    ------
    ActionVitError
        If two runs tested different clips or know different classes.
    """
    first, *others = runs
    called, *rest = names or [run.name for run in runs]
    found = [
        compare(first.predictions, other.predictions, names=(called, name), resamples=resamples, seed=seed)
        for other, name in zip(others, rest, strict=True)
    ]
    corrected = holm([comparison["p_sources"] for comparison in found])
    for comparison, other, p in zip(found, others, corrected, strict=True):
        cost, base = other.info.get("gmac"), first.info.get("gmac")
        comparison.update(p_holm=p, cost_ratio=cost / base if cost and base else None)
        comparison["verdict"] = verdict(comparison)
    return found


def compare(
    a: Predictions, b: Predictions, *, names: tuple[str, str] = ("a", "b"), resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Compare two sets of predictions of the same clips; every difference is b − a.

    Returns
    -------
    dict
        `delta`: by metric `value` (mean over the splits) and `ci95` (paired bootstrap over sources); `p_clips`:
        McNemar's exact test, each clip once (one that several splits test counts for the run right in more of them);
        `p_sources`: the same with sources exchanged whole, the one to go by; `clips`: test results by who was right;
        `classes`: where b wins, ties, loses by recall; `per_class`: `delta`, `ci95`, `p`, `p_holm` for each class.
    """
    order = _align(a, b, names)
    rows_a, rows_b = predicted(a.scores) == a.true, (predicted(b.scores) == b.true)[order]
    difference = rows_b.astype(np.int64) - rows_a.astype(np.int64)
    per_class = _per_class(a, difference, (rows_a, rows_b))
    sign = [np.sign(row["delta"]) for row in per_class if row["support"]]
    right = list(zip(rows_a.tolist(), rows_b.tolist(), strict=True))
    return {
        "a": names[0],
        "b": names[1],
        "n_clips": len(set(a.id.tolist())),
        "n_results": len(a.id),
        "n_sources": len(set(a.cluster.tolist())),
        "delta": _deltas(a, b, order, resamples=resamples, seed=seed),
        "p_clips": paired_p(_sign_by(difference, a.id), np.unique(a.id)),
        "p_sources": paired_p(difference, a.cluster),
        "clips": {
            "both": right.count((True, True)),
            "only_a": right.count((True, False)),
            "only_b": right.count((False, True)),
            "neither": right.count((False, False)),
        },
        "classes": {
            "wins": sign.count(1),
            "ties": sign.count(0),
            "losses": sign.count(-1),
            "shown": [row["class"] for row in per_class if row["p_holm"] is not None and row["p_holm"] < ALPHA],
        },
        "per_class": per_class,
    }


def _align(a: Predictions, b: Predictions, names: tuple[str, str]) -> NDArray[np.int64]:
    """Return which row of b holds each row of a, or refuse."""
    pair = f"runs `{names[0]}` and `{names[1]}`"
    if a.class_names != b.class_names:
        odd = sorted(set(a.class_names) ^ set(b.class_names))
        raise ActionVitError(f"{pair} know different classes ({listing(odd)}): compare runs of one dataset")
    key_a, key_b = (list(zip(run.split.tolist(), run.id.tolist(), strict=True)) for run in (a, b))
    only_a, only_b = set(key_a) - set(key_b), set(key_b) - set(key_a)
    if only_a or only_b:
        odd = [f"{split}: {id_}" for split, id_ in sorted(only_a | only_b)]
        raise ActionVitError(
            f"{pair} tested different clips: {len(only_a):,} only in the first, {len(only_b):,} only in the second, "
            f"{len(set(key_a) & set(key_b)):,} in both ({listing(odd)}); make both with one protocol and seed"
        )
    place = {key: row for row, key in enumerate(key_b)}
    order = np.array([place[key] for key in key_a], dtype=np.int64)
    if moved := int((b.true[order] != a.true).sum()):
        raise ActionVitError(f"{pair} disagree on the true class of {moved:,} clips: make both from the same labels")
    return order


def _deltas(
    a: Predictions, b: Predictions, order: NDArray[np.int64], *, resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    clusters, number = groups(a.cluster)
    where = [np.flatnonzero(a.split == name) for name in a.split_names]

    def difference(weights: Floats) -> dict[str, Floats]:
        """Return b − a of each metric, averaged over the splits, for each row of weights (B, M)."""
        parts: dict[str, list[Floats]] = {name: [] for name in DELTAS}
        for rows in where:
            first = measures(a.true[rows], a.scores[rows], weights[:, rows])
            second = measures(a.true[rows], b.scores[order[rows]], weights[:, rows])
            for name in DELTAS:
                parts[name].append(second[name] - first[name])
        # A resample without any clip of a split is nan, and left out of the interval.
        return {name: np.mean(part, axis=0) for name, part in parts.items()}

    value = difference(np.ones((1, len(a.true))))
    drawn = [difference(counts[:, number]) for counts in resampled_counts(clusters, resamples=resamples, seed=seed)]
    ends = {name: percentile_interval(np.concatenate([block[name] for block in drawn])) for name in DELTAS}
    if np.array_equal(predicted(a.scores), predicted(b.scores[order])):
        # Every resample says exactly 0, which the clips at hand do not prove of others.
        ends = dict.fromkeys(DELTAS, paired_interval(np.zeros(len(a.true)), a.cluster))
    return {name: {"value": float(value[name][0]), "ci95": [round(end, 6) for end in ends[name]]} for name in DELTAS}


def _per_class(
    a: Predictions, difference: NDArray[np.int64], right: tuple[NDArray[np.bool_], NDArray[np.bool_]]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number, name in enumerate(a.class_names):
        own = a.true == number
        support = int(own.sum())
        row: dict[str, Any] = {"class": name, "support": support}
        if support:
            low, high = paired_interval(difference[own], a.cluster[own])
            row |= {"a": float(right[0][own].mean()), "b": float(right[1][own].mean())}
            row |= {"delta": float(difference[own].mean()), "ci95": [round(low, 6), round(high, 6)]}
            row |= {"p": paired_p(difference[own], a.cluster[own]), "p_holm": None}
        else:
            row |= dict.fromkeys(("a", "b", "delta", "ci95", "p", "p_holm"))
        rows.append(row)
    tested = [row for row in rows if row["support"]]
    for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["p_holm"] = p
    return rows


def _sign_by(difference: NDArray[np.int64], name: NDArray[np.str_]) -> NDArray[np.int64]:
    """Return the sign of the sum for each name, sorted by name."""
    _, number = groups(name)
    return np.sign(np.bincount(number, weights=difference)).astype(np.int64)
