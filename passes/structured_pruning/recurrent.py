"""Takes the products of inputs out of recurrent layers, where weights can be fitted to them.

What LSTM, GRU and RNN do with their input is one product with W for all steps at once, in front of the recurrence:
gates(t) = x(t) W^T + h(t-1) R^T + b (ONNX operators LSTM, GRU, RNN). In the open form it is a MatMul, and the layer
reads its result through an identity. What was fitted goes back into W and b. R, whose columns depend on itself, stays.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.channels import AxisKey, Contraction
from onnxprune.channels.rules.recurrence import GATES
from onnxprune.stats import Product
from onnxprune.stats.arrays import Array
from passes.edits import is_standard
from passes.structured_pruning.splice import adopt

_WIDEST = 4096  # gates of all directions: the identity has their square
_BROADCASTS = 7  # the opset from which Add does
_MADE = ("rows", "matrix", "product", "gates", "sizes", "shift", "identity")


def opened(model: ir.Model) -> ir.Model:
    """A copy with the input products of recurrent layers in the open; the model itself where it has none. Names of
    tensors and keys of nodes stay.
    """
    if next(_layers(model), None) is None:
        return model
    copy = model.copy()
    for node, weight, bias in list(_layers(copy)):
        place = next(index for index, each in enumerate(copy.graph.nodes) if each is node)
        copy.graph.nodes[place:place] = _in_front(node, weight, bias)
    ir.infer_shapes(copy)
    return copy


def give_back(model: ir.Model, form: ir.Model) -> None:
    """Gives a model what was fitted in an open form of it (`opened`), whose branches may be spliced too."""
    if form is not model:
        _close(form)
        adopt(model, form)


def slices(dense: ir.Model, removed: Mapping[AxisKey, Array]) -> dict[AxisKey, Array]:
    """What leaves the axes of the open form of ``dense`` where ``removed`` leaves those of ``dense``."""
    found = dict(removed)
    for _, weight, _ in _layers(dense):
        name, (directions, rows, _) = weight.name, weight.values.shape
        if (name, 2) in removed:
            found[(f"{name}.matrix", 0)] = removed[(name, 2)]
        if (name, 1) in removed:
            gone = (rows * np.arange(directions)[:, None] + removed[(name, 1)]).reshape(-1)
            found |= {(f"{name}.{made}", axis): gone for made, axis in (("matrix", 1), ("product", 2), ("gates", 2))}
    return found


def product_key(contraction: Contraction, found: Mapping[str, Product]) -> str:
    """The key in ``found``, the products of an open form, of the one with this weight; empty where none is."""
    own = found.get(contraction.node)
    if own is not None and own.weight == contraction.tensor:
        return contraction.node
    name = f"{contraction.tensor}.product"
    return name if name in found else ""


def as_matrix(weight: Array) -> Array:
    """W of a layer, (directions, gates * hidden, inputs), as its product has it: (inputs, all gates)."""
    return weight.reshape(-1, weight.shape[2]).T


def _close(fitted: ir.Model) -> None:
    """Moves what was added to the gates of an open form into b: then all constants that the model it was made of has
    too hold what was fitted.
    """
    values = ir.initializers(fitted)
    for _, weight, bias in _layers(fitted):
        shift = values.get(f"{weight.name.removesuffix('.identity')}.shift")
        if bias is not None and shift is not None:
            halves = bias.values.reshape(len(bias.values), 2, -1)  # that of W, that of R
            added = np.pad(shift.values.reshape(len(halves), 1, -1), ((0, 0), (0, 1), (0, 0)))
            bias.values = (halves + added).reshape(bias.values.shape)
            shift.values = np.zeros_like(shift.values)


def _layers(model: ir.Model) -> Iterator[tuple[ir.Node, ir.Constant, ir.Constant | None]]:
    """Recurrent layers with W, and b where there is one, that nothing else reads and no caller can set."""
    nodes = [node for node in model.graph.nodes if is_standard(node, *GATES)]
    if not nodes or model.opset() < _BROADCASTS:
        return
    names = {tensor.name for tensor in model.all_tensors()}
    fixed = {tensor.name for tensor in (*model.graph.inputs, *model.graph.outputs)} | ir.captured(model)

    def own(tensor: gs.Tensor) -> bool:
        return isinstance(tensor, gs.Constant) and len(tensor.outputs) == 1 and tensor.name not in fixed

    for node in nodes:
        weight, bias = node.inputs[1], node.inputs[3] if len(node.inputs) > 3 and node.inputs[3].name else None
        free = own(weight) and (bias is None or own(bias)) and not {f"{weight.name}.{part}" for part in _MADE} & names
        if free and np.dtype(weight.dtype).kind == "f" and math.prod(weight.shape[:2]) <= _WIDEST:
            yield node, weight, bias


def _in_front(node: ir.Node, weight: ir.Constant, bias: ir.Constant | None) -> list[ir.Node]:
    """The product of a layer's input, which the layer reads from now on; shifted by zeros where there is a b to keep
    the shift that is fitted.
    """
    name, dtype, (directions, rows, columns) = weight.name, weight.dtype, weight.values.shape
    width = directions * rows
    names = [f"{name}.{part}" for part in _MADE]
    flat, matrix, product, gates = (ir.Variable(made, dtype) for made in names[:4])
    sizes, shift = ir.Constant(names[4], np.array([width, columns])), ir.Constant(names[5], np.zeros(width, dtype))
    identity = ir.Constant(names[6], np.eye(width, dtype=dtype).reshape(directions, rows, width))
    found = [
        ir.Node("Reshape", flat.name, {}, [weight, sizes], [flat]),
        ir.Node("Transpose", matrix.name, {"perm": [1, 0]}, [flat], [matrix]),
        ir.Node("MatMul", product.name, {}, [node.inputs[0], matrix], [product]),
    ]
    if bias is not None:
        found.append(ir.Node("Add", gates.name, {}, [product, shift], [gates]))
    node.inputs[0], node.inputs[1] = found[-1].outputs[0], identity
    return found
