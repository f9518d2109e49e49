"""Golden rewrites and refusals of operator normalisation."""

from __future__ import annotations

import pytest

from passes.normalize_ops import NormalizeOps


@pytest.mark.parametrize(
    "body",
    [
        "y = ReduceMean <axes = [2, 3]> (x)",
        "y = ReduceMean <axes = [-1, -2], keepdims = 1> (x)",
        "y = AveragePool <kernel_shape = [4, 4]> (x)",
        "y = AveragePool <kernel_shape = [4, 4], strides = [4, 4], pads = [0,0,0,0], count_include_pad = 1> (x)",
    ],
)
def test_every_spelling_of_a_global_mean(apply, body):
    done = apply(NormalizeOps(), f"agraph (float[N,3,4,4] x) => (float[N,3,1,1] y) {{ {body} }}")
    assert done.nodes == ["y = GlobalAveragePool(x)"]


def test_a_mean_that_drops_its_axes_is_a_pool_and_a_flatten(apply):
    done = apply(
        NormalizeOps(),
        "agraph (float[N,3,H,W] x) => (float[N,3] y) { y = ReduceMean <axes = [2, 3], keepdims = 0> (x) }",
    )
    assert done.nodes == ["y_pooled = GlobalAveragePool(x)", "y = Flatten(y_pooled) {axis=1}"]


def test_a_global_maximum(apply):
    done = apply(
        NormalizeOps(), "agraph (float[N,3,H,W] x) => (float[N,3,1,1] y) { y = ReduceMax <axes = [2, 3]> (x) }"
    )
    assert done.nodes == ["y = GlobalMaxPool(x)"]


@pytest.mark.parametrize(
    "body",
    [
        "y = ReduceMean <axes = [3]> (x)",
        "y = ReduceMean <axes = [1, 2, 3]> (x)",
        "y = AveragePool <kernel_shape = [3, 3]> (x)",
        "y = AveragePool <kernel_shape = [4, 4], pads = [1,1,1,1]> (x)",
        "y = MaxPool <kernel_shape = [2, 2], dilations = [3, 3]> (x)",
    ],
)
def test_other_pools_and_means_stay(apply, body):
    done = apply(NormalizeOps(), f"agraph (float[N,3,4,4] x) => (float[A,B,C,D] y) {{ {body} }}")
    assert not done.result.modified


def test_doubles_are_not_pooled(apply):
    text = "agraph (double[N,3,4,4] x) => (double[N,3,1,1] y) { y = ReduceMean <axes = [2, 3]> (x) }"
    assert not apply(NormalizeOps(), text).result.modified


def test_integers_are_not_pooled(apply):
    text = "agraph (int64[N,3,4,4] x) => (int64[N,3,1,1] y) { y = ReduceMax <axes = [2, 3]> (x) }"
    assert not apply(NormalizeOps(), text).result.modified


@pytest.mark.parametrize(
    "body",
    [
        "y = Reshape(x, flat)",
        "y = Reshape(x, rest)",
        "y = Squeeze(x, spatial)",
        "u = Squeeze(x, spatial) y = Reshape(u, rest)",
    ],
)
def test_every_spelling_of_flatten(apply, body):
    done = apply(
        NormalizeOps(),
        f"""agraph (float[N,3,1,1] x) => (float[N,3] y)
        <int64[2] flat = {{0, -1}}, int64[2] rest = {{-1, 3}}, int64[2] spatial = {{2, 3}}> {{ {body} }}""",
    )
    assert "Flatten(x) {axis=1}" in done.nodes[0]


def test_a_reshape_of_a_reshape_reads_the_first_tensor(apply):
    done = apply(
        NormalizeOps(),
        """agraph (float[N,T,4] x) => (float[N,T,2,2] y) <int64[1] one = {1}, int64[4] deep = {0, -1, 2, 2}> {
            u = Unsqueeze(x, one)
            y = Reshape(u, deep)
        }""",
        ({"N": 2, "T": 3},),
    )
    assert done.nodes[-1] == "y = Reshape(x, y_shape)"
    assert done.values("y_shape").tolist() == [0, 0, 2, 2]


