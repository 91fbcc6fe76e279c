"""Metrics of several splits as one number each, with an interval: the `summary` of `metrics.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from actionvit.evaluation.clustered import MOST_LEVERAGE, Design, Estimate, hit_share
from actionvit.evaluation.intervals import bounded_by_sources
from actionvit.evaluation.metrics import METRICS, Floats, clip_losses, debiased_ece, macro_f1, predicted

PROPORTIONS = ("top1", "top5", "mean_class_accuracy", "macro_f1")
"""Metrics that are 1 when nothing is wrong and 0 when everything is."""

POOLED = ("macro_f1", "ece")
"""Metrics that are computed once from all splits' results."""

LARGEST = {"ece": 1.0, "brier": 2.0}
"""Upper bounds of losses that have one."""


def summarize(splits: Sequence[Mapping[str, Any]], design: Design, *, scores: ArrayLike) -> dict[str, dict[str, Any]]:
    """Return each metric over all splits: `mean`, `std` between the splits, and `ci95`.

    `mean` is the mean over the splits, except that macro F1 and ECE are computed once from all splits' results together
    (each split with the same weight): averaged over small folds, macro F1 is too low and ECE too high. `std` is the
    standard deviation between the splits (n - 1 below the root), None for one split.

    `ci95` is a 95 % interval of the metric's expectation for new videos and newly trained heads; see `clustered`.
    Proportions have Korn and Graubard's interval, log loss and Brier score that of their logarithm, ECE the t interval.
    Macro F1 and ECE are linearized: their error is, to first order, a sum over the clips.

    Parameters
    ----------
    splits : sequence of dict
        As from `metrics.evaluate`, in the order of `design.split_names`.
    design : Design
        Of all test results of all splits, M rows.
    scores : array_like of shape (M, C)
        Probabilities.
    """
    scores = np.asarray(scores, dtype=np.float64)
    losses = clip_losses(design.true, scores)
    estimates = {
        "top1": design.mean(losses["top1"]),
        "top5": design.mean(losses["top5"]),
        "mean_class_accuracy": design.class_mean(losses["top1"]),
        "macro_f1": _macro_f1(design, scores, losses["top1"]),
        "ece": _ece(design, scores),
        "log_loss": design.mean(losses["log_loss"], "losses"),
        "brier": design.mean(losses["brier"], "losses"),
    }
    means = {name: float(np.mean([split[name] for split in splits])) for name in METRICS}
    estimates |= {name: replace(estimates[name], value=means[name]) for name in METRICS if name not in POOLED}
    means |= {name: max(0.0, estimates[name].value) for name in POOLED}
    correct = {name: losses["top5" if name == "top5" else "top1"] > 0 for name in PROPORTIONS}
    return {
        metric: {
            "mean": means[metric],
            "std": float(np.std([split[metric] for split in splits], ddof=1)) if len(splits) > 1 else None,
            "ci95": rounded(_interval(metric, estimates[metric], design, correct.get(metric))),
        }
        for metric in METRICS
    }


def _interval(
    metric: str, estimate: Estimate, design: Design, correct: NDArray[np.bool_] | None
) -> tuple[float, float]:
    if correct is None:
        low, high = estimate.interval() if metric == "ece" else estimate.positive_interval()
        return max(0.0, low), min(LARGEST.get(metric, np.inf), max(0.0, high))
    return bounded_by_sources(estimate.proportion_interval(), estimate.value, correct, design.source)


def _macro_f1(design: Design, scores: Floats, hits: Floats) -> Estimate:
    """Return macro F1 of all splits' results together; a result moves its true and its predicted class's F1.

    The error of a class with a single source is invisible to this linearization; the standard error is then at least
    that of the mean class accuracy.
    """
    classes, best, weight = scores.shape[1], predicted(scores), design.clip_weight
    cells = np.bincount(design.true * classes + best, weights=weight, minlength=classes**2).reshape(classes, classes)
    support, chosen = cells.sum(axis=1), cells.sum(axis=0)
    tested = support > 0
    total = np.where(tested, support + chosen, 1.0)
    f1 = 2 * np.diag(cells) / total
    slope = np.where(tested, 1 / total, 0.0) / tested.sum()
    residual = (
        2 * (best == design.true) * slope[design.true] - f1[design.true] * slope[design.true] - f1[best] * slope[best]
    )
    cell = design.true * design.sources + design.source
    of_source = np.bincount(cell, weights=weight, minlength=classes * design.sources)[cell] / support[design.true]
    # Few sources vary little around their own F1.
    residual = residual / np.sqrt(1 - np.minimum(of_source, MOST_LEVERAGE))
    value = macro_f1(cells)
    estimate = design.linearized(value, residual, weight, share=hit_share(value), stratified=False)
    sources = np.bincount(np.unique(cell) // design.sources)
    return replace(estimate, se=max(estimate.se, design.class_mean(hits).se)) if (sources == 1).any() else estimate


def _ece(design: Design, scores: Floats) -> Estimate:
    """Return the debiased expected calibration error of all splits' results together."""
    value, se = debiased_ece(design.true, scores, design.clip_weight, design.source)
    correct = (predicted(scores) == design.true).astype(np.float64)
    gap = design.difference(scores.max(axis=1) - correct, accuracy=float(design.clip_weight @ correct))
    return replace(gap, value=value, se=se * gap.inflation)


def rounded(interval: tuple[float, float]) -> list[float]:
    """Return an interval to six decimals: sums of products may differ in the last bits with the number of threads."""
    return [round(end, 6) for end in interval]
