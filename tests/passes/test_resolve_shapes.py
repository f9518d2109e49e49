"""Golden rewrites and refusals of shape resolution."""

from __future__ import annotations

import numpy as np
import pytest

from passes.resolve_shapes import ResolveShapes, reshape_target
from passes.symbolic import symbol

ATTENTION = """agraph (float[N,T,12] x) => (float[N,T,3,4] y) <int64 zero = {0}, int64 one = {1}, int64[1] first = {0},
        int64[1] heads = {3}, int64[1] rest = {-1}> {
        s = Shape(x)
        n = Gather(s, zero)
        t = Gather(s, one)
        nu = Unsqueeze(n, first)
        tu = Unsqueeze(t, first)
        target = Concat <axis = 0> (nu, tu, heads, rest)
        y = Reshape(x, target)
    }"""
SIZES = ({"N": 1, "T": 1}, {"N": 2, "T": 5})


def test_heads_are_split_by_a_constant_whatever_batch_and_length(apply):
    done = apply(ResolveShapes(), ATTENTION, SIZES)
    assert done.nodes == ["y = Reshape(x, y_shape)"]
    assert done.values("y_shape").tolist() == [0, 0, 3, 4]
    assert dict(done.result.counts) == {"shape": 1}


def test_shape_with_start_and_end_is_understood(apply):
    done = apply(
        ResolveShapes(),
        """agraph (float[N,C,4] x) => (float[N,M] y) <int64[1] rest = {-1}> {
            n = Shape <start = 0, end = 1> (x)
            target = Concat <axis = 0> (n, rest)
            y = Reshape <allowzero = 1> (x, target)
        }""",
        ({"N": 1, "C": 2}, {"N": 3, "C": 5}),
    )
    assert done.nodes == ["y = Reshape(x, y_shape)"]
    assert done.values("y_shape").tolist() == [0, -1]


def test_sizes_follow_products_quotients_and_windows(apply):
    done = apply(
        ResolveShapes(),
        """agraph (float[N,2,8,8] x) => (float[M,2,4,4] y) <float[2,1,3,3] w = {1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1},
            int64 one = {1}, int64 two = {2}, int64[1] first = {0}, int64[1] rest = {-1}, int64 axis2 = {2}> {
            c = Conv <group = 2, pads = [1,1,1,1], strides = [2,2]> (x, w)
            s = Shape(c)
            channels = Gather(s, one)
            height = Gather(s, axis2)
            double = Mul(height, two)
            half = Div(double, two)
            cu = Unsqueeze(channels, first)
            hu = Unsqueeze(half, first)
            target = Concat <axis = 0> (rest, cu, hu, hu)
            y = Reshape(c, target)
        }""",
    )
    assert done.nodes[-1] == "y = Reshape(c, y_shape)"
    assert done.values("y_shape").tolist() == [0, 2, 4, 4]
    assert [line.split(" = ")[1].split("(")[0] for line in done.nodes] == ["Conv", "Reshape"]


def test_the_expand_idiom_of_exporters_resolves(apply):
    done = apply(
        ResolveShapes(),
        """agraph (float[N,1,4] x) => (float[N,1,4] y) <int64[3] minus = {-1,-1,-1}, int64[3] ones = {1,1,1},
            int64[1] rest = {-1}, int64[2] tail = {-1, 4}> {
            n = Shape <start = 0, end = 1> (x)
            wanted = Concat <axis = 0> (n, tail)
            keep = Equal(wanted, minus)
            target = Where(keep, ones, wanted)
            y = Expand(x, target)
        }""",
    )
    assert done.nodes == ["y = Expand(x, y_shape)"]
    assert done.values("y_shape").tolist() == [1, 1, 1]


def test_a_slice_to_the_end_of_a_dynamic_axis(apply):
    done = apply(
        ResolveShapes(),
        """agraph (float[N,T] x) => (float[N,U] y) <int64[1] one = {1}> {
            t = Shape <start = 1, end = 2> (x)
            y = Slice(x, one, t, one)
        }""",
        ({"N": 2, "T": 3}, {"N": 1, "T": 7}),
    )
    assert done.nodes == ["y = Slice(x, one, y_ends, one)"]
    assert done.values("y_ends").tolist() == [np.iinfo(np.int64).max]


