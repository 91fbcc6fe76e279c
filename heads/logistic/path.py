"""The optimum of multinomial logistic regression, fast where one training set is solved again and again.

Minimised over W (C, r) and the intercept b (C,), which is not penalised::

    F(W, b) = Σ_i s_i · loss(y_i, softmax(W z_i + b)) + |W|² / 2C

the objective of scikit-learn's LogisticRegression. What makes it fast:

- *One rotation.* The rows are rotated once into the eigenbasis of XᵀX (into their span where n < d). It serves every C
  and every weighting, and makes the feature side of the curvature nearly diagonal.
- *A preconditioner that follows the curvature.* L-BFGS (Nocedal & Wright, Numerical Optimization, 2006, chapter 7)
  starts each step from the inverse of G ⊗ A + I / C, where A is that diagonal and G (C, C) the mean of diag(p) - p pᵀ
  at the present solution: two eigenbases invert it for all C. The fixed bound ½(I - 11ᵀ/C) ⊗ XᵀX (Böhning, 1992) does
  not fall as probabilities saturate; this does.
- *Two products a step, whatever the step's length.* Logits are linear in the weights, so a line is searched on logits.
- *A start from the path.* Along C solutions move on a smooth curve. The next one is sought first in the plane of the
  last two moves, whose logits are known: that costs no product, and starts ten times closer than the last solution.
- *Single precision* where X is: both products are half as long. Losses are summed in double precision.
- *A certificate instead of a guess.* F - |W|²/2C is convex, so F is 1/C-strongly convex in W, hence
  F(W) - min F ≤ C/2 · |∂F/∂W|², and |W - W*|² ≤ 2C · (F(W) - min F). Iteration stops on the first bound, whatever C
  and however separable the classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from actionvit.heads.logistic.lbfgs import Solution, minimise, start_of
from actionvit.heads.logistic.objective import Floats, Point, Problem


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


def moments(X: Floats, sample_weight: Floats, eps: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the weighted mean and standard deviation of each feature, (d,); 1 for the deviation of a constant.

    Parameters
    ----------
    X : ndarray of shape (n, d), float64
    sample_weight : ndarray of shape (n,)
    eps : float
        Machine epsilon of the precision in which X was stored.
    """
    weight = sample_weight / sample_weight.sum()
    mean = weight @ X
    deviation = (weight @ (X - mean) ** 2) ** 0.5
    # The computed deviation of a constant is rounding noise, not 0.
    constant = deviation <= 10 * eps * abs(mean)
    deviation[constant | (deviation == 0)] = 1
    return mean, deviation


class RotatedData:
    """One training set, rotated; `path` for any targets, weights and values of C."""

    def __init__(self, X: Floats, sample_weight: Floats | None = None) -> None:
        """Take X (n, d), centred and scaled by the caller, and weights that most of `path`'s will resemble."""
        share = np.ones(len(X)) if sample_weight is None else sample_weight / sample_weight.mean()
        self.basis = _eigenbasis(X * np.sqrt(share)[:, None].astype(X.dtype))
        self.rows = np.concatenate([X @ self.basis, np.ones((len(X), 1), X.dtype)], axis=1)
        self.squares = self.rows.astype(np.float64) ** 2

    def path(
        self,
        y: NDArray[np.intp],
        sample_weight: Floats,
        path: Sequence[float],
        *,
        tol: float = 1e-4,
        max_iter: int = 500,
    ) -> Iterator[Solution]:
        """Yield the minimiser of F for each C, each sought from the ones before; a rising path is the fastest.

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
            Steps for each C.
        """
        problem = Problem(self.rows, y, sample_weight, sample_weight.astype(np.float64) @ self.squares)
        trail: list[Point] = []
        for C in path:
            problem.penalise(1 / C)
            point, solution = minimise(problem, start_of(problem, trail), tol, max_iter)
            trail = [*trail[-2:], point]
            yield solution

    def to_input_space(self, weights: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return coefficients (C, d) and intercepts (C,), which sum to 0, for X as it was given."""
        coef = (weights[:, :-1] @ self.basis.T).astype(np.float64)
        intercept = weights[:, -1].astype(np.float64)
        return coef, intercept - intercept.mean()


def _eigenbasis(X: Floats) -> Floats:
    """Return the eigenvectors of XᵀX, (d, r), r = d or, where rows are fewer, the rank."""
    n, d = X.shape
    if n >= d:
        return np.linalg.eigh((X.T @ X).astype(np.float64))[1].astype(X.dtype)
    wide = X.astype(np.float64)
    values, vectors = np.linalg.eigh(wide @ wide.T)
    kept = values > 1e-12 * max(float(values[-1]), 1e-300)
    basis: Floats = (wide.T @ (vectors[:, kept] / np.sqrt(values[kept]))).astype(X.dtype)
    return basis
