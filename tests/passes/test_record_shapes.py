"""Which sizes are written down: numbers and names of the inputs' dimensions, and nothing over what is known."""

from __future__ import annotations

from passes.record_shapes import RecordShapes

SIZES = ({"N": 1, "T": 5}, {"N": 3, "T": 5})
MASK = """agraph (float[N,T,8] x, float[1,1,5,1] m) => (float[N,1,5,K] y) <int64 zero = {0}, int64[1] first = {0},
        int64[3] rest = {1,5,5}> {
        s = Shape(x)
        n = Gather(s, zero)
        nu = Unsqueeze(n, first)
        target = Concat <axis = 0> (nu, rest)
        e = Expand(m, target)
        y = Neg(e)
    }"""


def test_constant_entries_of_a_computed_target_and_the_name_of_the_batch(apply):
    done = apply(RecordShapes(), MASK, SIZES)
    shapes = {tensor.name: tensor.shape for tensor in done.model.all_tensors() if tensor.name}
    assert shapes["e"] == ["N", 1, 5, 5]
    assert shapes["y"] == ["N", 1, 5, "K"]
    assert set(done.result.counts) == {"shape"}


def test_sizes_that_are_not_known_keep_what_is_recorded(apply):
    done = apply(
        RecordShapes(), "agraph (float[N] x) => (int64[A,B] y) { z = NonZero(x) y = Identity(z) }", ({"N": 3},)
    )
    assert done.result.modified
    (shape,) = [tensor.shape for tensor in done.model.all_tensors() if tensor.name == "z"]
    assert shape[0] == 1 and not isinstance(shape[1], int)


def test_an_empty_graph_is_left_alone(apply):
    assert not apply(RecordShapes(), "agraph (float[2] x) => (float[2] x) {}").result.modified
