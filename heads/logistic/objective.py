"""The objective of multinomial logistic regression on rotated rows: value, gradient and curvature estimate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from actionvit.heads.base import Floats

MAX_NEWTON_STEPS = 20
"""Newton steps of the intercept, which converges in two or three."""


@dataclass(slots=True)
class Iterate:
    """Weights with their logits, residuals and loss."""

    weights: Floats
    """(C, r + 1), the intercept last."""
    logits: Floats
    """(C, n)"""
    residual: Floats
    """(C, n), p - y."""
    data_loss: float
    """F without the penalty."""


class Objective:
    """F of one training set, with its gradient and the class factor of its curvature.

    Parameters
    ----------
    rows : ndarray of shape (n, r + 1)
        Rotated rows; the last column is 1.
    y : ndarray of shape (n,)
        Class indices 0 to C - 1.
    sample_weight : ndarray of shape (n,)
        s.
    """

    def __init__(self, rows: Floats, y: NDArray[np.intp], sample_weight: Floats) -> None:
        self.rows = rows
        self.feature_factor = np.einsum("n,nr,nr->r", sample_weight, rows, rows, dtype=np.float64)
        self.classes = int(y.max()) + 1
        self.true = y, np.arange(len(y))
        self.sample_weight = sample_weight.astype(rows.dtype)
        self.total = float(sample_weight.sum(dtype=np.float64))
        self.eps = float(np.finfo(rows.dtype).eps)

    def set_penalty(self, strength: float) -> None:
        """Set 1 / C; the intercept is not penalized."""
        self.strength = strength
        penalty = np.full(self.rows.shape[1], strength)
        penalty[-1] = 0
        self.penalty = penalty.astype(self.rows.dtype)

    def zero(self) -> Iterate:
        """Return the iterate of zero weights."""
        weights = np.zeros((self.classes, self.rows.shape[1]), self.rows.dtype)
        return self.evaluate(weights, np.zeros((self.classes, len(self.rows)), self.rows.dtype))

    def at(self, weights: Floats) -> Iterate:
        """Return the iterate of these weights."""
        return self.evaluate(weights, self.logits(weights))

    def logits(self, weights: Floats) -> Floats:
        """Return weights times rowsᵀ, (C, n)."""
        return np.ascontiguousarray((self.rows @ weights.T).T)  # OpenBLAS takes longer for weights @ rows.T

    def evaluate(self, weights: Floats, logits: Floats) -> Iterate:
        """Return the iterate of weights whose logits are known."""
        p = logits - np.amax(logits, 0)
        true_logit = p[self.true]
        np.exp(p, out=p)
        # 1 - p of the true class is the sum over the other classes: a difference would lose all digits near 0.
        true_power = p[self.true]
        p[self.true] = 0
        others = p.sum(0)
        total = true_power + others
        p *= 1 / total
        p[self.true] = -others / total
        losses = self.sample_weight * (np.log(total) - true_logit)
        return Iterate(weights, logits, p, float(np.sum(losses, dtype=np.float64)))

    def loss(self, iterate: Iterate) -> float:
        """Return F."""
        return iterate.data_loss + 0.5 * dot(self.penalty * iterate.weights, iterate.weights)

    def gradient(self, iterate: Iterate) -> Floats:
        """Return dF, (C, r + 1)."""
        return (iterate.residual * self.sample_weight) @ self.rows + self.penalty * iterate.weights

    def slope(self, iterate: Iterate, logits: Floats) -> float:
        """Return the derivative of F without the penalty along a direction given by its logits."""
        return float(np.einsum("cn,cn->n", iterate.residual, logits) @ self.sample_weight)

    def probability(self, iterate: Iterate) -> Floats:
        """Return p, (C, n)."""
        p = iterate.residual.copy()
        p[self.true] += 1
        return p

    def class_factor(self, iterate: Iterate) -> NDArray[np.float64]:
        """Return G, (C, C): diag(p) - p pᵀ, the weighted mean over rows; its rows sum to 0."""
        p = self.probability(iterate)
        factor = -((p * self.sample_weight) @ p.T).astype(np.float64)
        np.fill_diagonal(factor, 0)
        np.fill_diagonal(factor, -factor.sum(axis=1))
        mean: NDArray[np.float64] = (factor + factor.T) / (2 * self.total)
        return mean

    def gap(self, gradient: Floats) -> float:
        """Return a bound on F - min F, by strong convexity in W; valid at the optimal intercept."""
        steep = gradient[:, :-1]
        return 0.5 * float(np.einsum("cr,cr->", steep, steep, dtype=np.float64)) / self.strength

    def newton_intercept(self, iterate: Iterate, gap_tol: float) -> Iterate:
        """Return the iterate with the best intercept for its W, found by Newton's method to `gap_tol` of F."""
        for _ in range(MAX_NEWTON_STEPS):
            slope = (iterate.residual @ self.sample_weight).astype(np.float64)
            # Softmax is shift-invariant, so the Hessian is singular along 1; adding 11ᵀ/C² makes it invertible.
            try:
                step = -np.linalg.solve(self.total * (self.class_factor(iterate) + 1 / self.classes**2), slope)
            except np.linalg.LinAlgError:  # all probabilities are saturated: no curvature is left
                break
            if -0.5 * float(slope @ step) <= gap_tol:
                break
            weights = iterate.weights.copy()
            shift = step.astype(self.rows.dtype)
            weights[:, -1] += shift
            trial = self.evaluate(weights, iterate.logits + shift[:, None])
            if not trial.data_loss < iterate.data_loss:
                break
            iterate = trial
        return iterate


class Preconditioner:
    """The inverse of G ⊗ A + penalty, A diagonal."""

    def __init__(self, objective: Objective, iterate: Iterate) -> None:
        values, vectors = np.linalg.eigh(objective.class_factor(iterate))
        values = np.maximum(values, 1e-9 * max(values[-1], 1e-30))
        curvature = values[:, None] * objective.feature_factor
        curvature[:, :-1] += objective.strength
        dtype = objective.rows.dtype
        self.vectors, self.inverse = vectors.astype(dtype), (1 / curvature).astype(dtype)

    def __call__(self, gradient: Floats) -> Floats:
        """Return the preconditioned gradient, (C, r + 1)."""
        direction: Floats = self.vectors @ ((self.vectors.T @ gradient) * self.inverse)
        # Softmax is shift-invariant: project out the common shift.
        direction -= direction.mean(0)
        return direction


def dot(a: Floats, b: Floats) -> float:
    """Return the sum of products of two arrays of one shape."""
    return float(a.reshape(-1) @ b.reshape(-1))
