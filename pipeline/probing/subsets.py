"""Thinned training sets: k shots per class, and long tails."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def few_shot(y: NDArray[np.intp], shots: int, *, seed: int) -> NDArray[np.intp]:
    """Return the sorted positions of `shots` clips of each class, or all clips of smaller classes.

    Draws are nested: the clips of 2 shots are among those of 4 with the same seed, so that a learning curve
    shows the effect of more clips and not of other clips.
    """
    if shots < 1:
        raise ValueError(f"shots: got {shots}, expected at least 1")
    order = _shuffled_by_class(y, seed)
    return np.sort(np.concatenate([positions[:shots] for positions in order.values()]))


def long_tail_counts(counts: NDArray[np.intp], factor: float) -> NDArray[np.intp]:
    """Return the number of clips that each class keeps, (C,): an exponential profile from the first class to the last.

    Class i of C keeps n_max · factor ** (-i / (C - 1)), between 1 and all of its clips, as in the long-tailed CIFAR of
    Cui et al. (CVPR 2019). n_max is the smallest class's count, so that the profile depends on the factor and not on
    the dataset: with factor 1 every class keeps the same number.
    """
    if factor < 1:
        raise ValueError(f"factor: got {factor}, expected at least 1")
    steps = np.arange(len(counts)) / max(1, len(counts) - 1)
    keep = np.round(counts.min() * factor**-steps).astype(np.intp)
    return np.asarray(np.maximum(1, keep))


def tail_ranks(classes: int, seed: int) -> NDArray[np.intp]:
    """Return each class's rank from head (0) to tail, (C,), drawn by `seed`: the same for every factor."""
    return np.asarray(np.random.default_rng(seed).permutation(classes), dtype=np.intp)


def long_tail(y: NDArray[np.intp], factor: float, *, seed: int, even: bool = False) -> NDArray[np.intp]:
    """Return the sorted positions of a long-tailed subset; the seed draws the order of classes from head to tail.

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
