"""Metrics of several splits in one number each, with an interval: the `summary` of `metrics.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from actionvit.evaluation.intervals import Floats, groups, lowest_share, percentile_interval, resampled_counts
from actionvit.evaluation.metrics import EPSILON, METRICS, measures, predicted, ranks

SHARES = ("top1", "top5", "mean_class_accuracy", "macro_f1")
"""Metrics that are 1 when nothing is wrong."""

OF_CLASSES = ("mean_class_accuracy", "macro_f1")
"""Means over classes: few sources stand behind each of their parts."""

FEW = 5
"""Sources with an error, below which a bootstrap sees too few of them."""


def summarize(
    splits: Sequence[Mapping[str, Any]],
    *,
    true: ArrayLike,
    scores: ArrayLike,
    split: ArrayLike,
    cluster: ArrayLike,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Return each metric's mean and standard deviation over the splits, and a 95 % interval of the mean.

    The interval is a cluster bootstrap over the pooled test clips: sources are drawn with replacement, a source brings
    all its test clips in every split (official splits share clips, so their results are not independent), each split is
    measured again and the splits are averaged. It says how far the number would move on other videos of this kind, as
    many of them, the trained heads being as they are; `std` (n - 1 below the root, None for one split) says how far it
    moves between splits.

    The middle 95 % of the resamples is put right in three ways, each of which simulations call for:

    - Resampling shifts what is not linear (`ece` up, `macro_f1` down): the interval is moved back by as much, so that
      it belongs to the number beside it. (That number itself is shifted by chance against what endless clips would
      give; a few hundred clips of a perfectly calibrated head have an `ece` above 0.)
    - A bootstrap of k sources varies too little, by k - 1 to k, where k is of a class in a split if classes are
      averaged; and it takes its own spread for known. The interval is widened to the spread by linearisation, residuals
      taken from the mean over all splits, times Student's t over the normal quantile.
    - A share with an error in fewer than 5 sources gets the exact binomial bound, with sources as trials, for its lower
      end where that is lower.

    Parameters
    ----------
    splits : sequence of dict
        As from `metrics.evaluate`, named as in `split`.
    true, scores, split, cluster : array_like of M rows
        All test clips of all splits; `cluster` is the source, or the id where no source is known.
    resamples, seed : int
        Of the bootstrap: the same seed gives the same interval.
    """
    true, scores, split = np.asarray(true), np.asarray(scores, dtype=np.float64), np.asarray(split)
    clusters, number = groups(cluster)
    where = [np.flatnonzero(split == entry["name"]) for entry in splits]
    drawn: dict[str, list[Floats]] = {metric: [] for metric in METRICS}
    for counts in resampled_counts(clusters, resamples=resamples, seed=seed):
        parts = [measures(true[rows], scores[rows], counts[:, number[rows]]) for rows in where]
        for metric in METRICS:
            drawn[metric].append(_mean_over_splits([part[metric] for part in parts]))
    part = np.searchsorted(sorted(entry["name"] for entry in splits), split)
    spreads = _spreads(true, scores, part, number)
    wrong = _clusters_with_errors(true, scores, number)
    return {
        metric: _summary(
            metric,
            [float(entry[metric]) for entry in splits],
            np.concatenate(drawn[metric]),
            spread=spreads.get(metric),
            clusters=clusters,
            few=wrong["top5" if metric == "top5" else "top1"] < FEW,
        )
        for metric in METRICS
    }


def _summary(
    metric: str, values: Sequence[float], drawn: Floats, *, spread: float | None, clusters: int, few: bool
) -> dict[str, Any]:
    from scipy.stats import norm, t

    mean, middle, own = float(np.mean(values)), float(np.nanmean(drawn)), float(np.nanstd(drawn))
    low, high = percentile_interval(drawn)
    widen = max(1.0, (spread or own) / own) if own > 0 else 1.0
    widen *= float(t.ppf(0.975, max(1, clusters - 1)) / norm.ppf(0.975))
    low, high = mean + widen * (low - middle), mean + widen * (high - middle)
    if metric in SHARES and few:
        low = min(low, lowest_share(mean, clusters))
    highest = 1.0 if metric in (*SHARES, "ece") else np.inf
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    # Sums of products may differ in the last bits with the number of threads; the sixth decimal does not.
    return {"mean": mean, "std": std, "ci95": [round(max(0.0, low), 6), round(min(highest, high), 6)]}


def _spreads(true: NDArray[Any], scores: Floats, part: NDArray[np.intp], number: NDArray[np.int64]) -> dict[str, float]:
    """Return the standard error of metrics by linearisation; that of `macro_f1` is the mean class accuracy's."""
    rank, classes = ranks(true, scores), scores.shape[1]
    right = (predicted(scores) == true).astype(np.float64)
    own = np.clip(scores[np.arange(len(true)), true], EPSILON, 1 - EPSILON)
    onehot = true[:, None] == np.arange(classes)
    of_class = _spread(right, part, part * classes + true, true, number)
    return {
        "top1": _spread(right, part, part, part, number),
        "top5": _spread((rank < 5).astype(np.float64), part, part, part, number),
        **dict.fromkeys(OF_CLASSES, of_class),
        "log_loss": _spread(-np.log(own), part, part, part, number),
        "brier": _spread(((scores - onehot) ** 2).sum(axis=1), part, part, part, number),
    }


def _spread(
    values: Floats, part: NDArray[np.intp], cell: NDArray[Any], kind: NDArray[Any], number: NDArray[np.int64]
) -> float:
    """Return the standard error of: values averaged in each cell, cells in each split, splits.

    A clip's residual is taken from the mean of its `kind` of cell (in all splits), and weighed up for the k sources
    that this mean rests on.
    """
    _, cell, sizes = np.unique(cell, return_inverse=True, return_counts=True)
    _, kind, counts = np.unique(kind, return_inverse=True, return_counts=True)
    cells_of_part = np.bincount(part[np.unique(cell, return_index=True)[1]])
    weight = 1 / (np.count_nonzero(cells_of_part) * cells_of_part[part] * sizes[cell])
    residual = values - (np.bincount(kind, weights=values) / counts)[kind]
    pairs = np.unique(np.stack([kind, number]), axis=1)[0]
    k = np.bincount(pairs).astype(np.float64)
    residual *= np.sqrt(k / np.maximum(k - 1, 1))[kind]
    return float(np.sqrt((np.bincount(number, weights=weight * residual) ** 2).sum()))


def _clusters_with_errors(true: NDArray[Any], scores: Floats, number: NDArray[np.int64]) -> dict[str, int]:
    rank = ranks(true, scores)
    return {name: len(np.unique(number[rank >= places])) for name, places in (("top1", 1), ("top5", 5))}


def _mean_over_splits(values: Sequence[Floats]) -> Floats:
    """Average over splits; a resample may miss a split whole (nan), then over those it has."""
    stack = np.stack(values)
    there = ~np.isnan(stack)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(there, stack, 0.0).sum(axis=0) / there.sum(axis=0), dtype=np.float64)
