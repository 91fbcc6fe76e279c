"""Heads without training: k nearest neighbors and nearest class mean, by cosine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from actionvit.heads.base import Floats, Head, Params
from actionvit.heads.calibration import log_softmax
from actionvit.heads.weighting import ClassWeight, class_weights

FLOOR = float(np.finfo(np.float32).eps)
"""Highest probability of a class without a vote."""

BLOCK = 1024
"""Rows per matrix of similarities to all training rows."""


class KNNProbe(Head):
    """The k nearest training rows by cosine vote with weight exp(similarity / temperature).

    The rule of Wu et al. (Unsupervised Feature Learning via Non-Parametric Instance Discrimination, CVPR 2018). Of
    equally similar rows the earlier counts as nearer. Classes with equal votes, and those without a vote, are ranked
    by their nearest training row, so that the order of class names has no influence.

    Parameters
    ----------
    k : int
        Number of neighbors; all rows if there are fewer.
    temperature : float
        Smaller values give the nearest rows more weight.
    center : bool
        Subtract the training mean first: embeddings of one encoder share a large common component, which makes all
        cosines similar.
    class_weight : {"none", "balanced", "effective"}, mapping or None
        Weight of a vote for each class.

    Attributes
    ----------
    rows_ : ndarray of shape (n, d)
        Training rows, centered, of length 1.
    codes_ : ndarray of shape (n,)
    mean_ : ndarray of shape (d,)
    """

    default_grid: ClassVar[dict[str, tuple[Any, ...]]] = {
        "k": (1, 3, 5, 10, 20, 50),
        "temperature": (0.03, 0.1, 0.3),
    }

    def __init__(
        self,
        *,
        k: int = 20,
        temperature: float = 0.1,
        center: bool = True,
        class_weight: ClassWeight | Mapping[Any, float] | None = None,
    ) -> None:
        self.k = k
        self.temperature = temperature
        self.center = center
        self.class_weight = class_weight

    def fit(self, X: Any, y: Any) -> KNNProbe:
        """Store the training rows.

        Raises
        ------
        ValueError
            If there are fewer than two classes, or a parameter is out of range.
        """
        if not (self.k >= 1 and self.temperature > 0):
            raise ValueError(f"k, temperature: got {self.k}, {self.temperature}, expected at least 1 and more than 0")
        X, self.codes_ = self._training_data(X, y)
        self.mean_ = _mean(X, self.center)
        self.rows_ = _unit_rows(X, self.mean_)
        self.votes_ = class_weights(self.codes_, len(self.classes_), self.class_weight, classes=self.classes_)
        return self

    def predict_log_proba(self, X: Any) -> Floats:
        """Return log-probabilities, (n, C)."""
        return self._vote_log_proba(self._neighbors(self._test_data(X), self.k), self.k, self.temperature)

    def predict_grid(self, X: Any, y: Any, X_val: Any, grid: Sequence[Params]) -> list[Floats]:
        """Return log-probabilities of X_val per entry; over k and temperature the neighbors are found once."""
        if any(set(params) - {"k", "temperature"} for params in grid):
            return super().predict_grid(X, y, X_val, grid)
        head = clone(self).fit(X, y)
        neighbors = head._neighbors(head._test_data(X_val), max(params.get("k", self.k) for params in grid))
        return [
            head._vote_log_proba(neighbors, params.get("k", self.k), params.get("temperature", self.temperature))
            for params in grid
        ]

    def _neighbors(self, X: Floats, k: int) -> _Neighbors:
        """Find the k nearest training rows of each row, and the order in which classes first appear."""
        by_class = np.argsort(self.codes_, kind="stable")
        starts = np.searchsorted(self.codes_[by_class], np.arange(len(self.classes_)))
        units = _unit_rows(X, self.mean_)
        rows, similarity, class_rank = [], [], []
        for start in range(0, len(units), BLOCK):
            cosines = units[start : start + BLOCK] @ self.rows_.T
            order = np.argsort(-cosines, axis=1, kind="stable")
            place = np.empty_like(order)
            np.put_along_axis(place, order, np.arange(order.shape[1])[None], axis=1)
            first = np.minimum.reduceat(place[:, by_class], starts, axis=1)
            rows.append(order[:, :k])
            similarity.append(np.take_along_axis(cosines, order[:, :k], axis=1))
            class_rank.append(first.argsort(axis=1).argsort(axis=1))
        return _Neighbors(np.concatenate(rows), np.concatenate(similarity), np.concatenate(class_rank))

    def _vote_log_proba(self, neighbors: _Neighbors, k: int, temperature: float) -> Floats:
        """Return log-probabilities, (n, C), from the votes of the first k neighbors."""
        codes, similarity = self.codes_[neighbors.rows[:, :k]], neighbors.similarity[:, :k].astype(np.float64)
        weight = np.exp((similarity - similarity[:, :1]) / temperature) * self.votes_[codes]
        shape = len(codes), len(self.classes_)
        cell = np.arange(shape[0])[:, None] * shape[1] + codes
        votes = np.bincount(cell.ravel(), weights=weight.ravel(), minlength=shape[0] * shape[1]).reshape(shape)
        fraction = votes / np.maximum(votes.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        # Between half the floor and the floor: distinct for all classes, in the order of their nearest rows.
        ranked = fraction + FLOOR * (1 - neighbors.class_rank / (2 * shape[1]))
        return np.asarray(np.log(ranked / ranked.sum(axis=1, keepdims=True)))


class _Neighbors(NamedTuple):
    """The nearest training rows of n rows, the nearest first."""

    rows: NDArray[np.intp]
    """(n, k)"""
    similarity: Floats
    """(n, k), cosines."""
    class_rank: NDArray[np.intp]
    """(n, C), 0 for the class of the nearest training row, 1 for the next class met, and so on."""


class CentroidProbe(Head):
    """The nearest class mean by cosine, regardless of class sizes.

    Parameters
    ----------
    temperature : float
        Temperature of the softmax over cosines; changes probabilities, not the ranking.
    center : bool
        Subtract the mean of the class means first.

    Attributes
    ----------
    centroids_ : ndarray of shape (C, d)
        Means of each class's unit rows, of length 1.
    mean_ : ndarray of shape (d,)
    """

    default_grid: ClassVar[dict[str, tuple[Any, ...]]] = {"temperature": (1.0, 0.3, 0.1, 0.03, 0.01)}

    def __init__(self, *, temperature: float = 0.1, center: bool = True) -> None:
        self.temperature = temperature
        self.center = center

    def fit(self, X: Any, y: Any) -> CentroidProbe:
        """Compute the class means.

        Raises
        ------
        ValueError
            If there are fewer than two classes, or the temperature is not positive.
        """
        if not self.temperature > 0:
            raise ValueError(f"temperature: got {self.temperature}, expected more than 0")
        X, codes = self._training_data(X, y)
        number = len(self.classes_)
        self.mean_ = _mean(np.stack([X[codes == code].mean(axis=0) for code in range(number)]), self.center)
        rows = _unit_rows(X, self.mean_)
        means = np.stack([rows[codes == code].mean(axis=0) for code in range(number)])
        self.centroids_ = _unit_rows(means, np.zeros_like(self.mean_))
        return self

    def predict_log_proba(self, X: Any) -> Floats:
        """Return log-probabilities, (n, C)."""
        cosines = _unit_rows(self._test_data(X), self.mean_) @ self.centroids_.T
        return log_softmax(cosines / self.temperature)


def _mean(X: Floats, center: bool) -> NDArray[np.float64]:
    return np.asarray(X.mean(axis=0, dtype=np.float64)) if center else np.zeros(X.shape[1])


def _unit_rows(X: Floats, mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rows minus the mean, scaled to length 1; a row equal to the mean stays 0."""
    centered = X.astype(np.float64) - mean
    length = np.linalg.norm(centered, axis=1, keepdims=True)
    return np.asarray(np.divide(centered, length, out=np.zeros_like(centered), where=length > 0))
