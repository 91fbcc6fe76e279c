"""Grouped, stratified folds for cross-validation and splits."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray


class _Permuter(Protocol):
    """A `numpy.random.Generator` or `RandomState`."""

    def permutation(self, x: int, /) -> NDArray[np.int64]: ...


def grouped_folds(y: ArrayLike, groups: ArrayLike, *, folds: int, random: _Permuter) -> NDArray[np.intp]:
    """Return the fold of each row, (n,), such that groups stay whole and classes are spread evenly.

    Groups, largest first and shuffled among equals, go to the fold that has least of their classes; ties go to
    the fold with the smallest sum of class fractions, then to the first. The order of the classes does not matter.
    (scikit-learn's StratifiedGroupKFold is similar, but before 1.8 its shuffling undid the balance: its pull request
    32540.)

    Parameters
    ----------
    y : array-like of shape (n,)
        Class of each row.
    groups : array-like of shape (n,)
        Group of each row, such as its source.
    folds : int
        Number of folds; fewer groups than folds leave folds empty.
    random : numpy.random.Generator or numpy.random.RandomState
        Shuffles groups of equal size.
    """
    label = np.unique(np.asarray(y), return_inverse=True)[1]
    group = np.unique(np.asarray(groups), return_inverse=True)[1]
    counts = np.zeros((group.max() + 1, label.max() + 1))
    np.add.at(counts, (group, label), 1)
    fraction = counts / counts.sum(axis=0)  # a row of a rare class weighs more
    order = random.permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    filled = np.zeros((folds, counts.shape[1]))
    fold = np.empty(len(counts), dtype=np.intp)
    for number in order:
        # Of Σ (filled + fraction)² over folds and classes only the cross term depends on the chosen fold.
        # Rounded, so that equal costs tie on every machine; ties go to the emptiest fold.
        cost = np.round(filled @ fraction[number], 12)
        fold[number] = np.lexsort((filled.sum(axis=1).round(12), cost))[0]
        filled[fold[number]] += fraction[number]
    return fold[group]
