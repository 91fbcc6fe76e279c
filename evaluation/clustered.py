"""Standard errors of metrics over splits: clips clustered by source, heads trained on overlapping training sets.

The estimand. A metric of a run estimates its expectation over data sets like this one: heads trained by the same
protocol on training sets of this size, tested on new videos from new sources, the classes as frequent as here. Two
things make the estimate vary, and the variance has a term for each:

1. The test clips. Clips of one source share people, place and camera, and the same clip may be tested in several splits
   and under several seeds. The contributions of a source are summed over all its clips and splits before they are
   squared: a cluster-robust (linearization) variance, residuals divided by the root of 1 - a source's
   share of the weight (CR2; Bell & McCaffrey 2002). A dataset has a given number of sources of each class, so the
   sums of a metric of one run vary around the mean of their class (stratified clusters; Cochran 1977, chapter 5). For
   differences and losses they vary around the mean of all: which class a run wins depends on the training sets, too.
2. The training sets. They overlap, and each source that tests one head trains the others, so no comparison between
   splits shows this variance (Bengio & Grandvalet 2004). Nadeau & Bengio (2003) estimate it as n_test / n_train times
   the variance of one split's result. That variance is clustered by source here, and the term is multiplied by a factor
   that was fitted by simulation with trained heads: `hit_share` and `LOSS_SHARE`; see `docs/explanation/statistics.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from actionvit.evaluation.metrics import Floats, cluster_codes

Kind = Literal["hits", "losses"]

MOST_LEVERAGE = 0.75
"""Largest share of a mean that a source counts as when its error is corrected for varying around that mean."""

LOSS_SHARE = 0.8
"""Factor of Nadeau and Bengio's variance term for losses; 1 is their own."""

HIT_SHARE = 0.9
"""Factor for hits and misses before their rounding; see `hit_share`."""