def test_resizing_to_a_multiple_of_the_input_uses_scales(apply):
    done = apply(
        ResolveShapes(),
        """agraph (float[N,2,H,W] x) => (float[N,2,A,B] y) <int64[2] two = {2, 2}> {
            nc = Shape <start = 0, end = 2> (x)
            hw = Shape <start = 2> (x)
            big = Mul(hw, two)
            sizes = Concat <axis = 0> (nc, big)
            y = Resize <mode = "linear"> (x, , , sizes)
        }""",
        ({"N": 1, "H": 3, "W": 5}, {"N": 2, "H": 4, "W": 4}),
    )
    assert done.nodes == ["y = Resize(x, _, y_scales) {mode='linear'}"]
    assert done.values("y_scales").tolist() == [1, 1, 2, 2]


def test_the_shape_of_an_inner_tensor_is_read_from_the_graph_input(apply):
    done = apply(
        ResolveShapes(),
        """agraph (float[N,T] x) => (int64[T] y) <int64 zero = {0}, int64 one = {1}> {
            r = Relu(x)
            e = Exp(r)
            s = Shape(e)
            t = Gather(s, one)
            y = Range(zero, t, one)
        }""",
        ({"N": 2, "T": 3}, {"N": 1, "T": 7}),
    )
    assert done.nodes == [
        "x_shape = Shape(x)",
        "t_size = Gather(x_shape, axes) {axis=0}",
        "y = Range(zero, t_size, one)",
    ]


def test_a_target_behind_other_reshapes_reads_the_tensor_before_them(apply):
    done = apply(
        ResolveShapes(),
        """agraph (float[N,T,4] x) => (float[N,1,T,4] y) <int64[2] flat = {-1, 4}, int64[1] one = {1}> {
            f = Reshape(x, flat)
            n = Shape <start = 0, end = 1> (x)
            tc = Shape <start = 1> (x)
            target = Concat <axis = 0> (n, one, tc)
            y = Reshape(f, target)
        }""",
        SIZES,
    )
    assert done.nodes == ["y = Reshape(x, y_shape)"]
    assert done.values("y_shape").tolist() == [0, 1, -1, 4]


def test_two_dynamic_sizes_are_a_skip(apply):
    done = apply(
        ResolveShapes(),
        """agraph (float[N,T,4] x) => (float[T,N,4] y) {
            n = Shape <start = 0, end = 1> (x)
            t = Shape <start = 1, end = 2> (x)
            four = Shape <start = 2, end = 3> (x)
            target = Concat <axis = 0> (t, n, four)
            y = Reshape(x, target)
        }""",
        ({"N": 2, "T": 3},),
    )
    assert [(skip.node, skip.reason) for skip in done.result.skips] == [
        ("y", "more than one size of its target is dynamic")
    ]
    assert done.nodes[-1] == "y = Reshape(x, target)"


def test_a_shared_target_keeps_its_value_for_the_other_reader(apply):
    done = apply(
        ResolveShapes(),
        """agraph (float[N,4] x, float[T,U] v) => (float[N,2,2] y, float[M,2,2] z) <int64[3] target = {-1, 2, 2}> {
            y = Reshape(x, target)
            z = Reshape(v, target)
        }""",
        ({"N": 3, "T": 2, "U": 6},),
    )
    assert done.values("target").tolist() == [-1, 2, 2]
    assert done.nodes == ["y = Reshape(x, y_shape)", "z = Reshape(v, target)"]


def test_a_recorded_shape_that_is_wrong_is_not_believed(apply):
    done = apply(
        ResolveShapes(),
        """<ir_version: 8, opset_import: ["" : 17]>
        agraph (float[N,T] x) => (int64[2] y) <float[N,7] r> { r = Relu(x) y = Shape(r) }""",
        ({"N": 2, "T": 3},),
    )
    assert done.nodes[-1].startswith("y = ")
    assert "Constant" not in "".join(done.nodes) and "Identity" not in "".join(done.nodes)


