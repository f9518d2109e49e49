"""Zero initial states go, all others stay."""

from __future__ import annotations

import pytest

from passes.zero_states import ZeroStates

SIGNATURE = "(float[T,3,2] x, float[1,3,2] h) => (float[T,1,3,2] y)"
WEIGHTS = "float[1,8,2] w = {" + ",".join(["0.5"] * 16) + "}, float[1,8,2] r = {" + ",".join(["0.25"] * 16) + "}"


def model(body: str, weights: str = WEIGHTS) -> str:
    return f"agraph {SIGNATURE} <{weights}> {{ {body} }}"


def state(values: str) -> str:
    return f"{WEIGHTS}, float[1,3,2] s = {{{values}}}"


def test_constants_and_slices_of_a_tensor_of_computed_size(apply):
    done = apply(
        ZeroStates(),
        model(
            """
            n = Shape <start = 1, end = 2> (x)
            two = Constant <value_ints = [2]> ()
            size = Concat <axis = 0> (two, n, two)
            zeros = ConstantOfShape (size)
            start = Constant <value_ints = [0]> ()
            end = Constant <value_ints = [1]> ()
            s = Slice (zeros, start, end)
            y = LSTM <hidden_size = 2> (x, w, r, , , s, s)
            """
        ),
    )
    assert done.nodes[-1] == "y = LSTM(x, w, r) {hidden_size=2}"
    assert done.result.counts == {"states": 2}


def test_an_expanded_zero_beside_a_state_that_is_computed(apply):
    done = apply(
        ZeroStates(),
        model(
            "t = Shape (h) z = Constant <value_float = 0.0> () s = Expand (z, t) "
            "y = LSTM <hidden_size = 2> (x, w, r, , , s, h)"
        ),
    )
    assert done.nodes[-1] == "y = LSTM(x, w, r, _, _, _, h) {hidden_size=2}"


@pytest.mark.parametrize("values", ["0,0,0,0,0,1", "0,0,0,0,0,-0.0"])
def test_other_constants_stay(apply, values):
    assert not apply(ZeroStates(), model("y = LSTM <hidden_size = 2> (x, w, r, , , s)", state(values))).result.modified


def test_a_zero_constant_goes(apply):
    done = apply(ZeroStates(), model("y = LSTM <hidden_size = 2> (x, w, r, , , s)", state("0,0,0,0,0,0")))
    assert done.nodes == ["y = LSTM(x, w, r) {hidden_size=2}"]


def test_fills_other_than_zero_and_graph_inputs_stay(apply):
    done = apply(
        ZeroStates(),
        model(
            "t = Shape (h) s = ConstantOfShape <value = float[1] {0.5}> (t) "
            "y = LSTM <hidden_size = 2> (x, w, r, , , s, h)"
        ),
    )
    assert not done.result.modified


@pytest.mark.parametrize("rest", ["", ", b"])
def test_operators_without_states_stay(apply, rest):
    bias = "float[1,16] b = {" + ",".join(["0.5"] * 16) + "}"
    done = apply(ZeroStates(), model(f"y = LSTM <hidden_size = 2> (x, w, r{rest})", f"{WEIGHTS}, {bias}"))
    assert not done.result.modified
