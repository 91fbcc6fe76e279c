"""Late fusion of several heads, and, with a single one, temperature scaling: powers of probabilities, multiplied.

Fused, p(c) ∝ Π_v p_v(c) ** a_v. With equal a that is the average of log-probabilities; with a fitted to predictions
that no member saw the answer of, it is stacking with one weight a member; and with one member, a = 1 / T, the
temperature scaling of Guo et al. (On Calibration of Modern Neural Networks, ICML 2017).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from actionvit.heads.base import Floats, Head, log_softmax
from actionvit.heads.linear import LinearProbe
from actionvit.heads.selection import grid_search

FusionRule = Literal["mean", "stacked"]

SMALLEST, LARGEST = 1e-3, 100.0
"""Bounds of a temperature's exponent: at 0 no class would be first any more, and where every prediction is right the
best one is infinite. A weight among several may be 0, but not all of them."""


def fit_exponents(log_proba: Sequence[Floats], y: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the exponents, (V,), of least log-loss: a convex problem.

    Parameters
    ----------
    log_proba : sequence of V arrays of shape (n, C)
        Predictions of rows that the members were not trained on; a row with a nan is left out.
    y : ndarray of shape (n,)
        Column of the true class.
    """
    from scipy.optimize import minimize

    stack = np.stack([one.astype(np.float64) for one in log_proba])
    known = np.isfinite(stack).all(axis=(0, 2))
    stack, y = stack[:, known], y[known]
    start = np.full(len(stack), 1 / len(stack))
    if not len(y):
        return start
    own = stack[:, np.arange(len(y)), y]

    def loss(exponents: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        fused = fuse(stack, exponents)
        expected = np.einsum("nc,vnc->v", np.exp(fused), stack) / len(y)
        return -float(fused[np.arange(len(y)), y].mean()), expected - own.mean(axis=1)

    least = SMALLEST if len(stack) == 1 else 0.0
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(least, LARGEST)] * len(stack), tol=1e-10)
    return np.asarray(found.x if found.x.any() else start * SMALLEST)


def fuse(log_proba: Sequence[Floats] | Floats, exponents: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log-probabilities (n, C) of members' log-probabilities (V, n, C) under their exponents (V,)."""
    return np.asarray(log_softmax(np.einsum("v,vnc->nc", exponents, np.asarray(log_proba, dtype=np.float64))))


class LateFusion(Head):
    """A head a block of features (a variant, say), each chosen by itself, and their predictions fused.

    Parameters
    ----------
    head : Head, optional
        What is fitted to each block; a `LinearProbe` by default.
    widths : sequence of int, optional
        Features of each block, in the order of X's columns; one block by default.
    rule : {"mean", "stacked"}
        Equal exponents, or exponents fitted to out-of-fold predictions.
    grid : mapping, optional
        What is searched for each member; the head's own grid by default.
    folds, random_state : int
        Of the search.

    Attributes
    ----------
    heads_ : list of Head
    exponents_ : ndarray of shape (V,)
    """

    accepts_frames = True

    def __init__(
        self,
        head: Head | None = None,
        *,
        widths: Sequence[int] | None = None,
        rule: FusionRule = "stacked",
        grid: Mapping[str, Sequence[Any]] | None = None,
        folds: int = 5,
        random_state: int = 0,
    ) -> None:
        self.head = head
        self.widths = widths
        self.rule = rule
        self.grid = grid
        self.folds = folds
        self.random_state = random_state

    def fit(self, X: Any, y: Any, groups: Any = None) -> LateFusion:
        """Choose and fit a member a block; `groups` (n,) keeps a source's rows in one fold."""
        X, codes = self._training_data(X, y)
        found = [
            grid_search(
                LinearProbe() if self.head is None else self.head,
                block,
                self.classes_[codes],
                grid=self.grid,
                groups=groups,
                folds=self.folds,
                seed=self.random_state,
            )
            for block in self._blocks(X)
        ]
        return self.assemble([one.head for one in found], [one.out_of_fold for one in found], self.classes_[codes])

    def assemble(self, heads: Sequence[Head], out_of_fold: Sequence[Floats], y: Any) -> LateFusion:
        """Fuse members that were fitted elsewhere, from their out-of-fold log-probabilities (n, C) of the rows of y.

        Raises
        ------
        ValueError
            If the rule is unknown, or members know other classes than y's.
        """
        if self.rule not in get_args(FusionRule):
            raise ValueError(f"rule: got {self.rule!r}, expected one of {', '.join(get_args(FusionRule))}")
        self.classes_, codes = np.unique(np.asarray(y), return_inverse=True)
        if any(not np.array_equal(head.classes_, self.classes_) for head in heads):
            raise ValueError("heads: got members with different classes, expected those of y")
        self.heads_ = list(heads)
        self.n_features_in_ = sum(head.n_features_in_ for head in heads)
        equal = np.full(len(heads), 1 / len(heads))
        self.exponents_ = equal if self.rule == "mean" else fit_exponents(out_of_fold, codes)
        return self

    def predict_log_proba(self, X: Any) -> Floats:
        """Return log-probabilities, (n, C)."""
        blocks = self._blocks(self._test_data(X))
        members = [head.predict_log_proba(block) for head, block in zip(self.heads_, blocks, strict=True)]
        return fuse(members, self.exponents_)

    def _blocks(self, X: Floats) -> list[Floats]:
        if self.widths is None:
            return [X]
        if sum(self.widths) != X.shape[1]:
            raise ValueError(f"widths: got {list(self.widths)}, expected a sum of {X.shape[1]} features")
        return np.split(X, np.cumsum(self.widths)[:-1], axis=1)
