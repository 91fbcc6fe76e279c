"""Which part of a training set chooses the epoch: whole sources, showing every class as far as sources allow."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MOST = 1.5
"""The part may grow to so many times the share asked for where that shows one more class."""


def validation_part(y: NDArray[np.intp], sources: NDArray[np.str_], *, share: float, seed: int) -> NDArray[np.bool_]:
    """Return which rows are held out.

    Sources are added one by one, each time the one that brings the classes nearest to their share, until none brings
    them nearer; a class that is not shown at all counts as much as being wrong by a whole class. No class loses its
    last source to the part.

    Parameters
    ----------
    y : ndarray of shape (n,)
        Class numbers.
    sources : ndarray of shape (n,)
    share : float
        Of each class, and of all clips.
    seed : int
        Decides among equals.

    Returns
    -------
    ndarray of shape (n,), bool
        All False where no source can be spared.
    """
    classes, codes = np.unique(y, return_inverse=True)
    names, source = np.unique(sources, return_inverse=True)
    counts = np.zeros((len(names), len(classes)))
    np.add.at(counts, (source, codes), 1)
    total, room = counts.sum(0), MOST * share * len(y)
    left = (counts > 0).sum(0)  # sources of each class that are trained on
    held = np.zeros(len(names), dtype=np.bool_)
    order = np.random.default_rng(seed).permutation(len(names))

    def distance(shown: NDArray[np.float64]) -> NDArray[np.float64]:
        # Rounded, so that equals tie on every machine.
        return np.asarray(np.where(shown > 0, (shown / total - share) ** 2, 1.0).sum(-1).round(9))

    now = np.zeros(len(classes))
    while True:
        spared = order[~held[order]]
        spared = spared[((counts[spared] == 0) | (left > 1)).all(1) & ((now + counts[spared]).sum(1) <= room)]
        distances = distance(now + counts[spared])
        if not len(spared) or distances.min() >= distance(now):
            return np.asarray(held[source])
        best = spared[distances.argmin()]
        held[best] = True
        now += counts[best]
        left -= counts[best] > 0
