"""Puts a model into the body of an If, a Loop or a Scan of a new model, so that its weights live in a subgraph.

Each weight becomes an initializer of the body, a Constant node in it, or stays outside and is captured. Applied to its
own result, the bodies nest.
"""

from __future__ import annotations

import numpy as np
import onnx
from graph_builder import Chooser
from onnx import TensorProto, helper, numpy_helper
from random_graphs import random_model

SHAPES = ("if", "loop", "scan", "if loop", "loop if", "if scan", "if if", "scan if loop")
_TRIPS = 3


def random_nested(choose: Chooser, kinds: str, most: int) -> onnx.ModelProto:
    """A random network inside these subgraphs, the first one innermost."""
    model = random_model(choose, most, symbolic=False)
    for level, kind in enumerate(kinds.split()):
        model = nested(model, kind, choose, f"l{level}_")
    return model


def nested_feeds(model: onnx.ModelProto, rng: np.random.Generator, condition: bool) -> list[dict[str, np.ndarray]]:
    """One call with normal values; all conditions alike."""
    feeds = {}
    for info in model.graph.input:
        shape = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        boolean = info.type.tensor_type.elem_type == TensorProto.BOOL
        feeds[info.name] = np.asarray(condition) if boolean else rng.standard_normal(shape).astype(np.float32)
    return [feeds]


def nested(model: onnx.ModelProto, kind: str, choose: Chooser, level: str = "") -> onnx.ModelProto:
    """The model inside a subgraph of a new one. `level` tells the names of repeated nesting apart."""
    return {"if": _in_if, "loop": _in_loop, "scan": _in_scan}[kind](model, choose, level)


def _in_if(model: onnx.ModelProto, choose: Chooser, level: str) -> onnx.ModelProto:
    """Both branches hold the network, with the same names and other weights; inputs are captured behind an Abs."""
    condition = f"{level}condition"
    outer, outside = _capture(model.graph, level)
    branches = {}
    for scale, name in ((1.0, "then_branch"), (0.5, "else_branch")):
        graph = onnx.GraphProto(name=name)
        outer.initializer.extend(_placed(model.graph, graph, choose, outside, scale))
        graph.output.extend(model.graph.output)
        branches[name] = graph
    names = [f"{level}if_{info.name}" for info in model.graph.output]
    outer.node.append(helper.make_node("If", [condition], names, **branches))
    outer.input.append(helper.make_tensor_value_info(condition, TensorProto.BOOL, []))
    return _finished(model, outer, names, ())


def _in_loop(model: onnx.ModelProto, choose: Chooser, level: str) -> onnx.ModelProto:
    """Three trips; the first input is scaled by the state, the network's outputs are collected."""
    outer, outside = _capture(model.graph, level)
    body = onnx.GraphProto(name=f"{level}body")
    first = model.graph.input[0].name
    state, following, one = (f"{level}{name}" for name in ("state", "following", "one"))
    trip, go, on = (f"{level}{name}" for name in ("trip", "go", "on"))
    body.input.extend([_scalar(trip, TensorProto.INT64), _scalar(go, TensorProto.BOOL), _scalar(state)])
    body.node.append(helper.make_node("Mul", [f"{level}outer_{first}", state], [first]))
    outer.initializer.extend(_placed(model.graph, body, choose, outside))
    body.initializer.append(numpy_helper.from_array(np.float32(0.75), one))
    body.node.append(helper.make_node("Identity", [go], [on]))
    body.node.append(helper.make_node("Mul", [state, one], [following]))
    body.output.extend([_scalar(on, TensorProto.BOOL), _scalar(following), *model.graph.output])
    del outer.node[0]  # what the body computes itself
    names = [f"{level}loop_{info.name}" for info in model.graph.output]
    start, trips = f"{level}start", f"{level}trips"
    outer.initializer.append(numpy_helper.from_array(np.float32(1.0), start))
    outer.initializer.append(numpy_helper.from_array(np.int64(_TRIPS), trips))
    outer.node.append(helper.make_node("Loop", [trips, "", start], [f"{level}last", *names], body=body))
    return _finished(model, outer, names, (_TRIPS,))


def _in_scan(model: onnx.ModelProto, choose: Chooser, level: str) -> onnx.ModelProto:
    """The first input is a slice of a longer one; the others are captured."""
    outer, outside = _capture(model.graph, level)
    body = onnx.GraphProto(name=f"{level}body")
    first = model.graph.input[0]
    body.input.append(onnx.ValueInfoProto(name=first.name, type=first.type))
    outer.initializer.extend(_placed(model.graph, body, choose, outside))
    body.output.extend(model.graph.output)
    del outer.node[0]
    outer.input[0].type.tensor_type.shape.dim.insert(0, onnx.TensorShapeProto.Dimension(dim_value=_TRIPS))
    names = [f"{level}scan_{info.name}" for info in model.graph.output]
    outer.node.append(helper.make_node("Scan", [outer.input[0].name], names, body=body, num_scan_inputs=1))
    return _finished(model, outer, names, (_TRIPS,))


def _capture(graph: onnx.GraphProto, level: str) -> tuple[onnx.GraphProto, dict[str, bool]]:
    """An outer graph whose Abs nodes make what the inner one calls its inputs, and an empty record of `_placed`."""
    outer = onnx.GraphProto(name=f"{level}outer")
    for info in graph.input:
        outer.input.append(onnx.ValueInfoProto(name=f"{level}outer_{info.name}", type=info.type))
        op = "Not" if info.type.tensor_type.elem_type == TensorProto.BOOL else "Abs"
        outer.node.append(helper.make_node(op, [f"{level}outer_{info.name}"], [info.name]))
    return outer, {}


def _placed(
    source: onnx.GraphProto,
    target: onnx.GraphProto,
    choose: Chooser,
    outside: dict[str, bool],
    scale: float = 1.0,
) -> list[onnx.TensorProto]:
    """Copies nodes and weights into the body; returns the weights that stay outside. `outside` says which do: all
    bodies that use one agree.
    """
    kept = []
    for tensor in source.initializer:
        known = tensor.name in outside
        if outside.setdefault(tensor.name, choose.integer(0, 5) == 0):
            kept += [] if known else [tensor]
            continue
        values = numpy_helper.to_array(tensor)
        weight = tensor.name.startswith("w") and values.dtype.kind == "f"  # others are scales of Resize and the like
        fresh = numpy_helper.from_array((values * scale).astype(values.dtype) if weight else values)
        fresh.name = tensor.name
        if choose.integer(0, 1):
            target.node.append(helper.make_node("Constant", [], [tensor.name], value=fresh))
        else:
            target.initializer.append(fresh)
    target.node.extend(source.node)
    return kept


def _scalar(name: str, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, [])


def _finished(
    model: onnx.ModelProto, outer: onnx.GraphProto, names: list[str], prefix: tuple[int, ...]
) -> onnx.ModelProto:
    for name, info in zip(names, model.graph.output, strict=True):
        tensor = info.type.tensor_type
        shape = [*prefix, *(dim.dim_value for dim in tensor.shape.dim)]
        outer.output.append(helper.make_tensor_value_info(name, tensor.elem_type, shape))
    made = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, graph=outer)
    onnx.checker.check_model(made)
    return made
