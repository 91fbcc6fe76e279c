"""Heads without training: the vote of the nearest clips, and the nearest class mean, by cosine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from actionvit.heads.base import Floats, Head, Params, log_softmax
from actionvit.heads.weighting import ClassWeight, class_weights

FLOOR = float(np.finfo(np.float32).eps)
"""Probability of a class without a vote, so that its log is finite."""

BLOCK = 1024
"""Rows whose similarities to all training rows are held at once."""


class KNNProbe(Head):
    """The k nearest training rows by cosine vote with weight exp(similarity / temperature).

    The rule of Wu et al. (Unsupervised Feature Learning via Non-Parametric Instance Discrimination, CVPR 2018). Of
    equally similar rows the earlier counts as nearer.

    Parameters
    ----------
    k : int
        Neighbours; all rows where there are fewer.
    temperature : float
        The smaller, the more the nearest outvotes the rest.
    center : bool
        Take the training mean off first: embeddings of one encoder share a large common part, which makes all cosines
        alike.
    class_weight : {"none", "balanced", "effective"}, mapping or None
        What a vote of each class counts.

    Attributes
    ----------
    rows_ : ndarray of shape (n, d)
        Training rows, centred, of length 1.
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
        """Keep the training rows.

        Raises
        ------
        ValueError
            If there are fewer than two classes, or a setting is out of range.
        """
        if not (self.k >= 1 and self.temperature > 0):
            raise ValueError(f"k, temperature: got {self.k}, {self.temperature}, expected at least 1 and more than 0")
        X, self.codes_ = self._training_data(X, y)
        self.mean_ = _mean(X, self.center)
        self.rows_ = _directions(X, self.mean_)
        self.votes_ = class_weights(self.codes_, len(self.classes_), self.class_weight, classes=self.classes_)
        return self

    def predict_log_proba(self, X: Any) -> Floats:
        """Return log-probabilities, (n, C)."""
        return self._log_votes(*self._neighbours(self._test_data(X), self.k), self.k, self.temperature)

    def predict_grid(self, X: Any, y: Any, X_val: Any, grid: Sequence[Params]) -> list[Floats]:
        """Return log-probabilities of X_val per entry; over k and temperature the neighbors are found once."""
        if any(set(params) - {"k", "temperature"} for params in grid):
            return super().predict_grid(X, y, X_val, grid)
        head = clone(self).fit(X, y)
        largest = max(params.get("k", self.k) for params in grid)
        near, similarity = head._neighbours(head._test_data(X_val), largest)
        return [
            head._log_votes(near, similarity, params.get("k", self.k), params.get("temperature", self.temperature))
            for params in grid
        ]

    def _neighbours(self, X: Floats, k: int) -> tuple[NDArray[np.intp], Floats]:
        """Return the k nearest training rows of each row and their similarities, (n, k), the nearest first."""
        directions = _directions(X, self.mean_)
        near, similarity = [], []
        for start in range(0, len(directions), BLOCK):
            cosines = directions[start : start + BLOCK] @ self.rows_.T
            order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
            near.append(order)
            similarity.append(np.take_along_axis(cosines, order, axis=1))
        return np.concatenate(near), np.concatenate(similarity)

    def _log_votes(self, near: NDArray[np.intp], similarity: Floats, k: int, temperature: float) -> Floats:
        near, similarity = near[:, :k], similarity[:, :k].astype(np.float64)
        codes = self.codes_[near]
        weight = np.exp((similarity - similarity[:, :1]) / temperature) * self.votes_[codes]
        cell = np.arange(len(near))[:, None] * len(self.classes_) + codes
        shape = len(near), len(self.classes_)
        votes = np.bincount(cell.ravel(), weights=weight.ravel(), minlength=shape[0] * shape[1]).reshape(shape)
        share = votes / np.maximum(votes.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        floored = share + FLOOR
        return np.asarray(np.log(floored / floored.sum(axis=1, keepdims=True)))


class CentroidProbe(Head):
    """The nearest class mean by cosine; class sizes play no part.

    Parameters
    ----------
    temperature : float
        Of the softmax over cosines: it moves probabilities, not the ranking.
    center : bool
        Take the mean of the class means off first.

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
        """Take the means.

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
        rows = _directions(X, self.mean_)
        means = np.stack([rows[codes == code].mean(axis=0) for code in range(number)])
        self.centroids_ = _directions(means, np.zeros_like(self.mean_))
        return self

    def predict_log_proba(self, X: Any) -> Floats:
        """Return log-probabilities, (n, C)."""
        cosines = _directions(self._test_data(X), self.mean_) @ self.centroids_.T
        return log_softmax(cosines / self.temperature)


def _mean(X: Floats, center: bool) -> NDArray[np.float64]:
    return np.asarray(X.mean(axis=0, dtype=np.float64)) if center else np.zeros(X.shape[1])


def _directions(X: Floats, mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rows less the mean, of length 1; a row at the mean has no direction and stays 0."""
    centred = X.astype(np.float64) - mean
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.asarray(np.divide(centred, length, out=np.zeros_like(centred), where=length > 0))
