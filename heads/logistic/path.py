"""Fast paths of multinomial logistic regression over C.

Minimized over W (C, r) and the intercept b (C,), which is not penalized::

    F(W, b) = Σ_i s_i · loss(y_i, softmax(W z_i + b)) + |W|² / 2C

the objective of scikit-learn's LogisticRegression. What makes it fast:

- *One rotation.* Rows are rotated once into the eigenbasis of XᵀX (into their span where n < d). It serves every C,
  every weighting and every fold, and makes the feature factor of the curvature nearly diagonal.
- *A preconditioner that follows the curvature.* L-BFGS (Nocedal & Wright, Numerical Optimization, 2006, chapter 7)
  starts each step from the inverse of G ⊗ A + I / C, where A is that diagonal and G (C, C) the mean of diag(p) - p pᵀ
  at the present iterate: two eigenbases invert it for all C. The fixed bound ½(I - 11ᵀ/C) ⊗ XᵀX (Böhning, 1992) does
  not fall as probabilities saturate; this does. A finer estimate (a diagonal per eigenvector of G) saves no steps.
- *Two matmuls per step, for any step length.* Logits are linear in the weights, so the line search works on logits.
- *Warm starts along the path.* Solutions move on a smooth curve of C. The next one is first sought in the plane of the
  last two moves, whose logits are known: that needs no matmul, and starts ten times closer than the last solution.
- *Single precision* where X is: both matmuls take half the time. Losses are summed in double precision.
- *A certificate.* F - |W|²/2C is convex, so F is 1/C-strongly convex in W, hence
  F(W) - min F ≤ C/2 · |∂F/∂W|², and |W - W*|² ≤ 2C · (F(W) - min F). Iteration stops at the first sufficient bound,
  for any C and however separable the classes are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from actionvit.heads.logistic.lbfgs import FAR, Descent, Solution, approach, warm_start
from actionvit.heads.logistic.objective import Objective

if TYPE_CHECKING:
    from actionvit.heads.base import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet:
    """Training rows, their classes and weights."""

    X: Floats
    """(n, d), not standardized."""
    y: NDArray[np.intp]
    """(n,), class indices 0 to C - 1, each with at least one row of positive weight."""
    sample_weight: NDArray[np.float64]
    """(n,), without the weight of the row's class."""
    total_weight: NDArray[np.float64]
    """s, (n,): `sample_weight` times the weight of the row's class."""


class LogisticFit(NamedTuple):
    """A solution for unscaled features."""

    coef: NDArray[np.float64]
    """(C, d)"""
    intercept: NDArray[np.float64]
    """(C,)"""
    solution: Solution


def standardized(training: TrainingSet, *, enabled: bool) -> tuple[Floats, NDArray[np.float64], NDArray[np.float64]]:
    """Return the rows, centered and scaled if enabled, with the mean and scale that were applied, (d,) each.

    The moments are weighted by `sample_weight`; a constant feature is not scaled.
    """
    X = training.X
    if not enabled:
        return X, np.zeros(X.shape[1]), np.ones(X.shape[1])
    weight = training.sample_weight / training.sample_weight.sum()
    rows = X.astype(np.float64)
    mean = weight @ rows
    rows -= mean
    scale = np.einsum("n,nd,nd->d", weight, rows, rows) ** 0.5
    # The computed deviation of a constant is rounding noise, not 0.
    constant = scale <= 10 * float(np.finfo(X.dtype).eps) * abs(mean)
    scale[constant | (scale == 0)] = 1
    rows /= scale
    return rows.astype(X.dtype), mean, scale


class RotatedData:
    """Rows of one training set in the eigenbasis of XᵀX, for any targets, weights and values of C.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        Centered and scaled by the caller.
    sample_weight : ndarray of shape (n,), optional
        Weights that resemble most of those of `path`.
    basis : ndarray of shape (d, r), optional
        An orthonormal basis, such as that of a training set with most of these rows; computed by default.
    """

    def __init__(self, X: Floats, sample_weight: Floats | None = None, basis: Floats | None = None) -> None:
        if basis is None:
            share = np.ones(len(X)) if sample_weight is None else sample_weight / sample_weight.mean()
            basis = eigenbasis(X * np.sqrt(share)[:, None].astype(X.dtype))
        self.basis = basis
        self.rows = np.concatenate([X @ basis, np.ones((len(X), 1), X.dtype)], axis=1)

    def path(
        self,
        y: NDArray[np.intp],
        sample_weight: Floats,
        path: Sequence[float],
        *,
        tol: float = 1e-4,
        max_iter: int = 500,
        start: Floats | None = None,
    ) -> Iterator[Solution]:
        """Yield the minimizer of F for each C, each started from the previous ones; a rising path is the fastest.

        Parameters
        ----------
        y : ndarray of shape (n,)
            Class indices 0 to C - 1, each with at least one row of positive weight.
        sample_weight : ndarray of shape (n,)
            s, not negative.
        path : sequence of float
            Values of C, inverse strengths of the penalty.
        tol : float
            Bound of |W - W*| / |W| to reach, as far as the precision allows.
        max_iter : int
            Maximum number of steps per C.
        start : ndarray of shape (C, r + 1), optional
            Weights in the rotated basis from which the first C is started.
        """
        objective = Objective(self.rows, y, sample_weight)
        history = [] if start is None else [objective.at(start.astype(self.rows.dtype))]
        for C in path:
            objective.set_penalty(1 / C)
            descent = Descent(objective, warm_start(objective, history), tol)
            descent.run(max_iter)
            if descent.error() > FAR:
                descent = approach(objective, tol, max_iter)
            solution = descent.solution()
            history = [*history[-2:], descent.iterate]
            yield solution

    def to_input_space(self, weights: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return coefficients (C, d) and intercepts (C,), which sum to 0, for X as given."""
        coef = (weights[:, :-1] @ self.basis.T).astype(np.float64)
        intercept = weights[:, -1].astype(np.float64)
        return coef, intercept - intercept.mean()


def eigenbasis(X: Floats) -> Floats:
    """Return the eigenvectors of XᵀX, (d, r): r = d, or the rank of X where it has fewer rows than columns."""
    n, d = X.shape
    if n >= d:
        return np.linalg.eigh((X.T @ X).astype(np.float64))[1].astype(X.dtype)
    wide = X.astype(np.float64)
    values, vectors = np.linalg.eigh(wide @ wide.T)
    positive = values > 1e-12 * max(float(values[-1]), 1e-300)
    basis: Floats = (wide.T @ (vectors[:, positive] / np.sqrt(values[positive]))).astype(X.dtype)
    return basis