def test_a_known_shape_that_is_a_graph_output_keeps_its_name(apply):
    done = apply(ResolveShapes(), "agraph (float[2,3] x) => (int64[2] y) { y = Shape(x) }")
    assert done.nodes == ["y = Identity(y_value)"]
    assert done.values("y_value").tolist() == [2, 3]


@pytest.mark.parametrize(
    ("source", "result", "target"),
    [
        (["b", "s", 384], ["b", "s", 12, 32], [0, 0, 12, 32]),
        (["b", 12, "s", 32], ["b", "s", 384], [0, -1, 384]),
        (["b", "s", 384], ["bs", 384], [-1, 384]),
        (["b", "s"], ["s", "b"], None),
        ([4, 6], [24], [24]),
    ],
)
def test_reshape_target(source, result, target):
    symbols = {"b": symbol("b"), "s": symbol("s"), "bs": symbol("b") * symbol("s")}
    made = [[symbols.get(size, size) for size in shape] for shape in (source, result)]
    assert reshape_target(*made) == target


RESIZED = """agraph (float[N,3,H,W] x, float[N,2,A,B] skip) => (float[N,3,A,B] y) <float[0] none = {},
        int64[1] zero = {0}, int64[1] two = {2}, int64[1] four = {4}> {
        s = Shape(x)
        own = Slice(s, zero, two, zero)
        t = Shape(skip)
        wanted = Slice(t, two, four, zero)
        sizes = Concat <axis = 0> (own, wanted)
        y = Resize <mode = "nearest"> (x, none, none, sizes)
    }"""
MAPS = ({"N": 1, "H": 2, "W": 3, "A": 5, "B": 4}, {"N": 2, "H": 4, "W": 4, "A": 3, "B": 7})


def test_known_sizes_of_a_dynamic_target_become_constants(apply):
    done = apply(ResolveShapes(), RESIZED, MAPS)
    assert done.nodes == [
        "s = Shape(x)",
        "t = Shape(skip)",
        "wanted = Slice(t, two, four, zero)",
        "s_part = Gather(s, s_entries) {axis=0}",
        "y_sizes = Concat(s_part, y_known, wanted) {axis=0}",
        "y = Resize(x, none, none, y_sizes) {mode='nearest'}",
    ]
    assert done.values("s_entries").tolist() == [0] and done.values("y_known").tolist() == [3]
    assert done.result.counts["split"] == 1


def test_the_shape_of_a_map_as_a_target_is_split_into_what_is_known(apply):
    done = apply(
        ResolveShapes(),
        """agraph (float[N,4,H,W] x) => (float[N,4,H,W] y) <int64[3] groups = {0,2,-1}> {
            folded = Reshape(x, groups)
            e = Exp(folded)
            s = Shape(x)
            y = Reshape(e, s)
        }""",
        ({"N": 1, "H": 2, "W": 3}, {"N": 2, "H": 4, "W": 4}),
    )
    assert done.result.counts["split"] == 1
    assert done.nodes[-2] == "y_sizes = Concat(s_part, y_known, s_part_1) {axis=0}"
    assert done.values("y_known").tolist() == [4]


def test_a_target_of_unknown_sizes_alone_is_left_as_it_is(apply):
    done = apply(ResolveShapes(), RESIZED.replace("float[N,3,", "float[N,C,"), ({**MAPS[0], "C": 3},))
    assert "split" not in done.result.counts


def test_the_shape_of_another_tensor_as_the_target_of_an_expansion(apply):
    done = apply(
        ResolveShapes(),
        """agraph (float[N,5,6] x, float[1,5,1] p) => (float[N,5,6] y) {
            s = Shape(x)
            y = Expand(p, s)
        }""",
        ({"N": 1}, {"N": 3}),
    )
    assert done.nodes[-1] == "y = Expand(p, y_sizes)"
    assert done.values("s_entries").tolist() == [0]