def test_slices_of_different_axes_become_one_that_names_only_what_it_cuts(apply):
    done = apply(
        NormalizeOps(),
        """agraph (float[N,3,8,8] x) => (float[N,3,4,4] y) <int64[1] zero = {0}, int64[1] end = {9223372036854775807},
            int64[1] two = {2}, int64[1] h = {2}, int64[1] w = {-1}, int64[4] starts = {0,0,0,0},
            int64[4] ends = {2147483647, 2147483647, 2147483647, 2147483647}, int64[4] axes = {0,1,2,3},
            int64[4] steps = {1,1,2,1}> {
            a = Slice(x, starts, ends, axes, steps)
            y = Slice(a, zero, end, w, two)
        }""",
    )
    assert done.nodes[-1] == "y = Slice(x, y_starts, y_ends, y_axes, y_steps)"
    assert done.values("y_axes").tolist() == [2, 3]
    assert done.values("y_steps").tolist() == [2, 2]


def test_slices_of_the_same_axis_stay_two(apply):
    done = apply(
        NormalizeOps(),
        """agraph (float[N,8] x) => (float[N,4] y) <int64[1] one = {1}, int64[1] six = {6}, int64[1] end = {100}> {
            a = Slice(x, one, end, one) y = Slice(a, one, six, one) }""",
    )
    assert [line.split("(")[0] for line in done.nodes] == ["a = Slice", "y = Slice"]


def test_a_slice_that_is_read_twice_is_not_merged(apply):
    done = apply(
        NormalizeOps(),
        """agraph (float[8,8] x) => (float[4,4] y, float[8,4] z)
            <int64[1] zero = {0}, int64[1] one = {1}, int64[1] four = {4}> {
            a = Slice(x, zero, four, one) y = Slice(a, zero, four, zero) z = Neg(a) }""",
    )
    assert done.nodes[1].startswith("y = Slice(a,")


def test_a_gather_of_evenly_spaced_indices_is_a_slice(apply):
    done = apply(
        NormalizeOps(),
        "agraph (float[N,6] x) => (float[N,3] y) <int64[3] odd = {1, 3, 5}> { y = Gather <axis = 1> (x, odd) }",
    )
    assert done.nodes == ["y = Slice(x, y_starts, y_ends, y_axes, y_steps)"]


@pytest.mark.parametrize(
    "indices", ["int64[3] i = {1, 3, 4}", "int64 i = {1}", "int64[2] i = {-2, -1}", "int64[2] i = {3, 1}"]
)
def test_other_gathers_stay(apply, indices):
    done = apply(
        NormalizeOps(),
        f"agraph (float[N,6] x) => (float[A,B] y) <{indices}, int64[2] s = {{-1, 1}}> "
        "{ g = Gather <axis = 1> (x, i) y = Reshape(g, s) }",
    )
    assert done.nodes[0] == "g = Gather(x, i) {axis=1}"


def test_a_range_of_vectors_reads_scalars(apply):
    done = apply(
        NormalizeOps(),
        """agraph (float[T] x) => (int64[T] y) <int64 zero = {0}, int64 one = {1}> {
            t = Shape(x) y = Range(zero, t, one) }""",
        runs=False,
    )
    assert done.nodes == ["t = Shape(x)", "t_scalar = Reshape(t, scalar)", "y = Range(zero, t_scalar, one)"]


def test_small_spellings(apply):
    done = apply(
        NormalizeOps(),
        "agraph (float[N] x, float[N] z) => (float[N] y) <float zero = {0}> { s = Sum(x, z) y = Clip(s, zero) }",
    )
    assert done.nodes == ["s = Add(x, z)", "y = Relu(s)"]
