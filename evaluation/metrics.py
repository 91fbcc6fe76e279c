"""Metrics of a set of predictions: the entries of `metrics.json`.

Conventions, for every metric:

- The predicted class is the one with the highest score; of equal scores the first in class order ranks first.
- 0/0 is None: recall of a class without test clips, precision of a class that was never predicted.
- Means over classes (`mean_class_accuracy`, `macro_f1`) go over the classes that have test clips; among these
  a class that was never predicted has F1 = 0.
- `top5` is the fraction of clips whose class is among the five best (among all of them where there are fewer classes).
- `ece` is the expected calibration error of the highest score, 15 equal bins (Guo et al., ICML 2017), debiased: see
  `debiased_ece`.
- `log_loss` is in nats, scores clipped at float32's epsilon; `brier` is the squared error summed over the classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

METRICS = ("top1", "top5", "mean_class_accuracy", "macro_f1", "ece", "log_loss", "brier")
"""The metrics of a split, in the order of the report."""

SMOOTHING = 0.6
"""Standard deviation of the normal density over which the slope of the debiased ECE is averaged, selected by simulation
(tests/test_intervals.py): the standard error is too large with 0 and too small with 1."""

BINS = 15
"""Bins of the reliability diagram and of `ece`."""

EPSILON = float(np.finfo(np.float32).eps)


def predicted(scores: ArrayLike) -> NDArray[np.int64]:
    """Return the class with the highest score, (M,); the first of equals."""
    return np.asarray(np.argmax(scores, axis=1), dtype=np.int64)


def true_class_rank(true: ArrayLike, scores: ArrayLike) -> NDArray[np.int64]:
    """Return how many classes rank before the true one, (M,); equal scores rank in class order."""
    scores, true = np.asarray(scores), np.asarray(true, dtype=np.int64)
    true_score = scores[np.arange(len(true)), true][:, None]
    before = (scores > true_score) | ((scores == true_score) & (np.arange(scores.shape[1]) < true[:, None]))
    return np.asarray(before.sum(axis=1), dtype=np.int64)


def clip_losses(true: ArrayLike, scores: ArrayLike) -> dict[str, Floats]:
    """Return the value of each clip, (M,), for the metrics that are means over clips.

    Returns
    -------
    dict
        `top1`, `top5` (0 or 1), `log_loss` (nats), `brier`.
    """
    true, scores = np.asarray(true, dtype=np.int64), np.asarray(scores, dtype=np.float64)
    rank, true_score = true_class_rank(true, scores), scores[np.arange(len(true)), true]
    return {
        "top1": (rank < 1).astype(np.float64),
        "top5": (rank < 5).astype(np.float64),
        "log_loss": -np.log(np.clip(true_score, EPSILON, 1 - EPSILON)),
        "brier": (scores**2).sum(axis=1) - 2 * true_score + 1,
    }


def compute_metrics(true: ArrayLike, scores: ArrayLike, cluster: ArrayLike | None = None) -> dict[str, float]:
    """Return each of `METRICS` of one set of test clips.

    Parameters
    ----------
    true : array_like of int, shape (M,)
        Class numbers, M at least 1.
    scores : array_like of shape (M, C)
        Probabilities.
    cluster : array_like of shape (M,), optional
        Source of each clip, for `ece`; every clip is its own source without it.
    """
    true, scores = np.asarray(true, dtype=np.int64), np.asarray(scores, dtype=np.float64)
    cluster = np.arange(len(true)) if cluster is None else np.asarray(cluster)
    cells = confusion(true, scores).astype(np.float64)
    recall = np.diag(cells)[cells.sum(axis=1) > 0] / cells.sum(axis=1)[cells.sum(axis=1) > 0]
    means = {name: float(values.mean()) for name, values in clip_losses(true, scores).items()}
    values = {
        **means,
        "mean_class_accuracy": float(recall.mean()),
        "macro_f1": macro_f1(cells),
        "ece": max(0.0, debiased_ece(true, scores, np.full(len(true), 1 / len(true)), cluster)[0]),
    }
    return {metric: values[metric] for metric in METRICS}


def macro_f1(cells: ArrayLike) -> float:
    """Return the mean F1 of the classes with test clips, from a confusion matrix of counts or of weights, (C, C)."""
    cells = np.asarray(cells, dtype=np.float64)
    support, chosen = cells.sum(axis=1), cells.sum(axis=0)
    tested = support > 0
    return float((2 * np.diag(cells)[tested] / (support + chosen)[tested]).mean())


def debiased_ece(true: ArrayLike, scores: ArrayLike, weight: ArrayLike, cluster: ArrayLike) -> tuple[float, float]:
    """Return the expected calibration error without the bias of the plug-in estimate, and its standard error.

    The plug-in estimate averages |confidence - accuracy| over the bins, and an absolute value of noise is never 0: a
    perfectly calibrated head shows several points on some hundred clips. The remedy is cross-fitting: the sign of a
    bin's gap is taken from one half of the sources and multiplied with the gap of the other half, which has the
    expectation 0 for a calibrated head. Averaged over all halvings, in the normal approximation, a bin with the
    weighted gap G, its standard error s and z = |G| / s has s · (z · (2Φ(z) - 1) - 2φ(z)): |G| where its sign is clear,
    and negative where it is not. So may be the sum, from which intervals are computed; as an estimate it counts as 0.

    The standard error includes what the bins share: a source's clips err together wherever their confidences lie, and
    the number of clips in each bin varies. To first order, the sum changes with a bin's gap by the derivative at z,
    which is smoothed a little, as z is an estimate.

    Parameters
    ----------
    true : array_like of int, shape (M,)
        Class numbers.
    scores : array_like of shape (M, C)
        Probabilities.
    weight : array_like of shape (M,)
        Weight of each clip; the weights sum to 1.
    cluster : array_like of shape (M,)
        Source of each clip.
    """
    scores, weight = np.asarray(scores, dtype=np.float64), np.asarray(weight, dtype=np.float64)
    confidence = scores.max(axis=1)
    gap = confidence - (predicted(scores) == true)
    bin_, (clusters, code) = _bins(confidence), cluster_codes(cluster)
    total = np.bincount(bin_, weights=weight * gap, minlength=BINS)
    mean = total / np.maximum(np.bincount(bin_, weights=weight, minlength=BINS), EPSILON**2)
    cell = bin_ * clusters + code
    parts = np.bincount(cell, weights=weight * (gap - mean[bin_]), minlength=BINS * clusters).reshape(BINS, clusters)
    sources = np.bincount(np.unique(cell) // clusters, minlength=BINS)
    se = np.sqrt((parts**2).sum(axis=1) * sources / np.maximum(sources - 1, 1))
    se = np.where(sources == 1, np.abs(total), se)
    defined = se > 1e-12
    z = np.abs(total[defined]) / se[defined]
    value = float((se[defined] * _cross_fitted(z)).sum() + np.abs(total[~defined]).sum())
    node, node_weight = np.polynomial.hermite_e.hermegauss(20)
    values = _cross_fitted(np.abs(z[:, None] + node))
    node_weight = node_weight / node_weight.sum()
    smooth = (values * node) @ node_weight  # the mean derivative, by Stein's lemma
    spread = (values**2) @ node_weight - (values @ node_weight) ** 2 - smooth**2
    slope = np.sign(total[defined]) * (_cross_fitted_slope(z[:, None] + SMOOTHING * node) @ node_weight)
    gaps = np.bincount(cell, weights=weight * gap, minlength=BINS * clusters).reshape(BINS, clusters)[defined]
    together = slope @ (gaps - total[defined, None] * np.bincount(code, weights=weight))
    variance = (se[defined] ** 2 * spread).sum() + together @ together * clusters / max(clusters - 1, 1)
    return value, float(np.sqrt(variance))


def _cross_fitted(z: Floats) -> Floats:
    """Return z · (2Φ(z) - 1) - 2φ(z)."""
    from scipy.special import erf

    return np.asarray(z * erf(z / np.sqrt(2)) - np.sqrt(2 / np.pi) * np.exp(-(z**2) / 2), dtype=np.float64)


def _cross_fitted_slope(z: Floats) -> Floats:
    """Return the derivative of `_cross_fitted`, 2Φ(z) - 1 + 4zφ(z)."""
    from scipy.special import erf

    return np.asarray(erf(z / np.sqrt(2)) + 4 / np.sqrt(2 * np.pi) * z * np.exp(-(z**2) / 2), dtype=np.float64)


def class_mix_distance(counts: ArrayLike) -> float:
    """Return the mean total variation distance of each row's class distribution from that of all rows together.

    Parameters
    ----------
    counts : array_like of int, shape (R, C)
        Clips of each class in each split, shard or rank.

    Returns
    -------
    float
        0 where all are alike, 1 where they share no class.
    """
    counts = np.asarray(counts, dtype=np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    overall = counts.sum(axis=0) / max(counts.sum(), 1)
    return float(np.abs(shares - overall).sum(axis=1).mean() / 2)


def cluster_codes(cluster: ArrayLike) -> tuple[int, NDArray[np.int64]]:
    """Return the number of clusters and each row's cluster, (M,), numbered in the order of the sorted names."""
    names, code = np.unique(np.asarray(cluster), return_inverse=True)
    return len(names), code.astype(np.int64).reshape(-1)


def confusion(true: ArrayLike, scores: ArrayLike) -> NDArray[np.int64]:
    """Return how often each true class (row) was taken for each class (column), (C, C)."""
    classes = np.asarray(scores).shape[1]
    cell = np.asarray(true, dtype=np.int64) * classes + predicted(scores)
    return np.bincount(cell, minlength=classes**2).astype(np.int64).reshape(classes, classes)


def cmc(true: ArrayLike, scores: ArrayLike) -> Floats:
    """Return the top-k accuracy for k = 1 to C, (C,): the cumulative match curve."""
    counts = np.bincount(true_class_rank(true, scores), minlength=np.asarray(scores).shape[1])
    return np.asarray(np.cumsum(counts) / counts.sum(), dtype=np.float64)


def reliability(true: ArrayLike, scores: ArrayLike) -> list[dict[str, Any]]:
    """Return the bins of a reliability diagram: `lower`, `upper`, `count`, mean `confidence`, `accuracy`."""
    scores = np.asarray(scores, dtype=np.float64)
    correct, confidence, bin_ = predicted(scores) == true, scores.max(axis=1), _bins(scores.max(axis=1))
    rows = []
    for number in range(BINS):
        inside = bin_ == number
        count = int(inside.sum())
        rows.append(
            {
                "lower": number / BINS,
                "upper": (number + 1) / BINS,
                "count": count,
                "confidence": float(confidence[inside].mean()) if count else None,
                "accuracy": float(correct[inside].mean()) if count else None,
            }
        )
    return rows


