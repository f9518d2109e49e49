"""Golden rewrites and refusals: splits of axes in front of permutations."""

from __future__ import annotations

import pytest

from passes.split_axes import SplitAxes

SIZES = ({"N": 1}, {"N": 3})


def case(body: str, constants: str, y: str = "N,4,8,6") -> str:
    return f"agraph (float[N,4,6,8] x) => (float[{y}] y) <{constants}> {{ {body} }}"


def test_batch_and_heads_merged_only_to_be_permuted(apply):
    """scaled_dot_product_attention turns its keys like this."""
    body = "a = Reshape(x, merge) b = Transpose <perm = [0, 2, 1]> (a) y = Reshape(b, split)"
    text = case(body, "int64[3] merge = {-1,6,8}, int64[4] split = {-1,4,8,6}")
    done = apply(SplitAxes(), text, SIZES)
    assert done.nodes[-1] == "y = Transpose(y_split) {perm=[0, 1, 3, 2]}"
    assert done.values("y_split_shape").tolist() == [0, 4, 6, 8]


def test_a_split_that_is_not_the_one_before(apply):
    """MultiheadAttention: (steps, batch, 32) becomes (steps, batch * 4, 8), and batch and heads part again."""
    text = """agraph (float[6,N,32] x) => (float[N,4,6,8] y) <int64[3] merge = {6,-1,8}, int64[4] split = {-1,4,6,8}> {
        a = Reshape(x, merge)
        b = Transpose <perm = [1, 0, 2]> (a)
        y = Reshape(b, split)
    }"""
    done = apply(SplitAxes(), text, SIZES)
    assert done.nodes[-1] == "y = Transpose(y_split) {perm=[1, 2, 0, 3]}"
    assert done.values("y_split_shape").tolist() == [6, 0, 4, 8]


def test_splits_move_through_a_row_of_permutations(apply):
    body = """a = Reshape(x, merge) b = Transpose <perm = [0, 2, 1]> (a) c = Reshape(b, split)
        d = Transpose <perm = [0, 1, 3, 2]> (c) y = Reshape(d, more)"""
    text = case(
        body, "int64[3] merge = {-1,6,8}, int64[4] split = {-1,4,8,6}, int64[5] more = {-1,2,2,6,8}", "N,2,2,6,8"
    )
    done = apply(SplitAxes(), text, SIZES)
    assert done.nodes[-1] == "y = Transpose(y_split) {perm=[0, 1, 2, 3, 4]}"


@pytest.mark.parametrize(
    ("body", "constants", "y"),
    [
        # the last reshape merges
        ("a = Reshape(x, one) b = Transpose <perm = [0, 2, 1]> (a) y = Reshape(b, two)",
         "int64[3] one = {-1,6,8}, int64[2] two = {-1,48}", "M,48"),
        # it regroups: no axis of one side is a run of the other's
        ("a = Reshape(x, one) b = Transpose <perm = [0, 2, 1]> (a) y = Reshape(b, two)",
         "int64[3] one = {-1,6,8}, int64[4] two = {-1,4,6,8}", "N,4,6,8"),
        # no reshape in front
        ("a = Neg(x) b = Transpose <perm = [0, 1, 3, 2]> (a) y = Reshape(b, two)",
         "int64[5] two = {0,2,2,8,6}", "N,2,2,8,6"),
    ],
)  # fmt: skip
def test_what_stays(apply, body, constants, y):
    assert not apply(SplitAxes(), case(body, constants, y), SIZES).result.modified


def test_two_sizes_that_no_constant_can_say_stay(apply):
    text = """agraph (float[N,K,48] x) => (float[M,8,6] y) <int64[3] one = {-1,6,8}> {
        a = Reshape(x, one)
        b = Transpose <perm = [0, 2, 1]> (a)
        y = Identity(b)
    }"""
    assert not apply(SplitAxes(), text, ({"N": 2, "K": 3},)).result.modified


def test_a_merged_tensor_that_others_read_is_kept(apply):
    text = """agraph (float[N,4,6,8] x) => (float[N,4,8,6] y, float[M,6,8] z) <int64[3] merge = {-1,6,8},
            int64[4] split = {-1,4,8,6}> {
        a = Reshape(x, merge)
        z = Neg(a)
        b = Transpose <perm = [0, 2, 1]> (a)
        y = Reshape(b, split)
    }"""
    done = apply(SplitAxes(), text, SIZES)
    assert done.nodes[-1] == "y = Transpose(y_split) {perm=[0, 1, 3, 2]}"
    assert "a = Reshape(x, merge)" in done.nodes
