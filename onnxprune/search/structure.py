"""What the latency of a whole model depends on, as a digest: operators, attributes, shapes and types, not weights.

Names do not count, so that two models with the same structure share their looks whatever their tensors are called. Of
constants only small int64 ones count by their values: they are shapes, axes and split sizes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

MOST_VALUES = 1024  # of an int64 constant: larger ones are tables, not shapes


def structure(path: Path) -> str:
    """A readable head (node counts of the commonest operators) and a digest of the whole."""
    proto = onnx.load(str(path), load_external_data=False)
    lines = [str(sorted((entry.domain, entry.version) for entry in proto.opset_import))]
    lines += _graph_lines(proto.graph, {})
    for function in sorted(proto.functions, key=lambda f: (f.domain, f.name)):
        lines.append(f"function {function.domain}.{function.name}")
        lines += _node_lines(function.node, {}, {})
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    counts = Counter(node.op_type for node in proto.graph.node)
    common = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:3]
    return f"{'+'.join(f'{count}{op}' for op, count in common)} {digest}"


def _graph_lines(graph: onnx.GraphProto, outer: dict[str, int]) -> Iterator[str]:
    """`outer`: numbers of the tensors that a subgraph sees from outside."""
    number = dict(outer)
    constants = {tensor.name: _constant_text(tensor) for tensor in graph.initializer}
    for value in graph.input:
        yield f"input {_number(number, value.name)} {_type_text(value.type)}"
    yield from _node_lines(graph.node, number, constants)
    yield f"outputs {[_number(number, value.name) for value in graph.output]}"


def _node_lines(nodes: Iterable[onnx.NodeProto], number: dict[str, int], constants: dict[str, str]) -> Iterator[str]:
    for node in nodes:
        inputs = [(_number(number, name), constants.get(name, "")) for name in node.input]
        outputs = [_number(number, name) for name in node.output]
        yield f"{node.domain}.{node.op_type} {inputs} {outputs}"
        for attribute in sorted(node.attribute, key=lambda a: a.name):
            graphs = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs
            if graphs:
                yield f" {attribute.name}:"
                for graph in graphs:
                    yield from _graph_lines(graph, number)
            elif attribute.type == onnx.AttributeProto.TENSOR:
                yield f" {attribute.name}={_constant_text(attribute.t)}"
            else:
                yield f" {attribute.name}={attribute.SerializeToString(deterministic=True).hex()}"


def _number(number: dict[str, int], name: str) -> int:
    return number.setdefault(name, len(number)) if name else -1


def _constant_text(tensor: onnx.TensorProto) -> str:
    text = f"{tensor.data_type}{list(tensor.dims)}"
    inside = tensor.data_location != onnx.TensorProto.EXTERNAL
    if tensor.data_type == onnx.TensorProto.INT64 and inside and np.prod(tensor.dims, dtype=np.int64) <= MOST_VALUES:
        text += str(numpy_helper.to_array(tensor).tolist())
    return text


def _type_text(kind: onnx.TypeProto) -> str:
    shape = kind.tensor_type.shape.dim
    return f"{kind.tensor_type.elem_type}{[d.dim_value if d.HasField('dim_value') else '?' for d in shape]}"
