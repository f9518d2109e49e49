"""Sizes of the states of a Loop: kept by induction, given up where a trip changes them."""

from __future__ import annotations

import onnx
import onnx.parser
import pytest

from onnxprune import ir


def _loop(body: str, outputs: str = "last", states: str = "s", starts: str = "x") -> ir.Model:
    proto = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 17]>
        net (float[N,4] x, float[N,4] x2, int64 n) => (float[A,B] z)
        {{
          {outputs} = Loop(n, , {starts}) < body = b (int64 i, bool go, {states}) => (bool on, {body} >
          z = Neg({outputs.split(",")[0]})
        }}"""
    )
    for info in proto.graph.node[0].attribute[0].g.input[2:]:
        info.type.tensor_type.ClearField("shape")
    model = ir.from_proto(proto)
    ir.infer_shapes(model)
    return model


def _shapes(model: ir.Model) -> dict[str, object]:
    return {name: tensor.shape for name, tensor in ir.every_tensor(model).items()}


WEIGHTS = "<float[4,4] w = {1,2,3,4,5,6,7,8,1,2,3,4,5,6,7,8}>"


def test_a_size_that_each_trip_returns_is_kept_and_known_behind_the_loop() -> None:
    found = _shapes(
        _loop(f"float[P,Q] t) {WEIGHTS} {{ on = Identity(go) m = MatMul(s, w) t = Relu(m) }}", states="float[R,S] s")
    )
    assert [found[name][1] for name in ("s", "m", "last", "z")] == [4] * 4  # type: ignore[index]


def test_a_size_that_grows_is_given_up() -> None:
    found = _shapes(_loop("float[P,Q] t) { on = Identity(go) t = Concat <axis = 1> (s, s) }", states="float[R,S] s"))
    assert found["s"] is None or not isinstance(found["s"][1], int)  # type: ignore[index]
    assert found["z"] is None or not isinstance(found["z"][1], int)  # type: ignore[index]


@pytest.mark.parametrize("swapped", [False, True])
def test_states_that_change_places_are_judged_together(swapped: bool) -> None:
    """Two states of equal size may change places; where one of them grows, neither size is kept."""
    grown = "t = Identity(s2) t2 = Concat <axis = 1> (s, s)" if swapped else "t = Identity(s2) t2 = Identity(s)"
    model = _loop(
        f"float[P,Q] t, float[U,V] t2) {{ on = Identity(go) {grown} }}",
        "last, last2",
        "float[R,S] s, float[T,W] s2",
        "x, x2",
    )
    sizes = [_shapes(model)[name] for name in ("s", "s2", "z")]
    known = [shape is not None and shape[1] == 4 for shape in sizes]  # type: ignore[index]
    assert known == [not swapped] * 3, sizes
