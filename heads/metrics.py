"""How good predictions are: the entries of `metrics.json`.

Conventions, for every number here:

- The predicted class is the one with the highest score; of equal scores the first in class order ranks first.
- 0/0 is None: recall of a class without test clips, precision of a class that was never predicted.
- Means over classes (`mean_class_accuracy`, `macro_f1`) go over the classes that have test clips.
- `top5` is the share of clips whose class is among the five best (among all of them where there are fewer classes).
- `ece` is the expected calibration error of the winning score, 15 equal bins (Guo et al., ICML 2017).
- `log_loss` is in nats, scores clipped at float32's epsilon; `brier` is the squared error summed over the classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from actionvit.heads.statistics import Floats, flawless_bound, groups, percentile_interval, resampled_counts

METRICS = ("top1", "top5", "mean_class_accuracy", "macro_f1", "ece", "log_loss", "brier")
"""The single numbers of a split, in the order of the report."""

SHARES = ("top1", "top5", "mean_class_accuracy", "macro_f1")
"""Those that are 1 when nothing is wrong."""

BINS = 15
"""Bins of the reliability diagram and of `ece`."""

EPSILON = float(np.finfo(np.float32).eps)


def predicted(scores: ArrayLike) -> NDArray[np.int64]:
    """Return the class with the highest score, (M,); the first of equals."""
    return np.asarray(np.argmax(scores, axis=1), dtype=np.int64)


def ranks(true: ArrayLike, scores: ArrayLike) -> NDArray[np.int64]:
    """Return how many classes rank before the true one, (M,); equal scores rank in class order."""
    scores, true = np.asarray(scores), np.asarray(true, dtype=np.int64)
    own = scores[np.arange(len(true)), true][:, None]
    before = (scores > own) | ((scores == own) & (np.arange(scores.shape[1]) < true[:, None]))
    return np.asarray(before.sum(axis=1), dtype=np.int64)


def confusion(true: ArrayLike, scores: ArrayLike) -> NDArray[np.int64]:
    """Return how often each true class (row) was taken for each class (column), (C, C)."""
    classes = np.asarray(scores).shape[1]
    cell = np.asarray(true, dtype=np.int64) * classes + predicted(scores)
    return np.bincount(cell, minlength=classes**2).astype(np.int64).reshape(classes, classes)


def cmc(true: ArrayLike, scores: ArrayLike) -> Floats:
    """Return the top-k accuracy for k = 1 to C, (C,): the cumulative match curve."""
    found = np.bincount(ranks(true, scores), minlength=np.asarray(scores).shape[1])
    return np.asarray(np.cumsum(found) / found.sum(), dtype=np.float64)


def reliability(true: ArrayLike, scores: ArrayLike) -> list[dict[str, Any]]:
    """Return the bins of a reliability diagram: `lower`, `upper`, `count`, mean `confidence`, `accuracy`."""
    scores = np.asarray(scores, dtype=np.float64)
    hit, confidence, number = predicted(scores) == true, scores.max(axis=1), _bins(scores.max(axis=1))
    rows = []
    for bin_ in range(BINS):
        inside = number == bin_
        count = int(inside.sum())
        rows.append(
            {
                "lower": bin_ / BINS,
                "upper": (bin_ + 1) / BINS,
                "count": count,
                "confidence": float(confidence[inside].mean()) if count else None,
                "accuracy": float(hit[inside].mean()) if count else None,
            }
        )
    return rows


def measures(true: ArrayLike, scores: ArrayLike, weights: Floats | None = None) -> dict[str, Floats]:
    """Return each of `METRICS` for each row of weights.

    Parameters
    ----------
    true : array_like of int, shape (M,)
        Class numbers.
    scores : array_like of shape (M, C)
        Probabilities.
    weights : ndarray of shape (B, M), optional
        How often each clip counts, B times over; every clip once without them (B = 1).

    Returns
    -------
    dict of ndarray of shape (B,)
        nan where all weights of a row are 0.
    """
    true, scores = np.asarray(true, dtype=np.int64), np.asarray(scores, dtype=np.float64)
    weights = np.ones((1, len(true))) if weights is None else weights
    rank, best, classes = ranks(true, scores), predicted(scores), np.arange(scores.shape[1])
    is_true, is_best = (true[:, None] == classes).astype(float), (best[:, None] == classes).astype(float)
    support, chosen = weights @ is_true, weights @ is_best
    right = weights @ (is_true * is_best)
    own = np.clip(scores[np.arange(len(true)), true], EPSILON, 1 - EPSILON)
    gap = scores.max(axis=1) - (best == true)
    in_bin = (_bins(scores.max(axis=1))[:, None] == np.arange(BINS)).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        total = weights.sum(axis=1)
        there = (support > 0).sum(axis=1)
        recall = np.where(support > 0, right / support, 0.0)
        f1 = np.where(support > 0, 2 * right / (support + chosen), 0.0)
        return {
            "top1": weights @ (rank < 1) / total,
            "top5": weights @ (rank < 5) / total,
            "mean_class_accuracy": recall.sum(axis=1) / there,
            "macro_f1": f1.sum(axis=1) / there,
            "ece": np.abs(weights @ (in_bin * gap[:, None])).sum(axis=1) / total,
            "log_loss": weights @ -np.log(own) / total,
            "brier": weights @ ((scores - is_true) ** 2).sum(axis=1) / total,
        }


def evaluate(
    true: ArrayLike, scores: ArrayLike, class_names: Sequence[str], *, n_train: int, name: str = ""
) -> dict[str, Any]:
    """Return one entry of `metrics.json`'s `splits`, ready for JSON.

    Parameters
    ----------
    true : array_like of int, shape (M,)
        Class numbers of the test clips, M at least 1.
    scores : array_like of shape (M, C)
        Probabilities, one row a clip, in the order of `class_names`.
    class_names : sequence of C names
        Class order of `scores`.
    n_train : int
        Clips the head was trained on.
    name : str
        The split's name.

    Raises
    ------
    ValueError
        If shapes do not fit, a score is not finite, a row does not sum to 1, or there is no clip.
    """
    true, scores = np.asarray(true), np.asarray(scores)
    check_scores(true, scores, class_names)
    cells = confusion(true, scores)
    numbers = {metric: float(value[0]) for metric, value in measures(true, scores).items()}
    return {
        "name": name,
        "n_train": int(n_train),
        "n_test": len(true),
        **numbers,
        "per_class": per_class(cells, class_names),
        "confusion": cells.tolist(),
        "reliability": reliability(true, scores),
    }


def per_class(cells: NDArray[np.int64], class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Return `class`, `precision`, `recall`, `f1`, `support` of each class from a confusion matrix; 0/0 is None."""

    def ratio(part: int, whole: int) -> float | None:
        return part / whole if whole else None

    rows = []
    for number, name in enumerate(class_names):
        right, support, chosen = int(cells[number, number]), int(cells[number].sum()), int(cells[:, number].sum())
        rows.append(
            {
                "class": name,
                "precision": ratio(right, chosen),
                "recall": ratio(right, support),
                "f1": ratio(2 * right, support + chosen),
                "support": support,
            }
        )
    return rows


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
    """Return `summary`: mean and standard deviation over the splits, and a 95 % interval of the mean.

    The interval is a cluster bootstrap over the pooled test clips: sources are drawn with replacement, a source brings
    all its test clips in every split (official splits share clips, so their results are not independent), each split is
    measured again and the splits are averaged. It says how far the number would move on other videos of this kind, the
    trained heads being as they are; `std` (n - 1 below the root, None for one split) says how far it moves between
    splits.

    The ends are the middle 95 % of the resamples, with three exceptions that simulations called for: of a share that is
    1 in every resample the exact binomial bound with sources as trials is the lower end; `macro_f1` shrinks under
    resampling, so its interval is shifted back by as much; `ece` grows under it and is itself too large by about as
    much, so its interval is the basic one, mirrored at the estimate, never below 0.

    Parameters
    ----------
    splits : sequence of dict
        As from `evaluate`, named as in `split`.
    true, scores, split, cluster : array_like of M rows
        All test clips of all splits; `cluster` is the source, or the id where no source is known.
    resamples, seed : int
        Of the bootstrap: the same seed gives the same interval.
    """
    true, scores, split = np.asarray(true), np.asarray(scores), np.asarray(split)
    clusters, number = groups(cluster)
    where = [np.flatnonzero(split == entry["name"]) for entry in splits]
    drawn: dict[str, list[Floats]] = {metric: [] for metric in METRICS}
    for counts in resampled_counts(clusters, resamples=resamples, seed=seed):
        parts = [measures(true[rows], scores[rows], counts[:, number[rows]]) for rows in where]
        for metric in METRICS:
            drawn[metric].append(_mean_over_splits([part[metric] for part in parts]))
    return {
        metric: _summary(metric, [float(entry[metric]) for entry in splits], np.concatenate(drawn[metric]), clusters)
        for metric in METRICS
    }


