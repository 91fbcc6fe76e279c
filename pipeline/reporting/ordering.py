"""Classes that are taken for one another, put next to each other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Places = NDArray[np.intp]


class _Node(NamedTuple):
    """A subtree with n leaves, and the shortest orders of them by what stands at both ends."""

    leaves: list[int]
    length: Floats
    """(n, n) by the places of the first and the last leaf; infinite where no order of the tree has these ends."""
    children: tuple[_Node, _Node] | None = None
    last: Places = np.empty((0, 0), dtype=np.intp)
    """Which leaf of the one child stands last, by its first and the other child's first."""
    first: Places = np.empty((0, 0), dtype=np.intp)
    """Which leaf of the other child stands first, by the one's first and its own last."""


def by_similarity(cells: NDArray[np.int64]) -> list[int]:
    """Return an order of C classes that puts those next to each other that are taken for one another.

    Average linkage over the confusions (C, C), normalised by row and made symmetric; of all orders of its tree one with
    the least sum of distances between neighbours (Bar-Joseph, Gifford & Jaakkola, Bioinformatics 2001). scipy's
    `optimal_ordering` is not used: it does not find the least (its issue 11227).
    """
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    if len(cells) < 3:
        return list(range(len(cells)))
    shares = cells / np.maximum(cells.sum(axis=1, keepdims=True), 1)
    distance = 1 - (shares + shares.T) / 2
    np.fill_diagonal(distance, 0)
    nodes = [_Node([leaf], np.zeros((1, 1))) for leaf in range(len(cells))]
    for a, b, *_ in linkage(squareform(distance, checks=False), method="average"):
        nodes.append(_joined(nodes[int(a)], nodes[int(b)], distance))
    root = nodes[-1]
    ends = np.unravel_index(root.length.argmin(), root.length.shape)
    return _order(root, int(ends[0]), int(ends[1]))


def _joined(a: _Node, b: _Node, distance: Floats) -> _Node:
    gap = distance[np.ix_(a.leaves, b.leaves)]
    # From the first leaf of `a` over its last one to the first of `b`, then on to the last of `b`.
    over = a.length[:, :, None] + gap
    onward = over.min(axis=1)[:, :, None] + b.length
    best, n = onward.min(axis=1), len(a.leaves)
    length = np.full((n + len(b.leaves),) * 2, np.inf)
    length[:n, n:], length[n:, :n] = best, best.T
    return _Node([*a.leaves, *b.leaves], length, (a, b), over.argmin(axis=1), onward.argmin(axis=1))


def _order(node: _Node, first: int, last: int) -> list[int]:
    """Return the leaves in the shortest order between two of them, given by their places."""
    if node.children is None:
        return node.leaves
    a, b = node.children
    n = len(a.leaves)
    if first >= n:
        return _order(node, last, first)[::-1]
    begin = int(node.first[first, last - n])
    end = int(node.last[first, begin])
    return _order(a, first, end) + _order(b, begin, last - n)
