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

On a GPU `lockstep` does the same for several training sets at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionvit.heads.logistic.lbfgs import Solution, minimise, start_of
from actionvit.heads.logistic.objective import Floats, Point, Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet:
    """Rows, their classes and what they weigh."""

    X: Floats
    """(n, d), as they come."""
    y: NDArray[np.intp]
    """(n,), class indices; of a row that weighs nothing, any."""
    classes: int
    """C; each has a row of positive weight."""
    share: NDArray[np.float64]
    """Weight of each row, (n,), before its class's; 0 for a row that is not trained on."""
    weight: NDArray[np.float64]
    """s, (n,)."""


Optimum = tuple[NDArray[np.float64], NDArray[np.float64], Solution]
"""Coefficients (C, d) and intercepts (C,) for rows as they come, how they were found."""


def moments(X: Any, share: Any, eps: float) -> tuple[Any, Any]:
    """Return each feature's weighted mean and deviation, (d,); the deviation of a constant is 1.

    Of arrays or of tensors in double precision; `eps` is that of the precision in which X came.
    """
    share = share / share.sum()
    mean = share @ X
    deviation = (share @ (X - mean) ** 2) ** 0.5
    # A constant's deviation is rounding, not 0.
    constant = deviation <= 10 * eps * abs(mean)
    deviation[constant | (deviation == 0)] = 1
    return mean, deviation


class Factorised:
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

    def unrotate(self, weights: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
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
