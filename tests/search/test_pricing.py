"""Forms of a cluster in a scheme, and terms with gaps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnxprune import ir
from onnxprune.search.macs_prices import SECONDS_EACH
from onnxprune.search.pricing import price, scheme_name, without_borders
from onnxprune.search.workspace import Workspace
from passes.quantization import Scheme, fake_quantize_for_latency

Residual = Callable[..., ir.Model]
STATIC = Scheme(kind="static", activation="u8")


def ops(proto: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


def test_borders_become_quantized_inputs_and_outputs(residual: Residual) -> None:
    whole = ir.to_proto(fake_quantize_for_latency(residual(blocks=1), STATIC))
    before = onnx.ModelProto()
    before.CopyFrom(whole)
    bare = without_borders(whole)
    onnx.checker.check_model(bare, full_check=True)
    assert ops(before).count("QuantizeLinear") == ops(bare).count("QuantizeLinear") + 1
    first = ops(before).index("QuantizeLinear")
    border = before.graph.node[first]
    (given,) = bare.graph.input
    assert given.name == border.output[0] and given.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    scale, zero = (
        onnx.numpy_helper.to_array(t) for name in border.input[1:] for t in before.graph.initializer if t.name == name
    )
    quantized = np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.uint8)
    old, new = (ort.InferenceSession(p.SerializeToString(), providers=["CPUExecutionProvider"]) for p in (before, bare))
    (expected,) = old.run(None, {"x": x})
    (found,) = new.run(None, {given.name: quantized})
    if found.dtype != np.float32:
        last = next(node for node in before.graph.node if node.output[0] == "logits")
        table = {t.name: onnx.numpy_helper.to_array(t) for t in before.graph.initializer}
        found = (found.astype(np.float32) - table[last.input[2]]) * table[last.input[1]]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_float_model_has_no_borders(residual: Residual) -> None:
    proto = ir.to_proto(residual(blocks=1))
    text = proto.SerializeToString(deterministic=True)
    assert without_borders(proto).SerializeToString(deterministic=True) == text


def test_an_input_that_others_read_in_float_keeps_its_border() -> None:
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x) => (float[2] y, float[2] z)
        <float s = {0.1}, uint8 p = {128}>
        { q = QuantizeLinear (x, s, p)
          y = DequantizeLinear (q, s, p)
          z = Relu (x) }""")
    bare = without_borders(proto)
    assert ops(bare) == ["QuantizeLinear", "Relu"] and [value.name for value in bare.graph.input] == ["x"]
    assert [value.name for value in bare.graph.output] == ["q", "z"]


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        (None, "float"),
        (Scheme(kind="dynamic"), "dynamic-int8"),
        (STATIC, "static-int8-u8"),
        (Scheme(kind="static", activation="s8", exclude=("a", "b")), "static-int8-s8, 2 nodes in float"),
    ],
)
def test_names_of_schemes(scheme: Scheme | None, expected: str) -> None:
    assert scheme_name(scheme) == expected


class Counting:
    """A table that tells integer models from float ones: an entry is the number of quantized weights, plus one."""

    def __init__(self, broken: str = "") -> None:
        self.broken = broken

    def lookup(self, keys: Any, build: Callable[[str], bytes]) -> dict[str, float]:
        found = {}
        for key in keys:
            if self.broken and self.broken in key:
                continue
            kinds = [t.data_type for t in onnx.load_from_string(build(key)).graph.initializer]
            found[key] = 1.0 + any(kind in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8) for kind in kinds)
        return found


def test_excluded_nodes_are_priced_in_float(residual: Residual, workspace: Callable[..., Workspace]) -> None:
    work = workspace(residual(blocks=1))
    levels = {group.name: (group.width,) for group in work.graph.groups}

    def prices(scheme: Scheme | None) -> list[float]:
        return [float(term.seconds.max()) for term in price(work, Counting(), levels, {}, scheme)]  # type: ignore[arg-type]

    plain, quantized = prices(None), prices(STATIC)
    assert set(plain) == {1.0} and quantized.count(2.0) >= 3
    kept = prices(Scheme(kind="static", activation="u8", exclude=("stem",)))
    assert kept[0] == 1.0 and quantized[0] == 2.0 and kept[1:] == quantized[1:]


def test_what_cannot_be_measured_is_never_cheap(residual: Residual, workspace: Callable[..., Workspace]) -> None:
    work = workspace(residual(blocks=1))
    levels = {group.name: (group.width // 2, group.width) for group in work.graph.groups}
    terms = price(work, Counting(broken="16x3x"), levels, {}, None)  # type: ignore[arg-type]
    assert all(np.isfinite(term.seconds).all() for term in terms)
    assert max(float(term.seconds.max()) for term in terms) == 1.0


def test_without_the_table_prices_are_multiply_accumulates(
    residual: Residual, workspace: Callable[..., Workspace]
) -> None:
    work = workspace(residual(blocks=1), without=frozenset({"latency-table"}))
    levels = {group.name: (group.width // 2, group.width) for group in work.graph.groups}
    terms = price(work, Counting(), levels, {}, None)  # type: ignore[arg-type]
    others = price(work, Counting(), levels, {}, STATIC)  # type: ignore[arg-type]
    assert all(np.array_equal(one.seconds, other.seconds) for one, other in zip(terms, others, strict=True))
    assert sum(term.seconds.max() for term in terms) == pytest.approx(SECONDS_EACH * ir.macs(work.base, work.shapes))
    halved = [term for term in terms if len(term.groups) == 2]
    assert halved and all(term.seconds[0, 0] == pytest.approx(term.seconds[-1, -1] / 4) for term in halved)
