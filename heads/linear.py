"""Multinomial logistic regression on standardised embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.validation import _check_sample_weight

from actionvit.heads.base import Floats, Head, log_softmax
from actionvit.heads.lbfgs import Solution
from actionvit.heads.logistic import Factorised
from actionvit.heads.weighting import ClassWeight, class_weights, log_prior

SCAN_TOL = 1e-2
"""`tol` while settings are tried: the loss is then within 1e-4 of its minimum."""


class LinearProbe(Head):
    """Multinomial logistic regression with an L2 penalty: `LogisticRegression(C)` after `StandardScaler`, faster.

    Parameters
    ----------
    C : float
        Inverse strength of the penalty on standardised features; the intercept is free.
    class_weight : {"none", "balanced", "effective"}, mapping or None
        What a clip of each class counts in the loss; see `weighting.class_weights`.
    logit_adjust : float
        τ of Menon et al. (ICLR 2021): 1 makes the mean class accuracy the aim, 0 the overall one. Training a linear
        head on logits + τ log π moves its free intercept by -τ log π and nothing else, so that is what is done.
    standardize : bool
        Centre each feature and divide by its deviation, both of the training rows alone.
    tol : float
        Bound of |W - W*| / |W|, the coefficients' distance from the optimum's, proved by a certificate; see `logistic`.
    max_iter : int
        Steps of L-BFGS.
    device : str
        Where the optimum is sought: `cpu`, or what torch calls it. Predictions are made on the CPU.

    Attributes
    ----------
    coef_ : ndarray of shape (C, d)
        For features as they come, the standardisation folded in.
    intercept_ : ndarray of shape (C,)
    classes_ : ndarray of shape (C,)
    loss_, gap_ : float
        The objective in scikit-learn's form, Σ s_i loss_i + |W|² / 2C, and the bound on its distance from the minimum.
    n_iter_ : int
    """

    default_grid: ClassVar[dict[str, tuple[Any, ...]]] = {"C": (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)}

    def __init__(
        self,
        *,
        C: float = 1e-2,
        class_weight: ClassWeight | Mapping[Any, float] | None = None,
        logit_adjust: float = 0.0,
        standardize: bool = True,
        tol: float = 1e-4,
        max_iter: int = 500,
        device: str = "cpu",
    ) -> None:
        self.C = C
        self.class_weight = class_weight
        self.logit_adjust = logit_adjust
        self.standardize = standardize
        self.tol = tol
        self.max_iter = max_iter
        self.device = device

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> LinearProbe:
        """Find the optimum.

        Parameters
        ----------
        X : array-like of shape (n, d)
            In single precision where X is, else in double.
        y : array-like of shape (n,)
        sample_weight : array-like of shape (n,), optional
            Multiplies the class's weight; rows of weight 0 count as absent.

        Raises
        ------
        ValueError
            If there are fewer than two classes, or a setting is out of range.
        """
        return self._fitted([self._prepared(X, y, sample_weight)], [self.C])[0][0]

    def scan_parts(
        self, X: Any, y: Any, parts: Sequence[tuple[Any, Any]], settings: Sequence[Mapping[str, Any]], *, jobs: int = 1
    ) -> list[list[Floats]]:
        """Try settings on every part; on a GPU all parts go at once."""
        classes = {len(np.unique(y[train])) for train, _ in parts}
        if self.device == "cpu" or len(classes) > 1 or any(set(setting) != {"C"} for setting in settings):
            return super().scan_parts(X, y, parts, settings, jobs=jobs)
        return self._scan([(X[train], y[train], X[held]) for train, held in parts], [one["C"] for one in settings])

    def scan(self, X: Any, y: Any, held: Any, settings: Sequence[Mapping[str, Any]]) -> list[Floats]:
        """Try settings; along C one rotation is shared, and each fit starts from the ones before."""
        if any(set(setting) != {"C"} for setting in settings):
            return super().scan(X, y, held, settings)
        return self._scan([(X, y, held)], [one["C"] for one in settings])[0]

    def _scan(self, parts: Sequence[tuple[Any, Any, Any]], given: Sequence[float]) -> list[list[Floats]]:
        """Return log-probabilities of the held rows of each (X, y, held), one array a value of C."""
        rough = clone(self).set_params(tol=max(self.tol, SCAN_TOL))
        path = sorted(set(given))
        fitted = rough._fitted([clone(rough)._prepared(X, y, None) for X, y, _ in parts], path)
        found = [
            dict(zip(path, (head.predict_log_proba(held) for head in heads), strict=True))
            for heads, (_, _, held) in zip(fitted, parts, strict=True)
        ]
        return [[one[C] for C in given] for one in found]

    def predict_log_proba(self, X: Any) -> Floats:
        """Return log-probabilities, (n, C)."""
        X = self._test_data(X)
        return log_softmax(X.astype(np.float64) @ self.coef_.T + self.intercept_)

    def _prepared(self, X: Any, y: Any, sample_weight: Any) -> _Prepared:
        """Check a training set, learn its classes and moments, standardise it."""
        X, codes = self._training_data(X, y)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X, ensure_non_negative=True)
            used = sample_weight > 0
            if not used.any():
                raise ValueError("sample_weight: all are zero, expected at least one positive")
            X, codes = self._training_data(X[used], self.classes_[codes[used]])
            sample_weight = sample_weight[used]
        share = np.ones(len(X)) if sample_weight is None else sample_weight.astype(np.float64)
        mean, scale = _moments(X, share) if self.standardize else (np.zeros(X.shape[1]), np.ones(X.shape[1]))
        per_class = class_weights(codes, len(self.classes_), self.class_weight, classes=self.classes_)
        return _Prepared(
            head=self,
            X=((X - mean) / scale).astype(X.dtype),
            y=codes,
            share=share,
            weight=share * per_class[codes],
            mean=mean,
            scale=scale,
        )

    def _fitted(self, sets: Sequence[_Prepared], path: Sequence[float]) -> list[list[LinearProbe]]:
        """Return each set's heads, one a value of a rising path of C; the last is the set's own head."""
        if not all(C > 0 for C in path) or not self.tol > 0:
            raise ValueError(f"C, tol: got {list(path)}, {self.tol}, expected more than 0")
        found: list[list[LinearProbe]] = [[] for _ in sets]
        for C, solutions in zip(path, self._solutions(sets, path), strict=True):
            for heads, one, (coef, intercept, solution) in zip(found, sets, solutions, strict=True):
                head = one.head if path[-1] == C else clone(one.head)
                head.C = C
                prior = log_prior(one.y, len(one.head.classes_), one.share)
                head.classes_, head.n_features_in_ = one.head.classes_, one.head.n_features_in_
                head.coef_ = coef / one.scale
                head.intercept_ = intercept - head.coef_ @ one.mean - self.logit_adjust * prior
                head.loss_, head.gap_, head.n_iter_ = solution.loss, solution.gap, solution.steps
                heads.append(head)
        return found

    def _solutions(self, sets: Sequence[_Prepared], path: Sequence[float]) -> Iterator[list[_Found]]:
        """Yield for each C the optimum of each set, for standardised rows."""
        tol, most = self.tol, self.max_iter
        if self.device == "cpu":
            solvers = [Factorised(one.X, one.share) for one in sets]
            paths = [
                solver.path(one.y, one.weight, path, tol=tol, max_iter=most)
                for solver, one in zip(solvers, sets, strict=True)
            ]
            for found in zip(*paths, strict=True):
                yield [(*solver.unrotate(one.weights), one) for solver, one in zip(solvers, found, strict=True)]
            return
        from actionvit.heads.lockstep import Lockstep

        X, y, weight = ([getattr(one, name) for one in sets] for name in ("X", "y", "weight"))
        together = Lockstep(X, y, weight, device=self.device)
        for solutions in together.path(path, tol=tol, max_iter=most):
            yield [(*together.unrotate(one.weights), one) for one in solutions]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """A training set, standardised."""

    head: LinearProbe
    """Knows the classes."""
    X: Floats
    y: NDArray[np.intp]
    share: NDArray[np.float64]
    """Weight of each row, (n,), before its class's."""
    weight: NDArray[np.float64]
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]


_Found = tuple[NDArray[np.float64], NDArray[np.float64], Solution]
"""Coefficients (C, d), intercepts (C,), how they were found."""


def _moments(X: Floats, weight: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each feature's weighted mean and deviation, (d,); the deviation of a constant is 1."""
    share = weight / weight.sum()
    mean = share @ X.astype(np.float64)
    deviation = np.sqrt(share @ (X.astype(np.float64) - mean) ** 2)
    # A constant's deviation is rounding, not 0.
    constant = deviation <= 10 * np.finfo(X.dtype).eps * np.abs(mean)
    deviation[constant | (deviation == 0)] = 1
    return mean, deviation
