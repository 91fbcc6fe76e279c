"""Smaller training sets on purpose: k shots per class, and long tails."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def few_shot(y: NDArray[np.intp], shots: int, *, seed: int) -> NDArray[np.intp]:
    """Return the sorted positions of `shots` clips of each class, or all of them where they are fewer.

    Draws are nested: the clips of 2 shots are among those of 4 with the same seed, so that a learning curve
    shows what more clips add and not which clips were drawn.
    """
    if shots < 1:
        raise ValueError(f"shots: got {shots}, expected at least 1")
    order = _shuffled_by_class(y, seed)
    return np.sort(np.concatenate([positions[:shots] for positions in order.values()]))


def long_tail_counts(counts: NDArray[np.intp], factor: float) -> NDArray[np.intp]:
    """Return how many clips each class keeps, (C,), for an exponential profile from the first class to the last.

    Class i of C keeps n_max · factor ** (-i / (C - 1)), at least 1 and at most what it has, as in the long-tailed
    CIFAR of Cui et al. (CVPR 2019). n_max is the smallest class's count, so that the profile is the factor's and not
    the dataset's: with factor 1 every class keeps the same number.
    """
    if factor < 1:
        raise ValueError(f"factor: got {factor}, expected at least 1")
    steps = np.arange(len(counts)) / max(1, len(counts) - 1)
    keep = np.round(counts.min() * factor**-steps).astype(np.intp)
    return np.asarray(np.maximum(1, keep))


def tail_ranks(classes: int, seed: int) -> NDArray[np.intp]:
    """Return each class's place from head (0) to tail, (C,), drawn by `seed`: the same for every factor."""
    return np.asarray(np.random.default_rng(seed).permutation(classes), dtype=np.intp)


def long_tail(y: NDArray[np.intp], factor: float, *, seed: int, even: bool = False) -> NDArray[np.intp]:
    """Return the sorted positions of a long-tailed subset; the seed draws which class is head and which is tail.

    Parameters
    ----------
    y : ndarray of int, shape (n,)
        Class numbers.
    factor : float
        Largest class over smallest class; see `long_tail_counts`.
    seed : int
        Of the ranking and of the clips; draws are nested over factors.
    even : bool
        Keep as many clips in total, but the same number of each class (the rest goes to the head): the control.
    """
    classes, counts = np.unique(y, return_counts=True)
    keep = long_tail_counts(counts, factor)
    if even:
        keep = keep.sum() // len(keep) + (np.arange(len(keep)) < keep.sum() % len(keep))
    rank = tail_ranks(len(classes), seed)
    order = _shuffled_by_class(y, seed)
    return np.sort(np.concatenate([order[int(c)][: keep[rank[i]]] for i, c in enumerate(classes)]))


def _shuffled_by_class(y: NDArray[np.intp], seed: int) -> dict[int, NDArray[np.intp]]:
    rng = np.random.default_rng(seed)
    return {int(c): rng.permutation(np.flatnonzero(y == c)) for c in np.unique(y)}
