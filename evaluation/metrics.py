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

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from actionvit.evaluation.intervals import Floats

METRICS = ("top1", "top5", "mean_class_accuracy", "macro_f1", "ece", "log_loss", "brier")
"""The single numbers of a split, in the order of the report."""

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
