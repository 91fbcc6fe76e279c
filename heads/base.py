"""Common parts of all heads: input checks, classes, probabilities and the interface of a grid search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.validation import check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

from actionvit.heads.criteria import Criterion

Floats = NDArray[np.floating[Any]]

Params = Mapping[str, Any]
"""Values of a head's parameters by name, as in scikit-learn's `set_params`."""

Fold = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Training rows and validation rows."""


class Head(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # sklearn ships no types
    """A classifier on embeddings; a subclass provides `fit` and `predict_log_proba`.

    Parameters are stored as given and learned state ends in `_`, as in scikit-learn.
    """

    default_grid: ClassVar[dict[str, tuple[Any, ...]]] = {}
    """Values that a grid search tries by default, the simplest or most strongly regularized first."""

    accepts_frames: ClassVar[bool] = False
    """Whether rows may be (T, D) as well as (D,)."""

    classes_: NDArray[Any]
    n_features_in_: int

    def fit(self, X: Any, y: Any) -> Head:
        """Train on X (n, ...) and labels y (n,)."""
        raise NotImplementedError

    def predict_log_proba(self, X: Any) -> Floats:
        """Return log-probabilities, (n, C), columns in the order of `classes_`."""
        raise NotImplementedError

    def predict_proba(self, X: Any) -> Floats:
        """Return probabilities, (n, C), columns in the order of `classes_`."""
        proba: Floats = np.exp(self.predict_log_proba(X))
        return proba

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of each row, (n,)."""
        codes = np.argmax(self.predict_log_proba(X), axis=1)
        return np.asarray(self.classes_[codes])

    def predict_grid(self, X: Any, y: Any, X_val: Any, grid: Sequence[Params]) -> list[Floats]:
        """Return log-probabilities of X_val, one array (m, C) per entry of the grid, each from a fit on (X, y).

        Heads override this where entries share work (a path of C, neighbors, epochs).
        """
        return [clone(self).set_params(**params).fit(X, y).predict_log_proba(X_val) for params in grid]

    def fit_grid(
        self,
        X: Any,
        y: Any,
        folds: Sequence[Fold],
        grid: Sequence[Params],
        *,
        criterion: Criterion = "accuracy",
        jobs: int = 1,
    ) -> GridFit:
        """Fit every entry of a grid on every fold.

        Parameters
        ----------
        X : ndarray of shape (n, ...)
        y : ndarray of shape (n,)
        folds : sequence of (training rows, validation rows)
        grid : sequence of mapping
            Parameters of each entry.
        criterion : {"accuracy", "mean_class_accuracy", "log_loss"}
            A head may end the training of entries that cannot win by it.
        jobs : int
            Threads, each working on one fold.
        """
        # BLAS in several threads per fold would oversubscribe the cores.
        with threadpool_limits(1) if jobs > 1 else nullcontext():
            predictions = Parallel(n_jobs=jobs, prefer="threads")(
                delayed(self.predict_grid)(X[train], y[train], X[val], grid) for train, val in folds
            )
        return GridFit(self, X, y, predictions)

    def _training_data(self, X: Any, y: Any) -> tuple[Floats, NDArray[np.intp]]:
        """Check (X, y), store the classes, return X as floats and y as class indices."""
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], allow_nd=self.accepts_frames)
        if y.dtype.kind == "f" and np.any(y != np.round(y)):
            raise ValueError("Unknown label type: continuous; expected classes, got fractions")
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y: got 1 class ({self.classes_[0]!r}), expected at least 2")
        return X, codes.astype(np.intp)

    def _test_data(self, X: Any) -> Floats:
        """Check that the head is fitted and that X has the shape it was fitted on."""
        check_is_fitted(self)
        checked: Floats = validate_data(
            self, X, dtype=[np.float64, np.float32], allow_nd=self.accepts_frames, reset=False
        )
        return checked


class GridFit:
    """Predictions of every fold under every entry of a grid, and the refit of one entry."""

    def __init__(self, head: Head, X: Any, y: Any, predictions: list[list[Floats]]) -> None:
        self.head, self.X, self.y = head, X, y
        self.predictions = predictions
        """Log-probabilities of the validation rows, (m, C), per fold and entry."""
        self.stopped: list[int] = []
        """Entries whose training ended early because they could not win; their predictions are preliminary."""

    def refit(self, params: Params) -> Head:
        """Return a head with these parameters fitted on all rows."""
        head: Head = clone(self.head).set_params(**params)
        return head.fit(self.X, self.y)
