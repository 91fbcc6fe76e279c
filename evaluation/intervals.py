"""Intervals and paired tests for accuracies of clips that come in groups (several clips of one source video)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

BLOCK = 250
"""Resamples that are held in memory at once: (BLOCK, M) numbers."""


def groups(cluster: ArrayLike) -> tuple[int, NDArray[np.int64]]:
    """Return how many clusters there are and each row's number, 0 to that, in the order of the sorted names."""
    names, number = np.unique(np.asarray(cluster), return_inverse=True)
    return len(names), number.astype(np.int64).reshape(-1)


def resampled_counts(clusters: int, *, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield blocks of a cluster bootstrap: how often each cluster was drawn, rows of shape (clusters,).

    Whole clusters are drawn with replacement, as many as there are (Davison & Hinkley, Bootstrap Methods, 1997, section
    3.8): clips of one source share actor, place and camera, and drawing them one by one makes intervals too narrow.
    """
    random = np.random.default_rng(seed)
    shares = np.full(clusters, 1 / clusters)
    for start in range(0, resamples, BLOCK):
        yield random.multinomial(clusters, shares, size=min(BLOCK, resamples - start)).astype(np.float64)


def percentile_interval(values: Floats, level: float = 0.95) -> tuple[float, float]:
    """Return the middle `level` of bootstrap values; a resample that gave no number (nan) is left out."""
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def lowest_share(share: float, clusters: int, level: float = 0.95) -> float:
    """Return the lowest share that fits one seen in `clusters` trials (Clopper & Pearson 1934); trials in part count.

    Where next to nothing is wrong, a bootstrap has next to nothing to draw: of flawless results it says [1, 1], but
    three clips are no proof of perfection.
    """
    from scipy.stats import beta

    right = share * clusters
    return float(beta.ppf((1 - level) / 2, right, clusters - right + 1)) if right > 0 else 0.0


def paired_p(difference: ArrayLike, cluster: ArrayLike) -> float:
    """Return the exact two-sided p of "neither is better" for paired results.

    Under that hypothesis the two classifiers could swap names within any cluster, so each cluster's sum of differences
    is as likely with either sign; the chance of a total at least as far from 0 as the one seen is counted out in full.
    With one clip a cluster this is McNemar's exact test (McNemar 1947).

    Parameters
    ----------
    difference : array_like of int, shape (M,)
        Right (1) or wrong (0) of the second classifier, less the first's.
    cluster : array_like of shape (M,)
        What is exchanged whole: the clip's id, or its source.
    """
    count, number = groups(cluster)
    sums = np.bincount(number, weights=np.asarray(difference, dtype=np.float64), minlength=count)
    steps = np.abs(np.rint(sums)).astype(np.int64)
    seen, reach = abs(round(float(sums.sum()))), int(steps.sum())
    if seen == 0:
        return 1.0
    chances = np.zeros(2 * reach + 1)
    chances[reach] = 1.0
    for step in steps[steps > 0]:
        chances = (np.roll(chances, step) + np.roll(chances, -step)) / 2
    total = np.arange(-reach, reach + 1)
    return float(min(1.0, chances[np.abs(total) >= seen].sum()))


def share_interval(hits: ArrayLike, cluster: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Return an interval of a share of clips, in 0 to 1; two imaginary hits and two misses (Agresti & Coull 1998).

    Parameters
    ----------
    hits : array_like of 0 and 1, shape (M,)
        M may be 0: then anything is possible.
    cluster : array_like of shape (M,)
        Clips that go together.
    level : float
        Of confidence.
    """
    low, high = _adjusted_interval(hits, cluster, (1.0, 1.0, 0.0, 0.0), level)
    return max(0.0, low), min(1.0, high)


def paired_interval(difference: ArrayLike, cluster: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Return an interval of a mean paired difference; one imaginary clip won and one lost (Bonett & Price 2012).

    Parameters
    ----------
    difference : array_like of shape (M,)
        Of two shares or hits, in -1 to 1 for each clip.
    cluster : array_like of shape (M,)
        Clips that go together.
    level : float
        Of confidence.
    """
    low, high = _adjusted_interval(difference, cluster, (1.0, -1.0), level)
    return max(-1.0, low), min(1.0, high)


def _adjusted_interval(
    values: ArrayLike, cluster: ArrayLike, imaginary: Sequence[float], level: float
) -> tuple[float, float]:
    """Return a Wald interval of a mean with imaginary clips added, each a cluster of its own, that holds for few.

    Ten clips without an error, or without a disagreement, do not pass for certainty. With one clip a cluster this is
    the interval of the paper named, but for Student's t; with more, the variance is between clusters (ratio of sums).
    """
    from scipy.stats import t

    count, number = groups(cluster)
    added = np.asarray(imaginary, dtype=np.float64)
    sums = np.append(np.bincount(number, weights=np.asarray(values, dtype=np.float64), minlength=count), added)
    sizes = np.append(np.bincount(number, minlength=count).astype(np.float64), np.ones(len(added)))
    n, units = sizes.sum(), len(sums)
    mean = sums.sum() / n
    variance = units / (units - 1) * ((sums - mean * sizes) ** 2).sum() / n**2
    half = t.ppf((1 + level) / 2, units - 1) * np.sqrt(variance)
    return float(mean - half), float(mean + half)


def holm(p: Sequence[float]) -> list[float]:
    """Return Holm's step-down corrected p values (Holm 1979), in the order given."""
    order = np.argsort(p, kind="stable")
    scaled = np.asarray(p, dtype=np.float64)[order] * (len(p) - np.arange(len(p)))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return [float(value) for value in corrected]
