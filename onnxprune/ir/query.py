"""Questions about a model that passes and analyses ask again and again. Tensors are known by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx_graphsurgeon as gs

from onnxprune.ir import captures
from onnxprune.ir.bodies import all_nodes, graphs
from onnxprune.ir.model import Model
from onnxprune.ir.stored import densify


def tensors(model: Model) -> dict[str, gs.Tensor]:
    """Every named tensor, in the order of first use."""
    return {tensor.name: tensor for tensor in model.all_tensors()}


def initializers(model: Model) -> dict[str, gs.Constant]:
    """Every initializer, in the order of first use."""
    return {tensor.name: tensor for tensor in model.all_tensors() if isinstance(tensor, gs.Constant)}


def constant(tensor: gs.Tensor) -> np.ndarray | None:
    """The values of an initializer or a Constant node's output; None for the rest, overridable initializers too."""
    if isinstance(tensor, gs.Constant):
        return None if getattr(tensor, "overridable", False) else np.asarray(tensor.values)
    node = producer(tensor)
    if node is None or node.op != "Constant" or domain(node):
        return None
    return _node_value(node)


def producer(tensor: gs.Tensor) -> gs.Node | None:
    """The node that writes the tensor."""
    return tensor.inputs[0] if tensor.inputs else None


def consumers(tensor: gs.Tensor) -> list[gs.Node]:
    """The nodes that read the tensor, each once. Subgraphs that capture it are not among them: see `captured`."""
    return list({id(node): node for node in tensor.outputs}.values())


def attribute(node: gs.Node, name: str, default: Any = None) -> Any:
    """The attribute's value, or the default when the node does not have it."""
    return node.attrs.get(name, default)


def domain(node: gs.Node) -> str:
    """The node's domain; "" for the standard one however it is spelt."""
    return "" if node.domain in (None, "", "ai.onnx") else str(node.domain)


def captured(model: Model) -> set[str]:
    """Names of outer tensors used inside subgraph attributes. They are live, and their shapes are fixed."""
    return captures.of_nodes(model.graph.nodes)


def has_subgraph(node: gs.Node) -> bool:
    """Whether the node carries a graph as an attribute (If, Loop, Scan, SequenceMap)."""
    return next(captures.subgraphs(node), None) is not None


def node_key(node: gs.Node) -> str:
    """What identifies a node: its first output that has a name."""
    return next((str(tensor.name) for tensor in node.outputs if tensor.name), "")


def feed_inputs(model: Model) -> list[gs.Variable]:
    """Graph inputs that have to be fed: those without a default value."""
    return [tensor for tensor in model.graph.inputs if not isinstance(tensor, gs.Constant)]


def freeze_initializers(model: Model) -> None:
    """Makes overridable initializers plain constants: they stop being graph inputs."""
    for tensor in model.graph.inputs:
        if isinstance(tensor, gs.Constant):
            tensor.overridable = False
            if not tensor.outputs:
                model.loose[tensor.name] = tensor
    model.graph.inputs = feed_inputs(model)


def parameters(model: Model) -> int:
    """Number of elements of all weights: floating-point initializers and Constant nodes, and 4- and 8-bit ones.

    Shapes, indices and other integers are not counted. Weights inside functions are not seen, those of subgraphs are.
    """
    return sum(math.prod(shape) for shape in weight_shapes(model).values())


def weight_shapes(model: Model) -> dict[str, tuple[int, ...]]:
    """The shape of every weight that `parameters` counts, by tensor."""
    held = {
        name: (tensor.dtype, tensor.shape) for graph in graphs(model) for name, tensor in initializers(graph).items()
    }
    for node in all_nodes(model):
        value = _node_value(node) if node.op == "Constant" and not domain(node) else None
        if value is not None:
            held[node_key(node)] = (value.dtype, value.shape)
    return {name: tuple(shape) for name, (dtype, shape) in held.items() if _is_weight(np.dtype(dtype))}


def _is_weight(dtype: np.dtype[np.generic]) -> bool:
    # ml_dtypes are of kind V; all of them are small floats or integers
    return dtype.kind in "fcV" or (dtype.kind in "iu" and dtype.itemsize == 1)


_SCALARS = {"value_float": np.float32, "value_int": np.int64, "value_floats": np.float32, "value_ints": np.int64}


def _node_value(node: gs.Node) -> np.ndarray | None:
    for name, value in node.attrs.items():
        if name == "value" and isinstance(value, onnx.TensorProto):
            return np.asarray(onnx.numpy_helper.to_array(value))
        if name in _SCALARS:
            plain: Sequence[Any] | Any = [] if isinstance(value, onnx.AttributeProto) else value
            return np.asarray(plain, dtype=_SCALARS[name])
        if name in ("value_string", "value_strings") and not isinstance(value, onnx.AttributeProto):
            return np.asarray(value, dtype=object)
        if name == "sparse_value":
            return densify(value.sparse_tensor)
    return None
