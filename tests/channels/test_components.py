"""Connected components: the same as scipy's, numbers included."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import coo_array, csgraph

from onnxprune.channels.components import connected_components


def same_as_scipy(count: int, a: np.ndarray, b: np.ndarray) -> None:
    edges = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(count, count))
    expected, labels = csgraph.connected_components(edges, directed=False)
    found = connected_components(count, a, b)
    assert found[0] == expected
    np.testing.assert_array_equal(found[1], labels)


@pytest.mark.parametrize("seed", range(20))
def test_random_graphs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 400))
    ends = rng.integers(0, count, (2, int(rng.integers(0, 2 * count))))
    same_as_scipy(count, ends[0], ends[1])


@pytest.mark.parametrize("order", ["rising", "falling", "random"])
def test_shapes_that_are_hard_for_hooking(order: str) -> None:
    """A path, a star and a comb, with the vertices numbered in three ways."""
    count = 2000
    number = {"rising": np.arange(count), "falling": np.arange(count)[::-1]}.get(order)
    number = np.random.default_rng(0).permutation(count) if number is None else number
    low, half = np.arange(count - 1), np.arange(count // 2)
    for a, b in ((low, low + 1), (np.zeros_like(low), low + 1), (half, half + count // 2)):
        same_as_scipy(count, number[a], number[b])


def test_no_vertices_and_no_edges() -> None:
    none = np.zeros(0, np.int64)
    assert connected_components(0, none, none)[0] == 0
    assert connected_components(3, none, none)[1].tolist() == [0, 1, 2]
