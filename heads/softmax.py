"""The objective of multinomial logistic regression on rotated rows: its value, gradient, and curvature's estimate.

Arrays are numpy's, or torch's where the rows are tensors on a GPU: the same lines serve both.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Array = Any
"""A numpy array, or a torch tensor: what the rows are."""

SETTLING = 20
"""Newton steps of the intercept, which converge in two or three."""


@dataclass(slots=True)
class Point:
    """Weights with all that is known there."""

    weights: Array
    logits: Array
    """(C, n)"""
    residual: Array
    """(C, n), p - y."""
    data_loss: float
    """F without the penalty."""


class Problem:
    """F, its gradient, and the curvature's estimate."""

    def __init__(
        self, rows: Array, y: NDArray[np.intp], sample_weight: Floats, feature_side: NDArray[np.float64]
    ) -> None:
        self.rows, self.feature_side = rows, feature_side
        self.classes = int(y.max()) + 1
        self.xp: Any = np if isinstance(rows, np.ndarray) else import_module("torch")
        where = {} if self.xp is np else {"device": rows.device}
        self.true = self.xp.asarray(y, **where), self.xp.arange(len(y), **where)
        self.sample_weight = like(rows, sample_weight)
        self.total = float(sample_weight.sum(dtype=np.float64))
        self.eps = float(self.xp.finfo(rows.dtype).eps)

    def penalise(self, strength: float) -> None:
        """Set 1 / C; the intercept's is 0."""
        self.strength = strength
        penalty = np.full(self.rows.shape[1], strength)
        penalty[-1] = 0
        self.penalty = like(self.rows, penalty)

    def zero(self) -> Point:
        """Return the point where all classes are alike."""
        weights = like(self.rows, np.zeros((self.classes, self.rows.shape[1])))
        return self.at(weights, weights @ self.rows.T)

    def at(self, weights: Array, logits: Array) -> Point:
        """Evaluate the loss and p - y at logits that belong to the weights."""
        xp = self.xp
        p = logits - xp.amax(logits, 0)
        mine = p[self.true]
        xp.exp(p, out=p)
        # Where 1 - p of the true class is tiny it must not come from a difference: the other classes are summed alone.
        own = p[self.true]
        p[self.true] = 0
        others = p.sum(0)
        total = own + others
        p *= 1 / total
        p[self.true] = -others / total
        return Point(weights, logits, p, float(xp.sum(self.sample_weight * (xp.log(total) - mine), dtype=xp.float64)))

    def loss(self, point: Point) -> float:
        """Return F."""
        return point.data_loss + 0.5 * dot(self.penalty * point.weights, point.weights)

    def gradient(self, point: Point) -> Array:
        """Return dF, (C, r + 1)."""
        return (point.residual * self.sample_weight) @ self.rows + self.penalty * point.weights

    def slope(self, point: Point, logits: Array) -> float:
        """Return the derivative of F without the penalty along a direction that is known by its logits."""
        return float(self.xp.einsum("cn,cn->n", point.residual, logits) @ self.sample_weight)

    def probability(self, point: Point) -> Array:
        """Return p, (C, n)."""
        p = point.residual + 0.0
        p[self.true] += 1
        return p

    def class_side(self, point: Point) -> NDArray[np.float64]:
        """Return G, (C, C): diag(p) - p pᵀ, averaged over rows by weight; its rows sum to 0."""
        p = self.probability(point)
        side = -host((p * self.sample_weight) @ p.T).astype(np.float64)
        np.fill_diagonal(side, 0)
        np.fill_diagonal(side, -side.sum(axis=1))
        mean: NDArray[np.float64] = (side + side.T) / (2 * self.total)
        return mean

    def gap(self, gradient: Array) -> float:
        """Bound F - min F where the intercept is settled: strong convexity in W."""
        steep = gradient[:, :-1]
        square = float(self.xp.sum(self.xp.einsum("cr,cr->c", steep, steep), dtype=self.xp.float64))
        return 0.5 * square / self.strength

    def settle(self, point: Point, enough: float) -> Point:
        """Return the point with the best intercept for its W, found by Newton's method to `enough` of F."""
        for _ in range(SETTLING):
            slope = host(point.residual @ self.sample_weight).astype(np.float64)
            # Adding the same to all classes changes nothing: the ones lift that direction out of the singular.
            step = -np.linalg.solve(self.total * (self.class_side(point) + 1 / self.classes**2), slope)
            if -0.5 * float(slope @ step) <= enough:
                break
            weights = point.weights + 0.0
            weights[:, -1] += like(self.rows, step)
            moved = self.at(weights, point.logits + like(self.rows, step)[:, None])
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
        self.vectors, self.inverse = like(problem.rows, vectors), like(problem.rows, 1 / curvature)

    def __call__(self, gradient: Array) -> Array:
        """Return the direction of steepest descent in the curvature's measure, (C, r + 1), but for its sign."""
        moved = self.vectors @ ((self.vectors.T @ gradient) * self.inverse)
        # The softmax does not feel a shift common to all classes: nothing may wander along it.
        return moved - moved.mean(0)


def dot(one: Array, other: Array) -> float:
    """Return the sum of products of two arrays of one shape."""
    return float(one.reshape(-1) @ other.reshape(-1))


def like(rows: Array, values: Floats) -> Array:
    """Return an array as one of the rows' kind, precision and device."""
    if isinstance(rows, np.ndarray):
        return values.astype(rows.dtype)
    return import_module("torch").asarray(values, dtype=rows.dtype, device=rows.device)


def host(values: Array) -> Floats:
    """Return an array as numpy's."""
    return values if isinstance(values, np.ndarray) else np.asarray(values.cpu().numpy())
