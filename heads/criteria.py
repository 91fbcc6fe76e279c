"""Scores by which settings and epochs are chosen."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Criterion = Literal["accuracy", "mean_class_accuracy", "log_loss"]

FLOOR = float(np.finfo(np.float32).eps)
"""Smallest probability that enters a log-loss, so that one wrong row cannot make it infinite."""


def check_criterion(criterion: str) -> None:
    """Raise ValueError for an unknown criterion."""
    if criterion not in get_args(Criterion):
        raise ValueError(f"criterion: got {criterion!r}, expected one of {', '.join(get_args(Criterion))}")


def score_of(y: NDArray[np.intp], log_proba: NDArray[np.floating[Any]], criterion: Criterion) -> float:
    """Return a score of which higher is better; 0 for no rows.

    Parameters
    ----------
    y : ndarray of shape (n,)
        Columns of the true classes.
    log_proba : ndarray of shape (n, C)
    criterion : {"accuracy", "mean_class_accuracy", "log_loss"}
        `mean_class_accuracy` averages over the classes in y; `log_loss` is negated.
    """
    if not len(y):
        return 0.0
    if criterion == "log_loss":
        true_class = log_proba[np.arange(len(y)), y]
        return float(np.maximum(true_class, np.log(FLOOR)).mean())
    correct = log_proba.argmax(axis=1) == y
    if criterion == "accuracy":
        return float(correct.mean())
    counts = np.bincount(y)
    return float((np.bincount(y, weights=correct)[counts > 0] / counts[counts > 0]).mean())
