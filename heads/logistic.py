"""The optimum of multinomial logistic regression, fast where one training set is solved again and again.

Minimised over W (r, C) and the intercept b (C,), which is not penalised::

    F(W, b) = Σ_i s_i · loss(y_i, softmax(z_i W + b)) + |W|² / 2C

the objective of scikit-learn's LogisticRegression. What makes it fast:

- *One factorisation.* The rows are rotated once into the eigenbasis of XᵀX (into their span where n < d). It serves
  every C and every weighting, and makes the feature side of the curvature nearly diagonal.
- *Newton steps by conjugate gradients*, preconditioned by the Kronecker product A ⊗ G + I / C, where A is that diagonal
  and G (C, C) the mean of diag(p) - p pᵀ at the present solution: two eigenbases invert it for all C. It follows the
  curvature as probabilities saturate, which the fixed bound ½(I - 11ᵀ/C) ⊗ XᵀX (Böhning, 1992) does not.
- *Single precision* where X is: both products are half as long. Scalars are summed in double precision.
- *A certificate instead of a guess.* F - |W|²/2C is convex, so F is 1/C-strongly convex in W, hence
  F(W) - min F ≤ C/2 · |∂F/∂W|², and |W - W*|² ≤ 2C · (F(W) - min F). Iteration stops when the first bound is below
  tol² · |W|²/2C: the coefficients then lie within tol · |W| of the optimum's, whatever C and however separable the
  classes, and F within tol² of itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

MAX_PRODUCTS = 60
"""Conjugate gradient steps within a Newton step."""

HALVINGS = 12
"""Of a Newton step that does not descend; after that rounding has won, and the solution is as good as the precision."""


@dataclass(frozen=True, slots=True)
class Solution:
    """Where the solver stopped."""

    weights: Floats
    """(r + 1, C) in the rotated basis, the intercept last."""
    loss: float
    """F."""
    gap: float
    """Upper bound of F - min F."""
    error: float
    """Upper bound of |W - W*| / |W|."""
    steps: int
    """Newton steps taken, at least 1."""


@dataclass(slots=True)
class _Point:
    weights: Floats
    loss: float
    gradient: Floats
    probability: Floats


class Factorised:
    """One training set, rotated; `solve` for any targets, weights and C."""

    def __init__(self, X: Floats, sample_weight: Floats | None = None) -> None:
        """Take X (n, d), centred and scaled by the caller, and weights that most of `solve`'s will resemble."""
        share = np.ones(len(X)) if sample_weight is None else sample_weight / sample_weight.mean()
        self.basis = _eigenbasis(X * np.sqrt(share)[:, None].astype(X.dtype))
        self.rows = np.concatenate([X @ self.basis, np.ones((len(X), 1), X.dtype)], axis=1)
        self.squares = self.rows.astype(np.float64) ** 2

    def solve(
        self,
        y: NDArray[np.intp],
        sample_weight: Floats,
        C: float,
        *,
        start: Floats | None = None,
        tol: float = 1e-4,
        max_iter: int = 100,
    ) -> Solution:
        """Return the minimiser of F, from `start` if given.

        Parameters
        ----------
        y : ndarray of shape (n,)
            Class indices 0 to C - 1, each with at least one row of positive weight.
        sample_weight : ndarray of shape (n,)
            s, not negative.
        C : float
            Inverse strength of the penalty.
        start : ndarray of shape (r + 1, C), optional
            A `Solution.weights`, of a neighbouring C say.
        tol : float
            Bound of |W - W*| / |W| to reach, as far as the precision allows.
        max_iter : int
            Newton steps.
        """
        problem = _Problem(self.rows, y, sample_weight.astype(self.rows.dtype), 1 / C)
        feature_side = sample_weight.astype(np.float64) @ self.squares
        shape = (self.rows.shape[1], int(y.max()) + 1)
        point = problem.at(np.zeros(shape, self.rows.dtype) if start is None else start)
        for step in range(1, max_iter + 1):
            precondition = _Preconditioner(feature_side, problem.class_side(point), 1 / C)
            gap, size = problem.gap(point.gradient, precondition), problem.size(point)
            if gap <= tol**2 * size or step == max_iter:
                break
            # Exact enough for superlinear convergence, and no more exact than this call needs.
            enough = max(min(0.01, gap / point.loss) * gap, 0.25 * tol**2 * size)
            moved = _descend(problem, point, problem.newton(point, precondition, enough))
            if moved is None:
                break
            point = moved
        return Solution(point.weights, point.loss, gap, (gap / size) ** 0.5 if size else 0.0, step)

    def unrotate(self, weights: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return coefficients (C, d) and intercepts (C,), which sum to 0, for X as it was given."""
        coef = (self.basis @ weights[:-1]).T.astype(np.float64)
        intercept = weights[-1].astype(np.float64)
        return coef, intercept - intercept.mean()


class _Problem:
    """F, its gradient and its Hessian's products."""

    def __init__(self, rows: Floats, y: NDArray[np.intp], sample_weight: Floats, penalty: float) -> None:
        self.rows, self.sample_weight = rows, sample_weight
        self.true = np.arange(len(y)), y
        self.penalty = np.full((rows.shape[1], 1), penalty, rows.dtype)
        self.penalty[-1] = 0

    def at(self, weights: Floats) -> _Point:
        """Evaluate F and its gradient."""
        p = self.rows @ weights
        p -= p.max(axis=1, keepdims=True)
        own = np.exp(p[self.true])
        # Where 1 - p of the true class is tiny it must not come from a difference: the other classes are summed alone.
        losses = -p[self.true].astype(np.float64)
        np.exp(p, out=p)
        p[self.true] = 0
        others = p.sum(axis=1)
        total = own + others
        losses += np.log(own.astype(np.float64) + others)
        p /= total[:, None]
        p[self.true] = -others / total
        slope = self.rows.T @ (p * self.sample_weight[:, None])
        p[self.true] = own / total
        shrunk = self.penalty * weights
        loss = float(self.sample_weight @ losses) + 0.5 * float(np.vdot(shrunk, weights))
        return _Point(weights, loss, slope + shrunk, p)

    def class_side(self, point: _Point) -> NDArray[np.float64]:
        """Return G, (C, C): diag(p) - p pᵀ, averaged over rows by weight; its rows sum to 0."""
        p = point.probability
        side = -(p.T @ (p * self.sample_weight[:, None])).astype(np.float64)
        np.fill_diagonal(side, 0)
        np.fill_diagonal(side, -side.sum(axis=1))
        mean: NDArray[np.float64] = side / self.sample_weight.sum(dtype=np.float64)
        return mean

    def curve(self, point: _Point, direction: Floats) -> Floats:
        """Return the Hessian's product with a direction."""
        moved = self.rows @ direction
        # A shift common to all classes changes nothing; this one keeps saturated rows from cancelling.
        moved -= moved[self.true][:, None]
        mean = np.einsum("nc,nc->n", moved, point.probability)
        moved -= mean[:, None]
        moved *= point.probability
        moved *= self.sample_weight[:, None]
        product: Floats = self.rows.T @ moved
        product += self.penalty * direction
        return product

    def gap(self, gradient: Floats, precondition: _Preconditioner) -> float:
        """Bound F - min F: strong convexity for W, the curvature's estimate for the intercept, which has no penalty."""
        steep = gradient.astype(np.float64)
        bound = 0.5 * float(np.vdot(steep[:-1], steep[:-1])) / float(self.penalty[0, 0])
        return bound + max(0.0, 0.5 * float(np.vdot(steep[-1], precondition(gradient)[-1])))

    def size(self, point: _Point) -> float:
        """Return |W|² / 2C."""
        return 0.5 * float(np.vdot(self.penalty * point.weights, point.weights))

    def newton(self, point: _Point, precondition: _Preconditioner, enough: float) -> Floats:
        """Return a Newton direction by conjugate gradients, until the gap it promises is `enough`."""
        residual = -point.gradient
        direction = np.zeros_like(residual)
        inner = search = precondition(residual)
        size = float(np.vdot(residual, inner))
        for _ in range(MAX_PRODUCTS):
            curved = self.curve(point, search)
            length = size / float(np.vdot(search, curved))
            direction += residual.dtype.type(length) * search
            residual -= residual.dtype.type(length) * curved
            if self.gap(residual, precondition) <= enough:
                break
            inner = precondition(residual)
            before, size = size, float(np.vdot(residual, inner))
            search = inner + residual.dtype.type(size / before) * search
        return direction


class _Preconditioner:
    """The inverse of A ⊗ G + penalty, A diagonal."""

    def __init__(self, feature_side: NDArray[np.float64], class_side: NDArray[np.float64], penalty: float) -> None:
        values, self.vectors = np.linalg.eigh((class_side + class_side.T) / 2)
        values = np.maximum(values, 1e-9 * max(values[-1], 1e-30))
        curvature = feature_side[:, None] * values
        curvature[:-1] += penalty
        self.inverse = 1 / curvature

    def __call__(self, gradient: Floats) -> Floats:
        vectors, inverse = self.vectors.astype(gradient.dtype), self.inverse.astype(gradient.dtype)
        result: Floats = ((gradient @ vectors) * inverse) @ vectors.T
        # The softmax does not feel a shift common to all classes: nothing may wander along it.
        result -= result.mean(axis=1, keepdims=True)
        return result


def _descend(problem: _Problem, point: _Point, direction: Floats) -> _Point | None:
    """Step along the direction, halving until F falls as far as it should; None where it cannot be seen to fall.

    Near the optimum F's change drowns in rounding sooner than its slope does: a slope that has nearly vanished will do.
    """
    slope = float(np.vdot(point.gradient, direction))
    length = 1.0
    for _ in range(HALVINGS):
        moved = problem.at(point.weights + point.weights.dtype.type(length) * direction)
        if moved.loss <= point.loss + 1e-4 * length * slope:
            return moved
        if abs(float(np.vdot(moved.gradient, direction))) <= 0.1 * abs(slope):
            return moved
        length /= 2
    return None


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
