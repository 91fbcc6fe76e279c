"""Selection of the validation set: whole sources, with every class represented as far as the sources allow."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAX_GROWTH = 1.5
"""The validation set may exceed its requested size by this factor if that adds a class."""


def validation_mask(y: NDArray[np.intp], sources: NDArray[np.str_], *, share: float, seed: int) -> NDArray[np.bool_]:
    """Return a mask of the rows that form the validation set.

    Greedy: sources are added one by one, each time the one that brings the class fractions nearest to `share`, until
    none improves them; a class that is missing counts as an error of a whole class. No class loses its last source.

    Parameters
    ----------
    y : ndarray of shape (n,)
        Class numbers.
    sources : ndarray of shape (n,)
    share : float
        Fraction of each class, and of all clips.
    seed : int
        Breaks ties.

    Returns
    -------
    ndarray of shape (n,), bool
        All False if no source can be spared.
    """
    classes, codes = np.unique(y, return_inverse=True)
    names, source = np.unique(sources, return_inverse=True)
    counts = np.zeros((len(names), len(classes)))
    np.add.at(counts, (source, codes), 1)
    total, capacity = counts.sum(0), MAX_GROWTH * share * len(y)
    sources_left = (counts > 0).sum(0)  # training sources of each class
    chosen = np.zeros(len(names), dtype=np.bool_)
    order = np.random.default_rng(seed).permutation(len(names))

    def distance(selected: NDArray[np.float64]) -> NDArray[np.float64]:
        # Rounded, so that ties are ties on every machine.
        return np.asarray(np.where(selected > 0, (selected / total - share) ** 2, 1.0).sum(-1).round(9))

    selected = np.zeros(len(classes))
    while True:
        candidates = order[~chosen[order]]
        allowed = ((counts[candidates] == 0) | (sources_left > 1)).all(1)
        candidates = candidates[allowed & ((selected + counts[candidates]).sum(1) <= capacity)]
        distances = distance(selected + counts[candidates])
        if not len(candidates) or distances.min() >= distance(selected):
            return np.asarray(chosen[source])
        best = candidates[distances.argmin()]
        chosen[best] = True
        selected += counts[best]
        sources_left -= counts[best] > 0
