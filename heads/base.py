"""What every head shares: checked input, classes, probabilities, and trying many settings at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.validation import check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

Floats = NDArray[np.floating[Any]]


class Head(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # sklearn ships no types
    """A classifier on embeddings; a subclass gives `fit` and `predict_log_proba`.

    Settings are stored as given, learned state ends in `_`, as in scikit-learn.
    """

    default_grid: ClassVar[dict[str, tuple[Any, ...]]] = {}
    """What selection searches by default, the simplest or strongest regularised value first."""

    tokens: ClassVar[bool] = False
    """Whether rows may be (T, D) as well as (D,)."""

    classes_: NDArray[Any]
    n_features_in_: int

    def fit(self, X: Any, y: Any) -> Head:
        """Learn from X (n, ...) and labels y (n,)."""
        raise NotImplementedError

    @property
    def together(self) -> bool:
        """Whether `scan_all` and `fit_all` of many training sets at once beat one after another."""
        return False

    def predict_log_proba(self, X: Any) -> Floats:
        """Return log-probabilities, (n, C), columns in the order of `classes_`."""
        raise NotImplementedError

    def predict_proba(self, X: Any) -> Floats:
        """Return probabilities, (n, C), columns in the order of `classes_`."""
        proba: Floats = np.exp(self.predict_log_proba(X))
        return proba

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of each row, (n,)."""
        best = np.argmax(self.predict_log_proba(X), axis=1)
        return np.asarray(self.classes_[best])

    def scan(self, X: Any, y: Any, held: Any, settings: Sequence[Mapping[str, Any]]) -> list[Floats]:
        """Return log-probabilities of the rows `held`, one array a setting, each from a fit on (X, y).

        Where settings share work (a path of C, neighbours, epochs) a head overrides this.
        """
        return [clone(self).set_params(**setting).fit(X, y).predict_log_proba(held) for setting in settings]

    @staticmethod
    def scan_all(scans: Sequence[Scan], *, jobs: int = 1) -> list[list[list[Floats]]]:
        """Return what `scan` gives, of each part of each training set; in threads, a part each.

        A head for which `together` holds overrides this, and `fit_all`.
        """
        # Several products of matrices at once, each in as many threads as there are cores, get in each other's way.
        with threadpool_limits(1) if jobs > 1 else nullcontext():
            found = Parallel(n_jobs=jobs, prefer="threads")(
                delayed(one.head.scan)(one.X[train], one.y[train], one.X[held], one.settings)
                for one in scans
                for train, held in one.parts
            )
        left = iter(found)
        return [[next(left) for _ in one.parts] for one in scans]

    @staticmethod
    def fit_all(heads: Sequence[Head], data: Sequence[tuple[Any, Any]]) -> None:
        """Fit each head to its (X, y)."""
        for head, (X, y) in zip(heads, data, strict=True):
            head.fit(X, y)

    def _training_data(self, X: Any, y: Any) -> tuple[Floats, NDArray[np.intp]]:
        """Check (X, y), store the classes, return X as floats and y as class indices."""
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], allow_nd=self.tokens)
        if y.dtype.kind == "f" and np.any(y != np.round(y)):
            raise ValueError("Unknown label type: continuous; expected classes, got fractions")
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y: got 1 class ({self.classes_[0]!r}), expected at least 2")
        return X, codes.astype(np.intp)

    def _test_data(self, X: Any) -> Floats:
        """Check that the head is fitted and that X fits it."""
        check_is_fitted(self)
        checked: Floats = validate_data(self, X, dtype=[np.float64, np.float32], allow_nd=self.tokens, reset=False)
        return checked


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """A training set on which settings are to be tried."""

    head: Head
    """Left untouched."""
    X: NDArray[Any]
    y: NDArray[Any]
    parts: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]
    """Rows that train, rows that are held."""
    settings: Sequence[Mapping[str, Any]]


def log_softmax(logits: Floats) -> Floats:
    """Return log-probabilities of logits along the last axis."""
    shifted: Floats = logits - logits.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted
