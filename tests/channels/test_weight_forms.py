"""Weights that are no plain float initializers: behind operators, in few bits, in half precision, in two layouts."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from onnxprune import channels, ir
from onnxprune.errors import ModelError
from passes.structured_pruning.apply import prune
from passes.verify_masking import verify
from passes.verify_masking.execution import run


def typed(net, y: str) -> ir.Model:
    model = ir.from_proto(net.proto(y))
    ir.infer_shapes(model)
    return model


def levels(n, kind: int, *shape: int, per_channel: bool = True, **attributes: int) -> str:
    """A weight of this element type behind DequantizeLinear, a scale for each element of the last axis."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    drawn = n.rng.integers(0, 8, shape) if kind != TensorProto.FLOAT8E4M3FN else n.rng.standard_normal(shape)
    count = len(n.initializers)
    many = shape[-1:] if per_channel else ()
    names = [f"{stem}{count}" for stem in ("w", "s", "z")]
    for name, values in zip(names, (drawn, n.rng.random(many) * 0.1 + 0.05, np.zeros(many)), strict=True):
        as_type = np.asarray(values).astype(np.float32 if name[0] == "s" else dtype)
        n.initializers.append(numpy_helper.from_array(as_type, name))
    return n.op("DequantizeLinear", *names, **({"axis": len(shape) - 1} if per_channel else {}), **attributes)


@pytest.mark.parametrize("kind", ["INT8", "UINT8", "INT4", "UINT4", "INT16", "FLOAT8E4M3FN"])
@pytest.mark.parametrize("per_channel", [True, False])
def test_dequantized_weights(net, prove, kind, per_channel):
    n = net(opset=21)
    code = getattr(TensorProto, kind)
    x = n.op("Relu", n.op("MatMul", n.input(3, 6), levels(n, code, 6, 8, per_channel=per_channel)))
    model = typed(n, n.op("MatMul", x, levels(n, code, 8, 4, per_channel=per_channel)))
    (group,) = channels.analyze(model).groups
    assert group.width == 8
    pruned = prove(model)
    sizes = {name: t.shape for name, t in ir.initializers(pruned).items()}
    assert [len(shape) and shape[0] for name, shape in sizes.items() if name[0] in "sz"][:2] == [4 * per_channel] * 2


def test_blocked_weights_are_left_alone(net):
    n = net(opset=21)
    n.initializers.append(numpy_helper.from_array(np.ones((8, 6), np.int8), "w"))
    scale = n.constant(np.ones((4, 6), np.float32))
    hidden = n.op("MatMul", n.input(3, 8), n.op("DequantizeLinear", "w", scale, axis=0, block_size=2))
    graph = channels.analyze(typed(n, n.linear(n.op("Relu", hidden), 6, 4)))
    assert not graph.groups
    assert any("blocked" in frozen.reason for frozen in graph.frozen)


@pytest.mark.parametrize("form", ["transposed", "reshaped", "cast", "squeezed", "constant node", "transposed int8"])
def test_weights_behind_operators(net, prove, form):
    n = net(opset=21)
    x = n.input(3, 6)
    if form == "transposed":
        w = n.op("Transpose", n.weight(8, 6))
    elif form == "reshaped":
        w = n.op("Reshape", n.weight(6, 4, 2), n.ints(6, 8))
    elif form == "cast":
        w = n.op("Cast", n.constant(n.rng.standard_normal((6, 8)).astype(np.float16)), to=TensorProto.FLOAT)
    elif form == "squeezed":
        w = n.op("Squeeze", n.weight(1, 6, 8), n.ints(0))
    elif form == "constant node":
        w = n.op("Constant", value=numpy_helper.from_array(n.rng.standard_normal((6, 8)).astype(np.float32)))
    else:
        w = n.op("Transpose", levels(n, TensorProto.INT8, 8, 6))
    model = typed(n, n.linear(n.op("Relu", n.op("MatMul", x, w)), 8, 4))
    graph = channels.analyze(model)
    if form == "constant node":  # canonicalisation makes an initializer of it first
        model = ir.from_proto(onnxprune.canonicalize(ir.to_proto(model)))
        ir.infer_shapes(model)
        graph = channels.analyze(model)
    assert [group.width for group in graph.groups] == ([4] if form == "reshaped" else [8])
    prove(model, graph)


@pytest.mark.parametrize("quantized", [False, True])
def test_tied_embedding(net, prove, quantized):
    """One table is read by rows, and as the matrix of the last product."""
    n = net(opset=21)
    table = levels(n, TensorProto.INT8, 600, 8, per_channel=False) if quantized else n.weight(600, 8, name="table")
    x = n.op("Gather", table, n.input(2, 5, kind=TensorProto.INT64))
    x = n.op("Add", x, n.linear(n.op("Relu", n.linear(x, 8, 6)), 6, 8))
    model = typed(n, n.op("MatMul", x, n.op("Transpose", table)))
    graph = channels.analyze(model)
    assert sorted((group.kind, group.width) for group in graph.groups) == [("embedding", 8), ("neuron", 6)]
    pruned = prove(model, graph)
    assert ir.tensors(pruned)["w0" if quantized else "table"].shape == (600, 4)
    canonical = ir.from_proto(onnxprune.canonicalize(ir.to_proto(model)))
    stored = sum(t.values.nbytes for t in ir.initializers(canonical).values())
    assert stored <= sum(t.values.nbytes for t in ir.initializers(model).values()) + 16


