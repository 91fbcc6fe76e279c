"""Multinomial logistic regression on standardized embeddings."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from sklearn.utils.validation import _check_sample_weight

from actionvit.heads.base import Floats, Fold, GridFit, Head, Params
from actionvit.heads.calibration import log_softmax
from actionvit.heads.criteria import Criterion
from actionvit.heads.linear_grid import LinearGridFit
from actionvit.heads.logistic.lbfgs import FAR
from actionvit.heads.logistic.path import LogisticFit, RotatedData, TrainingSet, standardized
from actionvit.heads.weighting import ClassWeight, class_weights, log_prior

logger = logging.getLogger(__name__)


class LinearProbe(Head):
    """Multinomial logistic regression with an L2 penalty: `LogisticRegression(C)` after `StandardScaler`, faster.

    Parameters
    ----------
    C : float
        Inverse strength of the penalty on standardized features; the intercept is not penalized.
    class_weight : {"none", "balanced", "effective"}, mapping or None
        Weight of each class's clips in the loss; see `weighting.class_weights`.
    logit_adjust : float
        τ of Menon et al. (ICLR 2021): 1 targets mean class accuracy, 0 overall accuracy. Training a linear head on
        logits + τ log π moves its unpenalized intercept by -τ log π and nothing else, so the intercept is shifted.
    standardize : bool
        Center each feature and divide it by its standard deviation, both of the training rows.
    tol : float
        Bound of |W - W*| / |W|, the distance of the coefficients from the optimum, proved by a certificate; see
        `logistic.path`.
    max_iter : int
        Maximum number of L-BFGS steps.

    Attributes
    ----------
    coef_ : ndarray of shape (C, d)
        For unscaled features: the standardization is folded in.
    intercept_ : ndarray of shape (C,)
    classes_ : ndarray of shape (C,)
    loss_, gap_ : float
        The objective in scikit-learn's form, Σ s_i loss_i + |W|² / 2C, and a bound on its distance from the minimum.
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
    ) -> None:
        self.C = C
        self.class_weight = class_weight
        self.logit_adjust = logit_adjust
        self.standardize = standardize
        self.tol = tol
        self.max_iter = max_iter

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> LinearProbe:
        """Find the optimum.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Computed in single precision where X is, otherwise in double.
        y : array-like of shape (n,)
        sample_weight : array-like of shape (n,), optional
            Multiplied by the weight of the row's class; rows of weight 0 are ignored.

        Raises
        ------
        ValueError
            If there are fewer than two classes, or a parameter is out of range.
        """
        return self._fit(self._training_set(X, y, sample_weight))

    def _fit(self, training: TrainingSet, basis: Floats | None = None, start: Floats | None = None) -> LinearProbe:
        """Find the optimum in a basis that is given or computed, from weights (C, r + 1) in this basis or from 0."""
        X, mean, scale = standardized(training, enabled=self.standardize)
        data = RotatedData(X, training.sample_weight, basis)
        path = data.path(training.y, training.total_weight, [self.C], tol=self.tol, max_iter=self.max_iter, start=start)
        solution = next(path)
        if solution.error > FAR:
            logger.warning("linear head with C=%g: the solver stopped before the optimum; choose a smaller C", self.C)
        coef, intercept = data.to_input_space(solution.weights)
        return self._store(training, LogisticFit(coef / scale, intercept - (coef / scale) @ mean, solution))

    def fit_grid(
        self,
        X: Any,
        y: Any,
        folds: Sequence[Fold],
        grid: Sequence[Params],
        *,
        criterion: Criterion = "accuracy",
        jobs: int = 1,
    ) -> GridFit:
        """Fit every entry on every fold; entries that differ in C alone are solved as one path per fold."""
        if not folds or any(set(params) != {"C"} for params in grid):
            return super().fit_grid(X, y, folds, grid, criterion=criterion, jobs=jobs)
        return LinearGridFit(self, X, y, folds, grid, criterion=criterion, jobs=jobs)

    def predict_log_proba(self, X: Any) -> Floats:
        """Return log-probabilities, (n, C)."""
        X = self._test_data(X)
        return log_softmax(X.astype(np.float64) @ self.coef_.T + self.intercept_)

    def _training_set(self, X: Any, y: Any, sample_weight: Any) -> TrainingSet:
        """Check the input, store the classes and weigh the rows."""
        if not self.C > 0 or not self.tol > 0:
            raise ValueError(f"C, tol: got {self.C}, {self.tol}, expected more than 0")
        X, codes = self._training_data(X, y)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X, ensure_non_negative=True)
            used = sample_weight > 0
            if not used.any():
                raise ValueError("sample_weight: all are zero, expected at least one positive")
            X, codes = self._training_data(X[used], self.classes_[codes[used]])
            sample_weight = sample_weight[used]
        weights = np.ones(len(X)) if sample_weight is None else sample_weight.astype(np.float64)
        per_class = class_weights(codes, len(self.classes_), self.class_weight, classes=self.classes_)
        return TrainingSet(X=X, y=codes, sample_weight=weights, total_weight=weights * per_class[codes])

    def _store(self, training: TrainingSet, fit: LogisticFit) -> LinearProbe:
        """Store an optimum as learned state."""
        prior = log_prior(training.y, len(self.classes_), training.sample_weight)
        self.coef_, self.intercept_ = fit.coef, fit.intercept - self.logit_adjust * prior
        self.loss_, self.gap_, self.n_iter_ = fit.solution.loss, fit.solution.gap, fit.solution.steps
        return self
