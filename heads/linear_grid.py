"""The path of a linear probe over C on all folds of a grid search.

Folds share the eigenbasis of all training rows. All folds are solved for one C before the next, so that a C that cannot
win is given up early, and the refit starts from the mean of the folds' solutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.base import clone
from threadpoolctl import threadpool_limits

from actionvit.heads.base import Floats, Fold, GridFit, Head, Params
from actionvit.heads.calibration import log_softmax
from actionvit.heads.criteria import FLOOR, Criterion
from actionvit.heads.logistic.lbfgs import Descent, warm_start
from actionvit.heads.logistic.objective import Iterate, Objective
from actionvit.heads.logistic.path import RotatedData, eigenbasis, standardized
from actionvit.heads.weighting import log_prior

if TYPE_CHECKING:
    from actionvit.heads.linear import LinearProbe

GRID_TOL = 1e-2
"""`tol` of the fits of a grid search: the loss is then within 1e-4 of its minimum."""

PORTION = 2
"""Steps between two looks at the validation predictions."""

SAFETY = 4
"""A C is given up when even this many times the latest change of its score would not make it the best. Changes shrink
geometrically: all later portions together change the score about as much as the latest one did."""


class LinearGridFit(GridFit):
    """Predictions of every fold under every C, and a refit from the mean of the folds' solutions.

    Parameters
    ----------
    head : LinearProbe
        Not modified.
    X : ndarray of shape (n, d)
    y : ndarray of shape (n,)
    folds : sequence of (training rows, validation rows)
    grid : sequence of mapping
        Each {"C": value}.
    criterion : {"accuracy", "mean_class_accuracy", "log_loss"}
    jobs : int
        Threads, each working on one fold.

    Raises
    ------
    ValueError
        If a C is not positive.
    """

    def __init__(
        self,
        head: LinearProbe,
        X: Any,
        y: Any,
        folds: Sequence[Fold],
        grid: Sequence[Params],
        *,
        criterion: Criterion,
        jobs: int,
    ) -> None:
        path = sorted({float(params["C"]) for params in grid})
        if not path[0] > 0:
            raise ValueError(f"C: got {path[0]}, expected more than 0")
        self.training = clone(head)._training_set(X, y, None)
        self.basis = None
        if len(self.training.X) >= self.training.X.shape[1]:  # otherwise the rows of a fold span a space of their own
            self.basis = eigenbasis(standardized(self.training, enabled=head.standardize)[0])
        weight = _score_weights(y, folds, criterion)
        self.starts: dict[float, Floats] = {}
        by_C: dict[float, list[Floats]] = {}
        best, stopped = -np.inf, set()
        with threadpool_limits(1) if jobs > 1 else nullcontext(), Parallel(n_jobs=jobs, prefer="threads") as parallel:
            fits = parallel(
                delayed(_FoldFit)(head, self.training.X, y, fold, self.basis, weight, criterion) for fold in folds
            )
            for C in path:
                parallel(delayed(fit.start)(C) for fit in fits)
                while not all(parallel(delayed(fit.advance)() for fit in fits)):
                    score, change = (sum(values) for values in zip(*((f.score, f.change) for f in fits), strict=True))
                    if score + SAFETY * change < best:
                        stopped.add(C)
                        break
                else:
                    best = max(best, sum(fit.score for fit in fits))
                    if len({fit.n_classes for fit in fits} | {len(np.unique(y))}) == 1 and self.basis is not None:
                        self.starts[C] = np.mean([fit.weights for fit in fits], axis=0)
                by_C[C] = [fit.log_proba for fit in fits]
                parallel(delayed(fit.finish)() for fit in fits)
        super().__init__(head, X, y, [[by_C[params["C"]][i] for params in grid] for i in range(len(folds))])
        self.stopped = [i for i, params in enumerate(grid) if params["C"] in stopped]

    def refit(self, params: Params) -> Head:
        """Return a head with these parameters fitted on all rows."""
        head: LinearProbe = clone(self.head).set_params(**params)
        start = self.starts.get(params.get("C", np.nan))
        head._training_set(self.X, self.y, None)
        return head._fit(self.training, self.basis, start)


class _FoldFit:
    """The path of one fold: its training rows, its present solution and its validation predictions."""

    def __init__(
        self,
        head: LinearProbe,
        X: Floats,
        y: NDArray[Any],
        fold: Fold,
        basis: Floats | None,
        weight: NDArray[np.float64],
        criterion: Criterion,
    ) -> None:
        train, val = fold
        head = clone(head)
        training = head._training_set(X[train], y[train], None)
        rows, mean, scale = standardized(training, enabled=head.standardize)
        data = RotatedData(rows, training.sample_weight, basis)
        self.val_rows = ((X[val] - mean) / scale).astype(rows.dtype) @ data.basis
        self.objective = Objective(data.rows, training.y, training.total_weight)
        self.n_classes = len(head.classes_)
        self.shift = head.logit_adjust * log_prior(training.y, self.n_classes, training.sample_weight)
        self.tol, self.max_iter = max(head.tol, GRID_TOL), head.max_iter
        self.criterion, self.weight = criterion, weight[val]
        self.true = np.minimum(np.searchsorted(head.classes_, y[val]), self.n_classes - 1)
        self.history: list[Iterate] = []

    @property
    def weights(self) -> Floats:
        """The present solution, (C, r + 1)."""
        return self.descent.iterate.weights

    def start(self, C: float) -> None:
        """Start the fit of the next C."""
        self.objective.set_penalty(1 / C)
        self.descent = Descent(self.objective, warm_start(self.objective, self.history), self.tol)
        self._predict()
        self.change = np.inf

    def advance(self) -> bool:
        """Take a few steps; return whether the fit is finished."""
        before, points = self.log_proba, self._points()
        finished = self.descent.run(min(self.descent.steps + PORTION, self.max_iter))
        self._predict()
        if self.criterion == "log_loss":
            changes = np.abs(self._points() - points)
        else:
            changes = before.argmax(axis=1) != self.log_proba.argmax(axis=1)
        self.change = float(self.weight @ changes)
        return finished or self.descent.steps >= self.max_iter

    def finish(self) -> None:
        """Keep the present solution for the start of the next C."""
        self.history = [*self.history[-2:], self.descent.iterate]

    def _predict(self) -> None:
        """Predict the validation rows and score them."""
        logits = self.val_rows @ self.weights[:, :-1].T + self.weights[:, -1]
        self.log_proba = log_softmax(logits.astype(np.float64) - self.shift)
        self.score = float(self.weight @ self._points())

    def _points(self) -> NDArray[Any]:
        """Return the unweighted contribution of each validation row to the score."""
        if self.criterion == "log_loss":
            return np.asarray(np.maximum(self.log_proba[np.arange(len(self.true)), self.true], np.log(FLOOR)))
        return np.asarray(self.log_proba.argmax(axis=1) == self.true)


def _score_weights(y: NDArray[Any], folds: Sequence[Fold], criterion: Criterion) -> NDArray[np.float64]:
    """Return the weight of each row in the pooled score, (n,); 0 for classes that the fold does not train."""
    scored = np.zeros(len(y), dtype=np.bool_)
    for train, val in folds:
        scored[val] = np.isin(y[val], y[train])
    if criterion != "mean_class_accuracy":
        return np.asarray(scored / max(int(scored.sum()), 1), dtype=np.float64)
    _, codes = np.unique(y, return_inverse=True)
    counts = np.bincount(codes, weights=scored)
    return np.asarray(np.where(scored, 1 / np.maximum(counts[codes], 1) / max((counts > 0).sum(), 1), 0.0))
