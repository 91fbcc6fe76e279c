"""The objective of multinomial logistic regression on rotated rows: its value, gradient, and curvature's estimate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

SETTLING = 20
"""Newton steps of the intercept, which converge in two or three."""


@dataclass(slots=True)
class Point:
    """Weights with all that is known there."""

    weights: Floats
    logits: Floats
    """(C, n)"""
    residual: Floats
    """(C, n), p - y."""
    data_loss: float
    """F without the penalty."""


class Problem:
    """F, its gradient, and the curvature's estimate."""

    def __init__(
        self, rows: Floats, y: NDArray[np.intp], sample_weight: Floats, feature_side: NDArray[np.float64]
    ) -> None:
        self.rows, self.feature_side = rows, feature_side
        self.classes = int(y.max()) + 1
        self.true = y, np.arange(len(y))
        self.sample_weight = sample_weight.astype(rows.dtype)
        self.total = float(sample_weight.sum(dtype=np.float64))
        self.eps = float(np.finfo(rows.dtype).eps)

    def penalise(self, strength: float) -> None:
        """Set 1 / C; the intercept's is 0."""
        self.strength = strength
        penalty = np.full(self.rows.shape[1], strength)
        penalty[-1] = 0
        self.penalty = penalty.astype(self.rows.dtype)

    def zero(self) -> Point:
        """Return the point where all classes are alike."""
        weights = np.zeros((self.classes, self.rows.shape[1]), self.rows.dtype)
        return self.at(weights, weights @ self.rows.T)

    def at(self, weights: Floats, logits: Floats) -> Point:
        """Evaluate the loss and p - y at logits that belong to the weights."""
        p = logits - np.amax(logits, 0)
        mine = p[self.true]
        np.exp(p, out=p)
        # Where 1 - p of the true class is tiny it must not come from a difference: the other classes are summed alone.
        own = p[self.true]
        p[self.true] = 0
        others = p.sum(0)
        total = own + others
        p *= 1 / total
        p[self.true] = -others / total
        return Point(weights, logits, p, float(np.sum(self.sample_weight * (np.log(total) - mine), dtype=np.float64)))

    def loss(self, point: Point) -> float:
        """Return F."""
        return point.data_loss + 0.5 * dot(self.penalty * point.weights, point.weights)

    def gradient(self, point: Point) -> Floats:
        """Return dF, (C, r + 1)."""
        return (point.residual * self.sample_weight) @ self.rows + self.penalty * point.weights

    def slope(self, point: Point, logits: Floats) -> float:
        """Return the derivative of F without the penalty along a direction that is known by its logits."""
        return float(np.einsum("cn,cn->n", point.residual, logits) @ self.sample_weight)

    def probability(self, point: Point) -> Floats:
        """Return p, (C, n)."""
        p = point.residual + 0.0
        p[self.true] += 1
        return p

    def class_side(self, point: Point) -> NDArray[np.float64]:
        """Return G, (C, C): diag(p) - p pᵀ, averaged over rows by weight; its rows sum to 0."""
        p = self.probability(point)
        side = -((p * self.sample_weight) @ p.T).astype(np.float64)
        np.fill_diagonal(side, 0)
        np.fill_diagonal(side, -side.sum(axis=1))
        mean: NDArray[np.float64] = (side + side.T) / (2 * self.total)
        return mean

    def gap(self, gradient: Floats) -> float:
        """Bound F - min F where the intercept is settled: strong convexity in W."""
        steep = gradient[:, :-1]
        square = float(np.sum(np.einsum("cr,cr->c", steep, steep), dtype=np.float64))
        return 0.5 * square / self.strength

    def settle(self, point: Point, enough: float) -> Point:
        """Return the point with the best intercept for its W, found by Newton's method to `enough` of F."""
        for _ in range(SETTLING):
            slope = (point.residual @ self.sample_weight).astype(np.float64)
            # Adding the same to all classes changes nothing: the ones lift that direction out of the singular.
            try:
                step = -np.linalg.solve(self.total * (self.class_side(point) + 1 / self.classes**2), slope)
            except np.linalg.LinAlgError:  # every row is sure of its class: no curvature is left
                break
            if -0.5 * float(slope @ step) <= enough:
                break
            weights = point.weights + 0.0
            shift = step.astype(self.rows.dtype)
            weights[:, -1] += shift
            moved = self.at(weights, point.logits + shift[:, None])
            if not moved.data_loss < point.data_loss:
                break
            point = moved
        return point


class Preconditioner:
    """The inverse of G ⊗ A + penalty, A diagonal."""

    def __init__(self, problem: Problem, point: Point) -> None:
        values, vectors = np.linalg.eigh(problem.class_side(point))
        values = np.maximum(values, 1e-9 * max(values[-1], 1e-30))
        curvature = values[:, None] * problem.feature_side
        curvature[:, :-1] += problem.strength
        precision = problem.rows.dtype
        self.vectors, self.inverse = vectors.astype(precision), (1 / curvature).astype(precision)

    def __call__(self, gradient: Floats) -> Floats:
        """Return the direction of steepest descent in the curvature's measure, (C, r + 1), but for its sign."""
        moved = self.vectors @ ((self.vectors.T @ gradient) * self.inverse)
        # The softmax does not feel a shift common to all classes: nothing may wander along it.
        direction: Floats = moved - moved.mean(0)
        return direction


def dot(one: Floats, other: Floats) -> float:
    """Return the sum of products of two arrays of one shape."""
    return float(one.reshape(-1) @ other.reshape(-1))
