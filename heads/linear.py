"""Multinomial logistic regression on standardised embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.validation import _check_sample_weight

from actionvit.heads.base import Floats, Head, Scan, log_softmax
from actionvit.heads.logistic.lbfgs import Solution
from actionvit.heads.logistic.path import Factorised, Optimum, TrainingSet, moments
from actionvit.heads.weighting import ClassWeight, class_weights, log_prior

if TYPE_CHECKING:
    from actionvit.heads.logistic.lockstep import Lockstep

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
        _fit([self], [self._training_set(X, y, sample_weight)])
        return self

    @property
    def together(self) -> bool:
        """Where many fits are told to a GPU as one."""
        return self.device != "cpu"

    @staticmethod
    def fit_all(heads: Sequence[Head], data: Sequence[tuple[Any, Any]]) -> None:
        """Fit each head to its (X, y); on a GPU all of them at once."""
        probes = [head for head in heads if isinstance(head, LinearProbe)]
        _fit(probes, [head._training_set(X, y, None) for head, (X, y) in zip(probes, data, strict=True)])

    def scan(self, X: Any, y: Any, held: Any, settings: Sequence[Mapping[str, Any]]) -> list[Floats]:
        """Try settings; along C one rotation is shared, and each fit starts from the ones before."""
        if self.together or not _along_C(settings):
            return super().scan(X, y, held, settings)
        head, path = clone(self), _rising(settings)
        one = head._training_set(X, y, None)
        solved = zip(path, head._path(one, path, max(self.tol, SCAN_TOL)), strict=True)
        found = {C: head._learn(one, optimum).predict_log_proba(held) for C, optimum in solved}
        return [found[setting["C"]] for setting in settings]

    @staticmethod
    def scan_all(scans: Sequence[Scan], *, jobs: int = 1) -> list[list[list[Floats]]]:
        """Try settings; on a GPU, along C, all parts of all training sets at once."""
        heads = [one.head for one in scans if isinstance(one.head, LinearProbe)]
        if not heads[0].together or not all(_along_C(one.settings) for one in scans):
            return Head.scan_all(scans, jobs=jobs)
        of_sets: list[LinearProbe] = []
        sets, held, paths = [], [], []
        for head, one in zip(heads, scans, strict=True):
            X, _ = clone(head)._training_data(one.X, one.y)
            of_sets += [head] * len(one.parts)
            sets += [head._part(X, one.y, train) for train, _ in one.parts]
            held += [rows for _, rows in one.parts]
            paths += [_rising(one.settings)] * len(one.parts)
        tried: list[dict[float, Floats]] = [{} for _ in sets]
        for group, together, solved in _in_lockstep(of_sets, sets, paths, at_least=SCAN_TOL):
            for step, _ in enumerate(solved):
                for i, found in zip(group, together.log_proba([held[i] for i in group]), strict=True):
                    tried[i][paths[i][step]] = of_sets[i]._adjusted(found, sets[i])
        left = iter(tried)
        return [
            [[by_C[setting["C"]] for setting in one.settings] for by_C in islice(left, len(one.parts))] for one in scans
        ]

    def predict_log_proba(self, X: Any) -> Floats:
        """Return log-probabilities, (n, C)."""
        X = self._test_data(X)
        return log_softmax(X.astype(np.float64) @ self.coef_.T + self.intercept_)

    def _training_set(self, X: Any, y: Any, sample_weight: Any) -> TrainingSet:
        """Check what is to be fitted, learn its classes."""
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
        share = np.ones(len(X)) if sample_weight is None else sample_weight.astype(np.float64)
        per_class = class_weights(codes, len(self.classes_), self.class_weight, classes=self.classes_)
        return TrainingSet(X=X, y=codes, classes=len(self.classes_), share=share, weight=share * per_class[codes])

    def _part(self, X: Floats, y: NDArray[Any], train: NDArray[np.intp]) -> TrainingSet:
        """Return all rows, of which those that do not train weigh nothing."""
        classes, found = np.unique(y[train], return_inverse=True)
        codes, share, weight = np.zeros(len(X), np.intp), np.zeros(len(X)), np.zeros(len(X))
        per_class = class_weights(found, len(classes), self.class_weight, classes=classes)
        codes[train], share[train], weight[train] = found, 1, per_class[found]
        return TrainingSet(X=X, y=codes, classes=len(classes), share=share, weight=weight)

    def _path(self, one: TrainingSet, path: Sequence[float], tol: float) -> Iterator[Optimum]:
        """Yield the optimum of each C, on the CPU."""
        mean, scale = np.zeros(one.X.shape[1]), np.ones(one.X.shape[1])
        if self.standardize:
            mean, scale = moments(one.X.astype(np.float64), one.share, float(np.finfo(one.X.dtype).eps))
        solver = Factorised(((one.X - mean) / scale).astype(one.X.dtype), one.share)
        for solution in solver.path(one.y, one.weight, path, tol=tol, max_iter=self.max_iter):
            coef, intercept = solver.unrotate(solution.weights)
            yield coef / scale, intercept - (coef / scale) @ mean, solution

    def _learn(self, one: TrainingSet, optimum: Optimum) -> LinearProbe:
        """Take an optimum as what was learnt."""
        self.coef_, intercept, solution = optimum
        self.intercept_ = intercept - self.logit_adjust * log_prior(one.y, one.classes, one.share)
        self.loss_, self.gap_, self.n_iter_ = solution.loss, solution.gap, solution.steps
        return self

    def _adjusted(self, log_proba: Floats, one: TrainingSet) -> Floats:
        """Return what an adjusted intercept makes of log-probabilities."""
        if not self.logit_adjust:
            return log_proba
        return log_softmax(log_proba - self.logit_adjust * log_prior(one.y, one.classes, one.share))


def _fit(heads: Sequence[LinearProbe], sets: Sequence[TrainingSet]) -> None:
    """Find the optima; on a GPU all of them at once."""
    if not heads[0].together:
        for head, one in zip(heads, sets, strict=True):
            head._learn(one, next(head._path(one, [head.C], head.tol)))
        return
    for group, together, solved in _in_lockstep(heads, sets, [[head.C] for head in heads]):
        for number, (i, solution) in enumerate(zip(group, next(solved), strict=True)):
            heads[i]._learn(sets[i], together.unrotate(number, solution))


def _in_lockstep(
    heads: Sequence[LinearProbe],
    sets: Sequence[TrainingSet],
    paths: Sequence[Sequence[float]],
    at_least: float = 0.0,
) -> Iterator[tuple[list[int], Lockstep, Iterator[list[Solution]]]]:
    """Yield which sets go together, and their solutions for each step of their paths, to `tol` or to `at_least`."""
    from actionvit.heads.logistic.lockstep import Lockstep, most_at_once

    alike: dict[tuple[Any, ...], list[int]] = {}
    for i, (head, one, path) in enumerate(zip(heads, sets, paths, strict=True)):
        shape = one.X.shape[1], one.X.dtype, one.classes, len(path)
        alike.setdefault((head.standardize, head.tol, head.max_iter, head.device, *shape), []).append(i)
    for (standardize, tol, max_iter, device, *_), members in alike.items():
        count = most_at_once([sets[i] for i in members], device)
        for group in (members[start : start + count] for start in range(0, len(members), count)):
            together = Lockstep([sets[i] for i in group], standardize=standardize, device=device)
            steps = np.array([paths[i] for i in group], dtype=np.float64).T
            yield group, together, together.path(steps, tol=max(tol, at_least), max_iter=max_iter)


def _along_C(settings: Sequence[Mapping[str, Any]]) -> bool:  # noqa: N802
    """Whether settings differ in C alone."""
    return all(set(setting) == {"C"} for setting in settings)


def _rising(settings: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the values of C, each once."""
    path = sorted({float(setting["C"]) for setting in settings})
    if not path[0] > 0:
        raise ValueError(f"C: got {path[0]}, expected more than 0")
    return path
