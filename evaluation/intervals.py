"""Intervals and tests for small groups of clips (a class, a third of the classes), clustered by source.

One clip is one unit: a clip that several splits test counts once, with the mean of its results.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from actionvit.evaluation.clustered import clopper_pearson
from actionvit.evaluation.metrics import Floats, cluster_codes

FEW_SOURCES = 5
"""Number of sources with an error (or a hit) from which their variance is trusted."""

MAX_TOTAL = 100_000
"""Largest total of the sign-flip test; larger ones are rounded to this resolution."""


def clip_means(values: ArrayLike, clip: ArrayLike, cluster: ArrayLike) -> tuple[Floats, NDArray[np.int64], int]:
    """Return the mean of each clip's results, each clip's cluster, and the least common multiple of their counts.

    Parameters
    ----------
    values : array_like of shape (M,)
        One value per test result.
    clip, cluster : array_like of shape (M,)
        The clip's id and its source.

    Returns
    -------
    means, cluster : ndarray of shape (n,)
        One row per clip, sorted by id.
    multiple : int
        `means * multiple` are whole numbers where values are.
    """
    clips, number = cluster_codes(clip)
    counts = np.bincount(number, minlength=clips)
    means = np.bincount(number, weights=np.asarray(values, dtype=np.float64), minlength=clips) / counts
    code = np.zeros(clips, dtype=np.int64)
    code[number] = cluster_codes(cluster)[1]
    return means, code, int(np.lcm.reduce(np.unique(counts))) if clips else 1


def sign_flip_p(differences: ArrayLike, cluster: ArrayLike) -> float:
    """Return the exact two-sided p value of "neither is better" for paired results.

    Under that hypothesis the two classifiers could swap names within any cluster, so each cluster's sum of differences
    is as likely with either sign; the probability of a total at least as far from 0 as the observed one is counted over
    all sign patterns. With one clip per cluster this is McNemar's exact test (McNemar 1947).

    Parameters
    ----------
    differences : array_like of whole numbers, shape (n,)
        One per clip: correct (1) or wrong (0) of the second classifier, less the first's, over all its results.
    cluster : array_like of shape (n,)
        The clip's source.
    """
    count, code = cluster_codes(cluster)
    sums = np.bincount(code, weights=np.asarray(differences, dtype=np.float64), minlength=count)
    steps = np.abs(np.rint(sums)).astype(np.int64)
    steps //= max(1, int(np.gcd.reduce(steps))) if len(steps) else 1
    scale = max(1.0, steps.sum() / MAX_TOTAL)
    rounded = np.rint(np.sign(np.rint(sums)) * steps / scale).astype(np.int64)
    steps, observed = np.abs(rounded), abs(int(rounded.sum()))
    if scale > 1:  # each rounding moves the total by half a step at most, in either pattern
        observed = max(0, observed - len(steps))
    if observed == 0:
        return 1.0
    probability = np.ones(1)  # of the totals -reach, ..., reach of the steps so far
    for step in steps[steps > 0].tolist():
        longer = np.zeros(len(probability) + 2 * step)
        longer[: len(probability)] += probability
        longer[2 * step :] += probability
        probability = longer / 2
    reach = int(steps.sum())
    total = np.arange(-reach, reach + 1)
    return float(min(1.0, probability[np.abs(total) >= observed].sum()))


def proportion_interval(values: ArrayLike, cluster: ArrayLike, *, inflation: float = 1.0) -> tuple[float, float]:
    """Return a 95 % interval of a mean of values in 0 to 1; two hits and two misses are added (Agresti & Coull 1998).

    Parameters
    ----------
    values : array_like of shape (n,)
        Fraction of correct results of each clip; n may be 0.
    cluster : array_like of shape (n,)
        The clip's source.
    inflation : float
        Factor of the standard error; see `clustered.Estimate`.
    """
    values = np.asarray(values, dtype=np.float64)
    mean, se, df = _adjusted_mean(values, cluster, (1.0, 1.0, 0.0, 0.0))
    half = _t_quantile(0.975, df) * se * inflation
    ends = max(0.0, mean - half), min(1.0, mean + half)
    return bounded_by_sources(ends, float(values.mean()), values, cluster) if len(values) else ends


def bounded_by_sources(
    ends: tuple[float, float], value: float, correct: ArrayLike, cluster: ArrayLike
) -> tuple[float, float]:
    """Return an interval of a proportion, no narrower than few sources allow.

    With fewer than `FEW_SOURCES` sources that have an error (or a hit), the lower (upper) end is at least that of the
    exact binomial interval with sources as trials (Clopper & Pearson 1934).

    Parameters
    ----------
    ends : (float, float)
    value : float
        The proportion.
    correct : array_like of shape (n,)
        Fraction of correct results, 0 to 1, or whether a result is correct.
    cluster : array_like of shape (n,)
        The source of each.
    """
    correct, (count, code) = np.asarray(correct, dtype=np.float64), cluster_codes(cluster)
    low, high = clopper_pearson(min(1.0, max(0.0, value)), count)
    return (
        min(ends[0], low) if len(np.unique(code[correct < 1])) < FEW_SOURCES else ends[0],
        max(ends[1], high) if len(np.unique(code[correct > 0])) < FEW_SOURCES else ends[1],
    )


def paired_interval(differences: ArrayLike, cluster: ArrayLike, *, inflation: float = 1.0) -> tuple[float, float]:
    """Return a 95 % interval of a mean paired difference; one clip won and one lost are added (Bonett & Price 2012).

    Parameters
    ----------
    differences : array_like of shape (n,)
        Difference of each clip, in -1 to 1.
    cluster : array_like of shape (n,)
        The clip's source.
    inflation : float
        Factor of the standard error; see `clustered.Estimate`.
    """
    mean, se, df = _adjusted_mean(differences, cluster, (1.0, -1.0))
    half = _t_quantile(0.975, df) * se * inflation
    return max(-1.0, mean - half), min(1.0, mean + half)


def paired_detectable(
    differences: ArrayLike, cluster: ArrayLike, *, inflation: float = 1.0, comparisons: int = 1
) -> float:
    """Return the smallest true mean difference that the t test would show in 80 % of cases, at most 1.

    Parameters
    ----------
    differences, cluster, inflation
        As for `paired_interval`.
    comparisons : int
        Number of tests that Holm's method corrects together.
    """
    _, se, df = _adjusted_mean(differences, cluster, (1.0, -1.0))
    return min(1.0, (_t_quantile(1 - 0.025 / comparisons, df) + _t_quantile(0.8, df)) * se * inflation)


def paired_p(differences: ArrayLike, cluster: ArrayLike, *, multiple: int = 1, inflation: float = 1.0) -> float:
    """Return the p value of a mean paired difference in a small group of clips.

    The larger of two: the exact sign-flip test, which holds for any number of sources but takes the heads as given, and
    the t test of `paired_interval`, which includes the training sets through `inflation`.

    Parameters
    ----------
    differences, cluster, inflation
        As for `paired_interval`.
    multiple : int
        Makes whole numbers of the differences; see `clip_means`.
    """
    from scipy.special import stdtr

    mean, se, df = _adjusted_mean(differences, cluster, (1.0, -1.0))
    by_t = float(2 * stdtr(df, -abs(mean) / (se * inflation))) if se > 0 else 1.0
    return max(by_t, sign_flip_p(np.asarray(differences) * multiple, cluster))


def _adjusted_mean(values: ArrayLike, cluster: ArrayLike, added: Sequence[float]) -> tuple[float, float, float]:
    """Return mean, standard error and degrees of freedom with imaginary clips added, each a cluster of its own.

    Where sources have several clips, an imaginary clip adds a corresponding part of a degree of freedom.

    Without the added clips, ten clips without an error, or without a disagreement, would have a standard error of 0.
    With one clip per cluster this is the interval of the paper cited by the caller, with Student's t.
    """
    count, code = cluster_codes(cluster)
    extra = np.asarray(added, dtype=np.float64)
    sums = np.append(np.bincount(code, weights=np.asarray(values, dtype=np.float64), minlength=count), extra)
    sizes = np.append(np.bincount(code, minlength=count).astype(np.float64), np.ones(len(extra)))
    n, units = sizes.sum(), len(sums)
    mean = sums.sum() / n
    variance = units / (units - 1) * ((sums - mean * sizes) ** 2).sum() / n**2
    clips = max(1.0, n - len(extra))
    return float(mean), float(np.sqrt(variance)), max(1.0, count - 1 + len(extra) * count / clips)


def _t_quantile(probability: float, df: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(df, probability))


def holm(p: Sequence[float]) -> list[float]:
    """Return Holm's step-down corrected p values (Holm 1979), in the order given."""
    order = np.argsort(p, kind="stable")
    scaled = np.asarray(p, dtype=np.float64)[order] * (len(p) - np.arange(len(p)))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return [float(value) for value in corrected]