def halved(proto: onnx.ModelProto, kind: int) -> onnx.ModelProto:
    """The model in half precision throughout, inputs and outputs too."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    for tensor in proto.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name))
    for info in (*proto.graph.input, *proto.graph.output):
        info.type.tensor_type.elem_type = kind
    return proto


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_half_precision(net, kind):
    """bfloat16 has no kernels on the CPU provider: analysis, pruning and the relaxed proof do without."""
    n = net(opset=22)
    x = n.op("Relu", n.conv(n.input(2, 3, 6, 6), 16, 3, 3))
    x = n.op("Flatten", n.op("GlobalAveragePool", n.conv(x, 8, 16, 3)))
    w, scale, bias = n.weight(8, 12), n.weight(12), n.weight(12)
    x = n.op("LayerNormalization", n.op("MatMul", x, w), scale, bias)
    model = ir.from_proto(halved(n.proto(n.linear(x, 12, 4)), kind))
    ir.infer_shapes(model)
    graph = channels.analyze(model)
    assert [group.width for group in graph.groups] == [16, 8, 12]
    keep = {group.name: np.arange(group.width) % 3 > 0 for group in graph.groups}
    pruned = model.copy()
    prune(pruned, graph, keep)
    half = helper.tensor_dtype_to_np_dtype(kind)
    assert {np.dtype(t.dtype) for t in ir.initializers(pruned).values()} == {np.dtype(half)}
    feeds = {"x": n.rng.standard_normal((2, 3, 6, 6)).astype(half)}
    assert verify(model, pruned, graph.removals(keep), [feeds])
    wrong = {name: np.roll(mask, 1) for name, mask in keep.items()}
    assert not verify(model, pruned, graph.removals(wrong), [feeds])
    if half == ml_dtypes.bfloat16:
        with pytest.raises(ModelError, match="ONNX Runtime cannot run the model"):
            run(ir.to_proto(pruned), [feeds])
    else:
        assert run(ir.to_proto(pruned), [feeds])


@pytest.mark.parametrize("opset", [10, 12, 13, 19, 21, 23])
def test_pairs_around_every_operator(net, prove, opset):
    """QuantizeLinear and DequantizeLinear as quantizers place them, an int32 bias and (since 13) scales a channel."""
    n = net(opset=opset)
    scale, zero = n.constant(np.float32(0.04)), n.constant(np.uint8(120))
    per_channel = opset >= 13

    def pair(x: str) -> str:
        return n.op("DequantizeLinear", n.op("QuantizeLinear", x, scale, zero), scale, zero)

    def conv(x: str, outputs: int, inputs: int) -> str:
        many = (outputs,) if per_channel else ()
        w = n.constant(n.rng.integers(-90, 90, (outputs, inputs, 3, 3)).astype(np.int8))
        s = n.constant((n.rng.random(many) * 0.01 + 0.001).astype(np.float32))
        c = n.constant(n.rng.integers(-900, 900, outputs).astype(np.int32))
        axis = {"axis": 0} if per_channel else {}
        weight = n.op("DequantizeLinear", w, s, n.constant(np.zeros(many, np.int8)), **axis)
        return pair(n.op("Conv", x, weight, n.op("DequantizeLinear", c, s, **axis), pads=[1] * 4))

    x = conv(pair(n.input(2, 3, 5, 5)), 8, 3)
    x = pair(n.op("Add", x, conv(n.op("Relu", conv(x, 6, 8)), 8, 6)))
    model = typed(n, pair(n.op("GlobalAveragePool", conv(x, 4, 8))))
    graph = channels.analyze(model)
    assert [group.width for group in graph.groups] == [8, 6]
    prove(model, graph)


def test_zero_points_that_are_stored_once_tie_no_channels(net):
    n = net(opset=17)
    zeros = n.constant(np.zeros(8, np.int8), "zeros")

    def product(x: str) -> str:
        w, s = n.constant(n.rng.integers(-90, 90, (8, 8)).astype(np.int8)), n.constant(np.full(8, 0.01, np.float32))
        return n.op("MatMul", x, n.op("DequantizeLinear", w, s, zeros, axis=1))

    given = typed(n, n.linear(product(n.op("Relu", product(product(n.input(3, 8))))), 8, 4))
    model = ir.from_proto(onnxprune.canonicalize(ir.to_proto(given)))
    ir.infer_shapes(model)
    assert [group.width for group in channels.analyze(model).groups] == [8, 8, 8]
