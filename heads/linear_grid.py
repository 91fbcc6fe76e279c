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
from actionvit.heads.logistic.lbfgs import FAR, Descent, approach, warm_start
from actionvit.heads.logistic.objective import Iterate, Objective
from actionvit.heads.logistic.path import RotatedData, eigenbasis, standardized
from actionvit.heads.weighting import log_prior

if TYPE_CHECKING:
    from actionvit.heads.linear import LinearProbe

GRID_TOL = 1e-2
"""`tol` of the fits of a grid search: the loss is then within 1e-4 of its minimum."""

SAFETY = 2
"""A C is given up when even this many times the latest change of its score would not make it the best. Changes shrink
geometrically: all later steps together change the score about as much as the latest one did."""

SETTLED = 2 * GRID_TOL
"""Bound of |W - W*| / |W| above which one more clip per fold is allowed for: a step may change nothing by chance."""


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
                if not _solve(fits, best, parallel):
                    stopped.add(C)
                else:
                    best = max(best, sum(fit.score for fit in fits))
                    if len({fit.n_classes for fit in fits} | {len(np.unique(y))}) == 1 and self.basis is not None:
                        self.starts[C] = np.mean([fit.iterate.weights for fit in fits], axis=0)
                by_C[C] = [fit.log_proba() for fit in fits]
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
        self.descent: Descent | None = None

    def start(self, C: float) -> None:
        """Take and score a starting point for the next C."""
        self.objective.set_penalty(1 / C)
        self.iterate, self.descent = warm_start(self.objective, self.history), None
        self.reserve = float(self.weight.max(initial=0))
        self._score()

    def advance(self) -> bool:
        """Take a step; return whether the fit is finished."""
        if self.descent is None:
            self.descent = Descent(self.objective, self.iterate, self.tol)
        if self.descent.done or self.descent.steps >= self.max_iter:
            self.change = self.reserve = 0.0
            return True
        before = self.points
        finished = self.descent.run(self.descent.steps + 1)
        if finished and self.descent.error() > FAR:
            self.descent = approach(self.objective, self.tol, self.max_iter)
        self.iterate = self.descent.iterate
        self._score()
        self.change = float(self.weight @ np.abs(self.points - before))
        if self.descent.error() <= SETTLED:
            self.reserve = 0.0
        return finished

    def finish(self) -> None:
        """Keep the present solution for the start of the next C."""
        self.history = [*self.history[-2:], self.iterate]

    def log_proba(self) -> Floats:
        """Return the log-probabilities of the validation rows, (n, C)."""
        return log_softmax(self._logits().astype(np.float64))

    def _score(self) -> None:
        """Score the present solution: the points of each validation row, before weighting, and their weighted sum."""
        if self.criterion == "log_loss":
            self.points = np.maximum(self.log_proba()[np.arange(len(self.true)), self.true], np.log(FLOOR))
        else:
            self.points = (self._logits().argmax(axis=1) == self.true).astype(np.float64)
        self.score = float(self.weight @ self.points)

    def _logits(self) -> Floats:
        """Return the logits of the validation rows, (n, C)."""
        weights = self.iterate.weights
        logits: Floats = self.val_rows @ weights[:, :-1].T + (weights[:, -1] - self.shift).astype(weights.dtype)
        return logits


def _solve(fits: Sequence[_FoldFit], best: float, parallel: Parallel) -> bool:
    """Solve all folds for the present C; return False where it was given up, because it could not beat `best`."""
    fits[0].advance()
    for fit in fits[1:]:  # folds change alike: the first one shows whether steps of the others can matter
        fit.change = fits[0].change
    while not sum(fit.score + SAFETY * fit.change + fit.reserve for fit in fits) < best:
        if all(parallel(delayed(fit.advance)() for fit in fits)):
            return True
    return False


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