def evaluate(
    true: ArrayLike,
    scores: ArrayLike,
    class_names: Sequence[str],
    *,
    n_train: int,
    name: str = "",
    cluster: ArrayLike | None = None,
) -> dict[str, Any]:
    """Return one entry of `metrics.json`'s `splits`, ready for JSON.

    Parameters
    ----------
    true : array_like of int, shape (M,)
        Class numbers of the test clips, M at least 1.
    scores : array_like of shape (M, C)
        Probabilities, one row per clip, in the order of `class_names`.
    class_names : sequence of C names
        Class order of `scores`.
    n_train : int
        Clips the head was trained on.
    name : str
        The split's name.
    cluster : array_like of shape (M,), optional
        Source of each clip; see `compute_metrics`.

    Raises
    ------
    ValueError
        If shapes do not fit, a score is not finite, a row does not sum to 1, or there are 0 clips.
    """
    true, scores = np.asarray(true), np.asarray(scores)
    check_scores(true, scores, class_names)
    cells = confusion(true, scores)
    return {
        "name": name,
        "n_train": int(n_train),
        "n_test": len(true),
        **compute_metrics(true, scores, cluster),
        "per_class": per_class(cells, class_names),
        "confusion": cells.tolist(),
        "reliability": reliability(true, scores),
    }


def per_class(cells: NDArray[Any], class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Return `class`, `precision`, `recall`, `f1`, `support` of each class from a confusion matrix; 0/0 is None.

    Its cells may be fractions of clips that several splits test; their sums are rounded, so that 3/3 is 1.
    """

    def ratio(part: float, total: float) -> float | None:
        return part / total if total else None

    rows = []
    for number, name in enumerate(class_names):
        sums = cells[number, number], cells[number].sum(), cells[:, number].sum()
        correct, support, chosen = (round(float(value), 9) for value in sums)
        rows.append(
            {
                "class": name,
                "precision": ratio(correct, chosen),
                "recall": ratio(correct, support),
                "f1": ratio(2 * correct, support + chosen),
                "support": round(support),
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
    """Return the bin of each confidence; bin i holds (i / BINS, (i + 1) / BINS]."""
    return np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
