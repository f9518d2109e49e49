"""Connected components of large graphs, in array operations only."""

from __future__ import annotations

import numpy as np

from onnxprune.channels.links import Ints


def connected_components(count: int, a: Ints, b: Ints) -> tuple[int, Ints]:
    """The number of components of an undirected graph, and the component of each of its `count` vertices.

    Edge j joins vertices a[j] and b[j]; loops and repetitions are allowed. Components are numbered by their smallest
    vertex. Each round hooks every tree to the smallest one that it touches and contracts: a tree that lives through two
    rounds has taken in another, so there are at most 2 log2(count) rounds over ever fewer edges. (Shiloach and
    Vishkin 1982, https://doi.org/10.1016/0196-6774(82)90008-6, with hooking to the minimum. The same as
    `scipy.sparse.csgraph.connected_components`, whose import alone takes as long as the analysis of 2,000 nodes.)
    """
    label = np.arange(count, dtype=np.int64)
    size = count
    while True:
        apart = a != b
        if not apart.any():
            return size, label
        a, b = a[apart], b[apart]
        parent = np.arange(size, dtype=np.int64)
        np.minimum.at(parent, np.maximum(a, b), np.minimum(a, b))
        parent = _flattened(parent)
        roots = parent == np.arange(size)
        contracted = (np.cumsum(roots) - 1)[parent]
        size = int(np.count_nonzero(roots))
        label, a, b = contracted[label], contracted[a], contracted[b]


def _flattened(parent: Ints) -> Ints:
    """Every vertex below the root of its tree: the distance halves each time."""
    while True:
        above = parent[parent]
        if np.array_equal(above, parent):
            return parent
        parent = above