def hit_share(accuracy: float) -> float:
    """Return the factor of Nadeau and Bengio's variance term for a fraction of hits: φ(z)² / p(1 - p) · `HIT_SHARE`.

    Training sets move a clip's margin, which is rounded to a hit or a miss. If margins are normal, this is the fraction
    of the variance of hits that a common shift of the margins explains; z is the normal quantile of the accuracy p.
    Outside of 0.06 to 0.94 p is not estimated well enough, and its nearest end is taken.
    """
    from scipy.special import ndtri

    p = min(0.94, max(0.06, accuracy))
    density = np.exp(-(ndtri(p) ** 2) / 2) / np.sqrt(2 * np.pi)
    return float(HIT_SHARE * density**2 / (p * (1 - p)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A metric, or a difference of metrics, with its standard error."""

    value: float
    se: float
    df: float
    """Degrees of freedom of Student's t; see `Design.linearized`."""
    clips: int
    sources: int
    inflation: float
    """Ratio of `se` to the standard error without the training sets' term, 1 or more."""

    def quantile(self, probability: float) -> float:
        """Return a quantile of Student's t."""
        from scipy.special import stdtrit  # scipy.stats takes a second to import

        return float(stdtrit(self.df, probability))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the t interval, not cut off at any bound."""
        half = self.quantile((1 + level) / 2) * self.se
        return self.value - half, self.value + half

    def proportion_interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return an interval of a proportion, within 0 to 1 (Korn & Graubard 1998).

        This is Clopper and Pearson's interval for the effective number of clips, value · (1 - value) / se². Without
        any error, or without any hit, that number is the number of sources.
        """
        from scipy.special import ndtri

        p = min(1.0, max(0.0, self.value))
        n: float = self.sources
        if 0 < p < 1 and self.se > 0:
            shrink = ndtri((1 + level) / 2) / self.quantile((1 + level) / 2)
            n = min(self.clips, p * (1 - p) / self.se**2 * float(shrink) ** 2)
        return clopper_pearson(p, n, level)

    def positive_interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return an interval of a positive quantity with a skewed distribution: the t interval of its logarithm."""
        if self.value <= 0:
            return 0.0, max(0.0, self.interval(level)[1])
        factor = float(np.exp(self.quantile((1 + level) / 2) * self.se / self.value))
        return self.value / factor, self.value * factor

    @property
    def p(self) -> float:
        """The two-sided p value of "the expectation is 0" (Student's t)."""
        from scipy.special import stdtr

        return float(2 * stdtr(self.df, -abs(self.value) / self.se)) if self.se > 0 else 1.0

    def detectable(self, power: float = 0.8, level: float = 0.95) -> float:
        """Return the smallest true value whose interval leaves 0 out with the given probability."""
        return (self.quantile((1 + level) / 2) + self.quantile(power)) * self.se


def clopper_pearson(proportion: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Return the exact interval of a proportion seen in n trials, not necessarily whole (Clopper & Pearson 1934)."""
    from scipy.special import betaincinv

    hits, tail = proportion * n, (1 - level) / 2
    low = float(betaincinv(hits, n - hits + 1, tail)) if proportion > 0 else 0.0
    high = float(betaincinv(hits + 1, n - hits, 1 - tail)) if proportion < 1 else 1.0
    return min(low, proportion), max(high, proportion)


class Design:
    """Which split, class and source each test result belongs to; M results of J splits.

    Parameters
    ----------
    split : array_like of shape (M,)
        Name of the split.
    true : array_like of int, shape (M,)
        Class number.
    cluster : array_like of shape (M,)
        Source, or the id where none is known.
    clip : array_like of shape (M,)
        Id of the clip: several splits may test it.
    n_train : mapping, optional
        Training clips by split name. Without it the heads count as given, and only the test clips vary.
    """

    def __init__(
        self,
        *,
        split: ArrayLike,
        true: ArrayLike,
        cluster: ArrayLike,
        clip: ArrayLike,
        n_train: Mapping[str, int] | None = None,
    ) -> None:
        self.true = np.asarray(true, dtype=np.int64)
        names = np.asarray(split).tolist()
        self.split_names = list(dict.fromkeys(names))
        number = {name: i for i, name in enumerate(self.split_names)}
        self.split = np.array([number[name] for name in names], dtype=np.int64)
        self.sources, self.source = cluster_codes(cluster)
        self.clips, self.clip = cluster_codes(clip)
        self.stratum = self._strata()
        """Number of each source's stratum, (S,): its most frequent class."""
        self.tests = np.bincount(self.split)
        """Test clips of each split, (J,)."""
        self.clip_weight: Floats = 1 / (len(self.tests) * self.tests[self.split])
        """Weight of each result in a mean over clips, then over splits, (M,); sums to 1."""
        self.class_weight = self._class_weight()
        """Weight of each result in a mean over classes, then over splits, (M,); sums to 1."""
        self.ratio, self.thinned = self._training(n_train)
        """n_test / n_train, averaged over splits, and whether training sets were made smaller on purpose."""

    def _strata(self) -> NDArray[np.int64]:
        """Return the stratum of each source; classes with a single source share one, as it shows no variance."""
        classes = int(self.true.max()) + 1
        counts = np.bincount(self.source * classes + self.true, minlength=self.sources * classes)
        counts = counts.reshape(self.sources, classes)
        larger = counts.sum(axis=0) / (counts.sum() + 1)  # decides between classes of the same count
        stratum = (counts + larger).argmax(axis=1)
        single = np.bincount(stratum)[stratum] == 1
        stratum[single] = classes
        if single.sum() == 1 and self.sources > 1:
            sizes = np.bincount(stratum[~single])
            stratum[single] = np.flatnonzero(sizes == sizes[sizes > 0].min())[0]
        return np.asarray(np.unique(stratum, return_inverse=True)[1], dtype=np.int64)

    def _class_weight(self) -> Floats:
        classes, splits = int(self.true.max()) + 1, len(self.tests)
        cell = self.split * classes + self.true
        counts = np.bincount(cell, minlength=splits * classes)
        present = (counts.reshape(splits, classes) > 0).sum(axis=1)
        return np.asarray(1 / (splits * present[self.split] * counts[cell]), dtype=np.float64)

    def _training(self, n_train: Mapping[str, int] | None) -> tuple[float, bool]:
        """Return the ratio of test clips to training clips, and whether training sets were thinned.

        Thinned training sets are drawn independently in every split, so the variance between the splits already
        contains their share, and they count in full.
        """
        if n_train is None:
            return 0.0, False
        training = np.array([n_train[name] for name in self.split_names])
        others = self.clips - self.tests
        full = np.maximum(training, others)
        return float(np.mean(self.tests / np.maximum(1, full))), bool((training < 0.9 * others).any())

    def mean(self, values: Floats, kind: Kind = "hits") -> Estimate:
        """Return the mean of hits or losses (M,) over the clips of each split, averaged over the splits."""
        value = float((self.clip_weight * values).sum())
        hits = kind == "hits"
        return self.linearized(
            value,
            values - value,
            self.clip_weight,
            share=hit_share(value) if hits else LOSS_SHARE,
            stratified=hits,
        )

    def class_mean(self, hits: Floats) -> Estimate:
        """Return the mean of hits (M,) over the classes of each split, averaged over the splits."""
        value = float((self.class_weight * hits).sum())
        return self.linearized(value, hits - value, self.class_weight, share=hit_share(value), stratified=True)

    def difference(self, values: Floats, *, accuracy: float, by_class: bool = False) -> Estimate:
        """Return the mean of differences of hits (M,) over clips, or over classes, of each split and over the splits.

        Parameters
        ----------
        values : ndarray of shape (M,)
            -1, 0 or 1.
        accuracy : float
            Mean accuracy of the two runs.
        by_class : bool
            Whether classes have the same weight, as in the mean class accuracy.
        """
        weight = self.class_weight if by_class else self.clip_weight
        value = float((weight * values).sum())
        return self.linearized(value, values - value, weight, share=hit_share(accuracy), stratified=False)

    def linearized(self, value: float, residual: Floats, weight: Floats, *, share: float, stratified: bool) -> Estimate:
        """Return the estimate of a statistic whose error is, to first order, a weighted sum of residuals.

        Parameters
        ----------
        value : float
            The statistic.
        residual, weight : ndarray of shape (M,)
            Residual and weight of each test result.
        share : float
            Factor of the variance over training sets: `hit_share` or `LOSS_SHARE`.
        stratified : bool
            Whether the sums of the sources vary around the mean of their stratum, or of all.

        Returns
        -------
        Estimate
            Its degrees of freedom are the effective number of sources (Kish 1965) less 1, or that number reduced in the
            proportion of strata to sources.
        """
        splits, size = len(self.tests), np.bincount(self.source, weights=weight)
        leverage = np.minimum(size, MOST_LEVERAGE)[self.source]
        part = weight * residual / np.sqrt(1 - leverage)
        cell, shape = self.split * self.sources + self.source, (splits, self.sources)
        tested = np.bincount(cell, minlength=splits * self.sources).reshape(shape) > 0
        sums = (
            np.bincount(cell, weights=splits * part, minlength=splits * self.sources).reshape(shape).astype(np.float64)
        )
        one_split = self._sum_of_squares(sums, tested, stratified) / splits
        test = self._sum_of_squares(sums.mean(axis=0, keepdims=True), tested.max(axis=0, keepdims=True), stratified)
        training = self.ratio * share * one_split
        if self.thinned and splits > 1:
            between = float(np.var(np.bincount(self.split, weights=weight * residual * splits), ddof=1))
            training += max(0.0, between - one_split) / splits
        strata = int(self.stratum.max()) + 1 if stratified else 1
        effective = float(size.sum() ** 2 / (size**2).sum())  # number of sources (Kish 1965)
        return Estimate(
            value=value,
            se=float(np.sqrt(test + training)),
            df=max(1.0, effective * (self.sources - strata) / self.sources if stratified else effective - 1),
            clips=self.clips,
            sources=self.sources,
            inflation=float(np.sqrt(1 + training / test)) if test > 1e-15 else 1.0,
        )

    def _sum_of_squares(self, sums: Floats, tested: NDArray[np.bool_], stratified: bool) -> float:
        """Return the summed squares of the tested cells (J, S), around the mean of their stratum where stratified."""
        if not stratified:
            return float((sums**2).sum())
        sources, cells = np.bincount(self.stratum), np.bincount(self.stratum, weights=tested.sum(axis=0))
        mean = np.where(sources > 1, np.bincount(self.stratum, weights=sums.sum(axis=0)) / cells, 0.0)
        correction = sources / np.maximum(1, sources - 1)
        return float((np.where(tested, sums - mean[self.stratum], 0.0) ** 2 * correction[self.stratum]).sum())

    def over_splits(self, values: Floats, weight: Floats) -> Floats:
        """Return the weighted mean of values (M,) in each split, (J,)."""
        return np.asarray(np.bincount(self.split, weights=values * weight * len(self.tests)), dtype=np.float64)
