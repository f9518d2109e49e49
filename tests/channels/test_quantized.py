"""Operators on quantized tensors: pruned in 8 bits with their scales and zero points, and equal to the masked model."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from onnxprune import channels, ir
from onnxprune.errors import ModelError
from passes.structured_pruning.apply import prune
from passes.verify_masking import verify
from passes.verify_masking.execution import describe, run

MS = "com.microsoft"


class Levels:
    """Puts quantized operators into a net. Activations are uint8 around 110, weights int8 with a scale a channel."""

    def __init__(self, net, opset: int = 17) -> None:
        self.n = net(opset=opset)
        self.scale = self.n.constant(np.float32(0.03), "scale")
        self.zero = self.n.constant(np.uint8(110), "zero")
        self.unit = [self.scale, self.zero]

    def start(self, *shape: int) -> str:
        return self.n.op("QuantizeLinear", self.n.input(*shape), *self.unit)

    def weight(self, *shape: int, channels: int, zero: int = 0, per_channel: bool = True) -> list[str]:
        """An int8 weight, its scales and its zero points."""
        count = len(self.n.initializers)
        values = self.n.rng.integers(-60, 60, shape).astype(np.int8)
        many = (channels,) if per_channel else ()
        scales = (self.n.rng.random(many) * 0.01 + 0.005).astype(np.float32)
        zeros = np.full(many, zero, np.int8)
        named = {"w": values, "s": scales, "z": zeros}
        return [self.n.constant(array, f"{stem}{count}") for stem, array in named.items()]

    def bias(self, size: int) -> str:
        return self.n.constant(self.n.rng.integers(-2000, 2000, size).astype(np.int32))

    def conv(self, x: str, outputs: int, inputs: int, kernel: int = 1, **attributes: int) -> str:
        w = self.weight(outputs, inputs // attributes.get("group", 1), kernel, kernel, channels=outputs)
        pads = [kernel // 2] * 4
        return self.n.op("QLinearConv", x, *self.unit, *w, *self.unit, self.bias(outputs), pads=pads, **attributes)

    def ms(self, op: str, *inputs: str, **attributes: object) -> str:
        return self.n.op(op, *inputs, domain=MS, **attributes)

    def finish(self, x: str) -> ir.Model:
        return self.real(self.n.op("DequantizeLinear", x, *self.unit))

    def real(self, y: str) -> ir.Model:
        model = ir.from_proto(self.n.proto(y))
        ir.infer_shapes(model)
        return model


@pytest.fixture
def levels(net) -> Levels:
    return Levels(net)


def widths(model: ir.Model) -> list[int]:
    return [group.width for group in channels.analyze(model).groups]


def test_convolutions(levels, prove):
    x = levels.conv(levels.start(2, 3, 6, 6), 8, 3, 3)
    y = levels.conv(levels.conv(x, 8, 8, 3, group=8), 8, 8, group=2)
    joined = levels.ms("QLinearConcat", *levels.unit, y, *levels.unit, x, *levels.unit, axis=1)
    model = levels.finish(levels.conv(joined, 4, 16))
    assert widths(model) == [4, 4]
    pruned = prove(model)
    depthwise = next(node for node in pruned.graph.nodes if node.attrs.get("group", 1) > 2)
    assert depthwise.attrs["group"] == depthwise.inputs[3].shape[0] < 8
    assert [len(depthwise.inputs[slot].values) for slot in (4, 5, 8)] == [depthwise.attrs["group"]] * 3


def test_a_removed_channel_holds_the_zero_point(levels):
    """A gate that selected 0 would add (0 - 110) * w to every output."""
    model = levels.finish(levels.conv(levels.conv(levels.start(2, 3, 4, 4), 8, 3), 4, 8))
    graph = channels.analyze(model)
    keep = {graph.groups[0].name: np.arange(8) < 5}
    pruned = model.copy()
    prune(pruned, graph, keep)
    feeds = [{"x": np.random.default_rng(1).standard_normal((2, 3, 4, 4)).astype(np.float32)}]
    assert verify(model, pruned, graph.removals(keep), feeds).error == 0.0
    keep = {graph.groups[0].name: np.arange(8) > 2}
    assert not verify(model, pruned, graph.removals(keep), feeds)


def test_residual_sum_and_pools(levels, prove):
    x = levels.conv(levels.start(2, 3, 6, 6), 8, 3)
    y = levels.ms("QLinearAdd", x, *levels.unit, levels.conv(x, 8, 8, 3), *levels.unit, *levels.unit)
    y = levels.ms("QLinearAveragePool", y, *levels.unit, *levels.unit, kernel_shape=[2, 2], strides=[2, 2])
    y = levels.ms("QLinearMul", y, *levels.unit, levels.conv(y, 8, 8), *levels.unit, *levels.unit)
    y = levels.ms("QLinearGlobalAveragePool", y, *levels.unit, *levels.unit)
    model = levels.finish(levels.conv(y, 4, 8))
    assert widths(model) == [8]
    prove(model)


def test_activations_and_selection(levels, prove):
    x = levels.conv(levels.start(2, 3, 4, 4), 6, 3)
    left = levels.ms("QLinearLeakyRelu", x, *levels.unit, *levels.unit, alpha=0.1)
    right = levels.ms("QLinearSigmoid", x, *levels.unit, *levels.unit)
    chosen = levels.n.op("Greater", levels.n.op("DequantizeLinear", x, *levels.unit), levels.scale)
    y = levels.ms("QLinearWhere", chosen, left, *levels.unit, right, *levels.unit, *levels.unit)
    model = levels.finish(levels.conv(y, 4, 6))
    assert widths(model) == [6]
    prove(model)


def test_what_the_provider_has_no_kernel_for_is_proved_in_its_relaxed_form(levels, prove):
    x = levels.conv(levels.start(2, 3, 4, 4), 6, 3)
    y = levels.ms("QLinearReduceMean", x, *levels.unit, *levels.unit, axes=[2, 3], keepdims=1)
    model = levels.finish(levels.conv(y, 4, 6))
    with pytest.raises(ModelError, match="NOT_IMPLEMENTED"):
        run(ir.to_proto(model), [{"x": np.zeros((2, 3, 4, 4), np.float32)}])
    assert widths(model) == [6]
    prove(model)


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("floating", [False, True])
def test_gemm(levels, prove, transposed, floating):
    def gemm(x: str, inputs: int, outputs: int, *result: str) -> str:
        shape = (outputs, inputs) if transposed else (inputs, outputs)
        w = levels.weight(*shape, channels=outputs)
        return levels.ms("QGemm", x, *levels.unit, *w, levels.bias(outputs), *result, transB=transposed, alpha=0.5)

    hidden = gemm(levels.start(3, 5), 5, 8, *levels.unit)
    model = levels.real(gemm(hidden, 8, 4)) if floating else levels.finish(gemm(hidden, 8, 4, *levels.unit))
    assert widths(model) == [8]
    prove(model)


def test_attention(levels, prove):
    n = levels.n

    def project(x: str, outputs: int) -> str:
        return n.op("QLinearMatMul", x, *levels.unit, *levels.weight(8, outputs, channels=outputs), *levels.unit)

    def heads(x: str) -> str:
        return n.op("Transpose", n.op("Reshape", x, n.ints(2, 5, 4, 3)), perm=[0, 2, 1, 3])

    x = levels.start(2, 5, 8)
    q, k, v = (heads(project(x, 12)) for _ in range(3))
    turned = n.op("Transpose", k, perm=[0, 1, 3, 2])
    scores = n.op("QLinearMatMul", q, *levels.unit, turned, *levels.unit, *levels.unit)
    shares = levels.ms("QLinearSoftmax", scores, *levels.unit, *levels.unit, axis=-1, opset=17)
    mixed = n.op("QLinearMatMul", shares, *levels.unit, v, *levels.unit, *levels.unit)
    flat = n.op("Reshape", n.op("Transpose", mixed, perm=[0, 2, 1, 3]), n.ints(2, 5, 12))
    w = levels.weight(12, 8, channels=8)
    model = levels.finish(n.op("QLinearMatMul", flat, *levels.unit, *w, *levels.unit))
    for granularity, kinds in (("head", ["head"]), ("head_dim", ["head_dim", "head_dim"])):
        graph = channels.analyze(model, granularity=granularity)
        assert [group.kind for group in graph.groups] == kinds
        prove(model, graph)


def test_dynamic_convolutions_and_products(levels, prove):
    n = levels.n
    x, scale, zero = n.ops("DynamicQuantizeLinear", 3, n.input(2, 3, 5, 5))
    w, s, z = levels.weight(8, 3, 3, 3, channels=8)
    y = n.op("Cast", n.op("ConvInteger", x, w, zero, z), to=TensorProto.FLOAT)
    y = n.op("Mul", y, n.op("Mul", scale, n.op("Reshape", s, n.ints(8, 1, 1))))
    y, scale, zero = n.ops("DynamicQuantizeLinear", 3, n.op("Flatten", n.op("GlobalAveragePool", n.op("Relu", y))))
    w, s, z = levels.weight(8, 6, channels=6, zero=3)
    y = n.op("Cast", n.op("MatMulInteger", y, w, zero, z), to=TensorProto.FLOAT)
    y = n.op("Relu", n.op("Mul", y, n.op("Mul", scale, s)))
    w, s, z = levels.weight(6, 5, channels=5, zero=-2)
    y = levels.ms("DynamicQuantizeMatMul", y, w, s, z, n.weight(5))
    y, scale, zero = n.ops("DynamicQuantizeLinear", 3, n.op("Sigmoid", y))
    w, s, z = levels.weight(5, 4, channels=4)
    model = levels.real(levels.ms("MatMulIntegerToFloat", y, w, scale, s, zero, z, n.weight(4)))
    graph = channels.analyze(model)
    assert [(group.width, group.exact) for group in graph.groups] == [(8, False), (6, False), (5, False)]
    prove(model)


def test_softmax_in_8_bits_keeps_its_axis(levels):
    x = levels.conv(levels.start(2, 3, 4, 4), 8, 3)
    y = levels.ms("QLinearSoftmax", x, *levels.unit, *levels.unit, axis=1, opset=17)
    graph = channels.analyze(levels.finish(levels.conv(y, 4, 8)))
    assert not graph.groups
    assert any("softmax in 8 bits" in frozen.reason for frozen in graph.frozen)


def test_the_shapes_are_those_that_run(levels):
    """Every operator of com.microsoft in the nets above is typed as ONNX Runtime types it."""
    x = levels.conv(levels.start(2, 3, 7, 7), 8, 3)
    y = levels.ms("QLinearAveragePool", x, *levels.unit, *levels.unit, kernel_shape=[3, 3], ceil_mode=1, strides=[2, 2])
    z = levels.ms("QLinearConcat", *levels.unit, y, *levels.unit, y, *levels.unit, axis=-1)
    model = levels.finish(z)
    names = [node.outputs[0].name for node in model.graph.nodes]
    found = describe(ir.to_proto(model), {"x": np.zeros((2, 3, 7, 7), np.float32)}, names)
    tensors = ir.tensors(model)
    for name in names:
        assert (tuple(tensors[name].shape), np.dtype(tensors[name].dtype)) == found[name]
    onnx.checker.check_model(ir.to_proto(model))
