"""Multinomial logistic regression on standardised embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        return self._fit_path(X, y, sample_weight, [self.C])[0]

    def scan(self, X: Any, y: Any, held: Any, settings: Sequence[Mapping[str, Any]]) -> list[Floats]:
        """Try settings; along C one rotation is shared, and each fit starts from the ones before."""
        if any(set(setting) != {"C"} for setting in settings):
            return super().scan(X, y, held, settings)
        order = sorted(range(len(settings)), key=lambda i: settings[i]["C"])
        rough = clone(self).set_params(tol=max(self.tol, SCAN_TOL))
        fitted = rough._fit_path(X, y, None, [settings[i]["C"] for i in order])
        found = {i: head.predict_log_proba(held) for i, head in zip(order, fitted, strict=True)}
        return [found[i] for i in range(len(settings))]

    def predict_log_proba(self, X: Any) -> Floats:
        """Return log-probabilities, (n, C)."""
        X = self._test_data(X)
        return log_softmax(X.astype(np.float64) @ self.coef_.T + self.intercept_)

    def _fit_path(self, X: Any, y: Any, sample_weight: Any, path: Sequence[float]) -> list[LinearProbe]:
        """Fit for each C of a rising path; the last of the heads is self."""
        if not all(C > 0 for C in path) or not self.tol > 0:
            raise ValueError(f"C, tol: got {list(path)}, {self.tol}, expected more than 0")
        X, codes = self._training_data(X, y)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X, ensure_non_negative=True)
            used = sample_weight > 0
            if not used.any():
                raise ValueError("sample_weight: all are zero, expected at least one positive")
            X, codes = self._training_data(X[used], self.classes_[codes[used]])
            sample_weight = sample_weight[used]
        weight = np.ones(len(X)) if sample_weight is None else sample_weight.astype(np.float64)
        mean, scale = _moments(X, weight) if self.standardize else (np.zeros(X.shape[1]), np.ones(X.shape[1]))
        factorised = Factorised(((X - mean) / scale).astype(X.dtype), weight, device=self.device)
        per_class = class_weights(codes, len(self.classes_), self.class_weight, classes=self.classes_)
        prior = log_prior(codes, len(self.classes_), weight)
        solutions = factorised.path(codes, weight * per_class[codes], path, tol=self.tol, max_iter=self.max_iter)
        heads: list[LinearProbe] = []
        for C, solution in zip(path, solutions, strict=True):
            head = self if len(heads) + 1 == len(path) else clone(self).set_params(C=C)
            head._settle(self, solution, factorised, mean, scale, prior)
            heads.append(head)
        return heads

    def _settle(
        self,
        like: LinearProbe,
        solution: Solution,
        factorised: Factorised,
        mean: NDArray[np.float64],
        scale: NDArray[np.float64],
        prior: NDArray[np.float64],
    ) -> None:
        """Store a solution as learned state, in the features' own units."""
        coef, intercept = factorised.unrotate(solution.weights)
        self.classes_, self.n_features_in_ = like.classes_, like.n_features_in_
        self.coef_ = coef / scale
        self.intercept_ = intercept - self.coef_ @ mean - self.logit_adjust * prior
        self.loss_, self.gap_, self.n_iter_ = solution.loss, solution.gap, solution.steps


def _moments(X: Floats, weight: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each feature's weighted mean and deviation, (d,); the deviation of a constant is 1."""
    share = weight / weight.sum()
    mean = share @ X.astype(np.float64)
    deviation = np.sqrt(share @ (X.astype(np.float64) - mean) ** 2)
    # A constant's deviation is rounding, not 0.
    constant = deviation <= 10 * np.finfo(X.dtype).eps * np.abs(mean)
    deviation[constant | (deviation == 0)] = 1
    return mean, deviation
