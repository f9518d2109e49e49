"""The node tests of onnx as proofs of rules: every float input is made by weights, one output axis is summed away.

A node test feeds an operator from graph inputs, so everything about it is pinned. Here each axis of each float input
comes out of a product with an identity matrix, which produces its elements and changes no value, and one axis of one
output goes into a product with a drawn matrix, which contracts it. Whatever a rule lets vary between the two is pruned
and must equal masking.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MOST_ELEMENTS = 20_000


@dataclass(frozen=True)
class Wrapped:
    """One output axis of one node test; `feeds` are the test's own inputs."""

    name: str
    model: onnx.ModelProto
    feeds: dict[str, np.ndarray]


def wrapped(case: Any) -> Iterator[Wrapped]:
    """All wrapped forms of a node test: constant parameters only where they are integers, or in all but one slot."""
    if case.model is None or not case.data_sets or len(case.model.graph.node) != 1:
        return
    inputs, outputs = case.data_sets[0]
    if not all(isinstance(value, np.ndarray) and value.size <= MOST_ELEMENTS for value in (*inputs, *outputs)):
        return
    given = dict(zip((t.name for t in case.model.graph.input), inputs, strict=True))
    floats = [name for name, value in given.items() if value.dtype == np.float32]
    variants = [floats] if len(floats) < 2 else [floats, floats[:1]]
    for activations in variants:
        for slot, value in enumerate(outputs):
            if value.dtype == np.float32:
                for axis in range(value.ndim):
                    if value.shape[axis] > 1:
                        yield _wrap(case, given, activations, slot, value, axis)


def _wrap(
    case: Any, given: dict[str, np.ndarray], activations: list[str], slot: int, value: np.ndarray, axis: int
) -> Wrapped:
    graph = case.model.graph
    node = onnx.NodeProto()
    node.CopyFrom(graph.node[0])
    nodes: list[onnx.NodeProto] = []
    constants = [numpy_helper.from_array(v, n) for n, v in given.items() if n not in activations]
    for name in activations:
        made = name
        for place, size in enumerate(given[name].shape):
            made = _product(nodes, constants, made, place, np.eye(size, dtype=np.float32), given[name].ndim)
        node.input[:] = [made if each == name else each for each in node.input]
    nodes.append(node)
    width = value.shape[axis]
    matrix = np.random.default_rng(width).standard_normal((width, 3)).astype(np.float32)
    result = _product(nodes, constants, graph.output[slot].name, axis, matrix, value.ndim)
    shape = [3 if place == axis else size for place, size in enumerate(value.shape)]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            case.name,
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, given[n].shape) for n in activations],
            [helper.make_tensor_value_info(result, TensorProto.FLOAT, shape)],
            constants,
            value_info=list(graph.output),
        ),
        opset_imports=list(case.model.opset_import),
        ir_version=case.model.ir_version,
    )
    feeds = {name: given[name] for name in activations}
    return Wrapped(f"{case.name}/{len(activations)}/{graph.output[slot].name}:{axis}", model, feeds)


def _product(
    nodes: list[onnx.NodeProto],
    constants: list[onnx.TensorProto],
    x: str,
    axis: int,
    matrix: np.ndarray,
    rank: int,
) -> str:
    """Appends a product of one axis with a matrix, behind and before a transposition to the end where it needs one."""
    stem = f"{x}.{len(nodes)}"
    order = [a for a in range(rank) if a != axis] + [axis]
    back = [order.index(a) for a in range(rank)]
    moved, product, result = f"{stem}.moved", f"{stem}.product", f"{stem}.made"
    constants.append(numpy_helper.from_array(matrix, f"{stem}.matrix"))
    nodes.append(helper.make_node("Transpose", [x], [moved], perm=order))
    nodes.append(helper.make_node("MatMul", [moved, f"{stem}.matrix"], [product]))
    nodes.append(helper.make_node("Transpose", [product], [result], perm=back))
    return result