def check_scores(true: NDArray[Any], scores: NDArray[Any], class_names: Sequence[str]) -> None:
    """Raise ValueError unless `true` (M,) and `scores` (M, C) are class numbers and probabilities."""
    if scores.ndim != 2 or scores.shape != (len(true), len(class_names)) or not len(true):
        raise ValueError(f"scores: got {scores.shape}, expected ({len(true) or 'at least 1'}, {len(class_names)})")
    if not np.issubdtype(true.dtype, np.integer) or true.min() < 0 or true.max() >= len(class_names):
        raise ValueError(f"true: expected whole numbers from 0 to {len(class_names) - 1}")
    if (
        not np.isfinite(scores).all()
        or scores.min() < 0
        or np.abs(scores.sum(axis=1, dtype=np.float64) - 1).max() > 1e-3
    ):
        raise ValueError("scores: expected probabilities, finite, not negative, each row summing to 1")


def _bins(confidence: Floats) -> NDArray[np.int64]:
    """Bin i holds (i / BINS, (i + 1) / BINS]."""
    return np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)


def _mean_over_splits(values: Sequence[Floats]) -> Floats:
    """Average over splits; a resample may miss a split whole (nan), then over those it has."""
    stack = np.stack(values)
    there = ~np.isnan(stack)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(there, stack, 0.0).sum(axis=0) / there.sum(axis=0), dtype=np.float64)


def _summary(metric: str, values: Sequence[float], drawn: Floats, clusters: int) -> dict[str, Any]:
    mean = float(np.mean(values))
    low, high = percentile_interval(drawn)
    if metric == "ece":
        low, high = max(0.0, 2 * mean - high), max(0.0, 2 * mean - low)
    if metric == "macro_f1":
        shift = mean - float(np.nanmean(drawn))
        low, high = max(0.0, low + shift), min(1.0, high + shift)
    if metric in SHARES and low == 1.0:
        low = flawless_bound(clusters)
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    # Sums of products may differ in the last bits with the number of threads; the sixth decimal does not.
    return {"mean": mean, "std": std, "ci95": [round(low, 6), round(high, 6)]}
