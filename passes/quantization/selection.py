"""Which nodes run in 8 bits: every constant-weight contraction, and the glue between them that has an 8-bit kernel.

The CPU provider turns `DequantizeLinear -> op -> QuantizeLinear` into an 8-bit kernel for the operators listed here;
anything else would be a float island between two conversions, so it is left alone. Glue joins only behind an 8-bit
producer (an 8-bit MaxPool behind a float convolution is many times slower than a float one, since it loses the blocked
layout) and only before an 8-bit contraction (at the tail it would cost precision and gain nothing).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from passes.quantization import scaling

CONTRACTIONS = frozenset({"Conv", "Gemm", "MatMul"})
MOVEMENT = frozenset(
    [
        "Reshape",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Slice",
        "Split",
        "Gather",
        "Pad",
        "MaxPool",
        "Resize",
        "DepthToSpace",
        "SpaceToDepth",
    ]
)
"""Outputs hold only values of the input (or zero): one scale serves both."""
ARITHMETIC = frozenset({"Add", "Mul", "Concat", "GlobalAveragePool", "AveragePool", "Sigmoid", "LeakyRelu"})
CLAMPS = frozenset({"Relu", "Clip"})
"""Absorbed by the rounding of the contraction before them: an 8-bit range saturates."""
NORMALIZATIONS = frozenset({"LayerNormalization", "BatchNormalization", "InstanceNormalization", "Softmax"})
_FLOATS_BETWEEN = 5
"""Float operators in a row that are looked through for the 8-bit tensor that an activation starts from."""
_SINGLE_DATA = MOVEMENT | CLAMPS | frozenset({"GlobalAveragePool", "AveragePool", "Sigmoid", "LeakyRelu"})


def contractions(model: ir.Model) -> list[gs.Node]:
    """Nodes in graph order that multiply a float32 activation by a constant float32 weight and have an 8-bit kernel.

    Types must be known (`ir.infer_shapes`): an activation of unknown type is not quantized.
    """
    return [node for node in model.graph.nodes if _is_contraction(node)]


def data_inputs(node: gs.Node) -> list[gs.Tensor]:
    """The activations that the node reads as numbers: no weights, shapes, indices or constants."""
    inputs = node.inputs[:1] if node.op in _SINGLE_DATA or node.op in ("Conv", "Gemm") else node.inputs
    return [tensor for tensor in inputs if tensor.name and ir.constant(tensor) is None]


def select(model: ir.Model, exclude: frozenset[str] = frozenset()) -> list[gs.Node]:
    """The nodes to quantize, in graph order; keys in `exclude` stay in float, and with them glue that only they
    connect.
    """
    chosen = {ir.node_key(node) for node in contractions(model)} - exclude
    captured = ir.captured(model)
    outputs = {tensor.name for tensor in model.graph.outputs}
    for node in model.graph.nodes:
        if (
            ir.node_key(node) not in exclude
            and _glue(node, captured, outputs)
            and _behind(node, chosen)
            and not _closes_island(node, chosen)
        ):
            chosen.add(ir.node_key(node))
    useful = _before_contractions(model, chosen)
    fixed = captured | outputs
    for node in model.graph.nodes:
        key = ir.node_key(node)
        if key in chosen - useful and not _is_contraction(node) and not _free(node, chosen, fixed):
            chosen.discard(key)
    return [node for node in model.graph.nodes if ir.node_key(node) in chosen]


def clamped(chosen: Sequence[gs.Node]) -> frozenset[str]:
    """Names of tensors that the saturation of their QuantizeLinear clamps: chosen clamps behind chosen contractions."""
    return frozenset(node.inputs[0].name for node in chosen if node.op in CLAMPS)


def _is_contraction(node: gs.Node) -> bool:
    if node.op not in CONTRACTIONS or ir.domain(node) or len(node.inputs) < 2:
        return False
    weight = ir.constant(node.inputs[1])
    if weight is None or weight.dtype != np.float32 or weight.size == 0 or ir.constant(node.inputs[0]) is not None:
        return False
    if any(tensor.dtype != np.float32 for tensor in (node.inputs[0], node.outputs[0])):
        return False
    if node.op == "Gemm":
        return not node.attrs.get("transA", 0) and _constant_bias(node) and _gemm_bias_fits(node)
    return weight.ndim == 2 if node.op == "MatMul" else _constant_bias(node)


def _constant_bias(node: gs.Node) -> bool:
    return len(node.inputs) < 3 or not node.inputs[2].name or ir.constant(node.inputs[2]) is not None


def _gemm_bias_fits(node: gs.Node) -> bool:
    """The 8-bit kernel wants a bias of one value a column, scaled as the products are."""
    if len(node.inputs) < 3 or not node.inputs[2].name:
        return True
    weight, bias = ir.constant(node.inputs[1]), ir.constant(node.inputs[2])
    columns = weight.shape[0 if node.attrs.get("transB", 0) else 1] if weight is not None else 0
    plain = node.attrs.get("alpha", 1.0) == 1.0 and node.attrs.get("beta", 1.0) == 1.0
    return plain and bias is not None and bias.shape in ((columns,), (1, columns))


def _glue(node: gs.Node, captured: set[str], outputs: set[str]) -> bool:
    if ir.domain(node) or any(tensor.name in captured for tensor in (*node.inputs, *node.outputs)):
        return False
    if node.op in CLAMPS and node.inputs[0].name in outputs:
        return False  # the quantizer would give the output the range after the clamp
    if node.op == "Clip":
        return _clip_saturates(node)
    if node.op == "Gather":
        return ir.constant(node.inputs[0]) is None and ir.constant(node.inputs[1]) is not None
    if node.op == "Pad":
        return _pads_with_zero(node)
    if node.op == "Resize":
        return bool(node.attrs.get("mode", "nearest") == "nearest")
    if node.op == "MaxPool":
        return len([tensor for tensor in node.outputs if tensor.name]) == 1
    if node.op == "AveragePool":
        return _pools_to_one(node)
    return node.op == "Relu" or node.op in MOVEMENT or node.op in ARITHMETIC or scaling.is_scaling(node)


def _clip_saturates(node: gs.Node) -> bool:
    """Saturation does the work of a Clip only when zero, which every 8-bit range holds, lies between its bounds."""
    bounds = [
        ir.constant(tensor) if tensor.name else None for tensor in (*node.inputs[1:3], *[gs.Variable.empty()] * 2)
    ][:2]
    given = [bool(tensor.name) for tensor in node.inputs[1:3]]
    if any(there and bound is None for there, bound in zip(given, bounds, strict=False)):
        return False
    low, high = bounds
    return (low is None or float(low) <= 0) and (high is None or float(high) > 0)


def _pads_with_zero(node: gs.Node) -> bool:
    if node.attrs.get("mode", "constant") != "constant" or len(node.inputs) < 3 or not node.inputs[2].name:
        return True
    value = ir.constant(node.inputs[2])
    return value is not None and float(value.reshape(-1)[0]) == 0.0


def _pools_to_one(node: gs.Node) -> bool:
    """The 8-bit average pool is slow except over whole images."""
    shape = node.outputs[0].shape
    return shape is not None and len(shape) > 2 and all(size == 1 for size in shape[2:])


def _behind(node: gs.Node, chosen: set[str]) -> bool:
    """An 8-bit node wrote one of its activations; the others are cheaper to quantize than this one to dequantize."""
    inputs = data_inputs(node)
    if any(tensor.dtype != np.float32 for tensor in inputs):
        return False
    sources = [ir.producer(tensor) for tensor in inputs]
    return any(source is not None and ir.node_key(source) in chosen for source in sources)


def _closes_island(node: gs.Node, chosen: set[str]) -> bool:
    """An operand as large as the result comes out of float operators that start from 8-bit tensors, as in a GELU: such
    a node in 8 bits would put one more pair of conversions in the middle of them, and break their fusion.
    """
    if node.op not in ("Add", "Mul") or len(data_inputs(node)) < 2:
        return False
    return any(
        tensor.shape == node.outputs[0].shape and _floats_from(tensor, chosen, _FLOATS_BETWEEN)
        for tensor in data_inputs(node)
    )


def _floats_from(tensor: gs.Tensor, chosen: set[str], steps: int) -> bool:
    source = ir.producer(tensor)
    if source is None or ir.node_key(source) in chosen or source.op in CONTRACTIONS or source.op in NORMALIZATIONS:
        return False
    for before in source.inputs:
        maker = ir.producer(before)
        if maker is not None and (ir.node_key(maker) in chosen or (steps and _floats_from(before, chosen, steps - 1))):
            return True
    return False


def _before_contractions(model: ir.Model, chosen: set[str]) -> set[str]:
    """Keys of chosen nodes whose results reach a chosen contraction through chosen glue, and of those contractions."""
    useful: set[str] = set()
    for node in reversed(model.graph.nodes):
        key = ir.node_key(node)
        if key in chosen:
            readers = (ir.node_key(reader) for tensor in node.outputs for reader in ir.consumers(tensor))
            if _is_contraction(node) or any(reader in useful for reader in readers):
                useful.add(key)
    return useful


def _free(node: gs.Node, chosen: set[str], fixed: set[str]) -> bool:
    """Costs no precision behind its 8-bit producer: movement, or a clamp that the producer absorbs."""
    source = node.inputs[0]
    maker = ir.producer(source)
    if maker is None or ir.node_key(maker) not in chosen:
        return False
    if node.op in CLAMPS:
        at_tail = node.outputs[0].name in fixed  # there a Gemm writes float, for precision
        absorbs = maker.op == "Conv" or (maker.op == "Gemm" and not at_tail)
        return absorbs and len(ir.consumers(source)) == 1 and source.name not in fixed
    return node.op in MOVEMENT
