"""Synthetic models of any size, for the time that large graphs take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Parts = tuple[list[onnx.NodeProto], list[onnx.TensorProto]]

WIDTH = 8
BLOCKS = 12
CHANNELS = 8


def _weight(rng: np.random.Generator, name: str, *shape: int) -> onnx.TensorProto:
    """Random values, so that no two weights are the same and none can be shared."""
    return numpy_helper.from_array(rng.standard_normal(shape, np.float32) * 0.1, name)


def _model(parts: Parts, shape: Sequence[int | str]) -> onnx.ModelProto:
    """Input x and output y of one shape."""
    nodes, weights = parts
    nodes[-1].output[0] = "y"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "scale", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def chain(nodes: int) -> onnx.ModelProto:
    """Residual blocks of MatMul, Relu, MatMul and Add on 8 features: `nodes` nodes, a group of 8 units a block."""
    rng, last = np.random.default_rng(0), "x"
    made: Parts = ([], [])
    for k in range(nodes // 4):
        made[1].extend([_weight(rng, f"a{k}", WIDTH, WIDTH), _weight(rng, f"b{k}", WIDTH, WIDTH)])
        made[0].extend(
            [
                helper.make_node("MatMul", [last, f"a{k}"], [f"h{k}"]),
                helper.make_node("Relu", [f"h{k}"], [f"r{k}"]),
                helper.make_node("MatMul", [f"r{k}", f"b{k}"], [f"m{k}"]),
                helper.make_node("Add", [last, f"m{k}"], [f"s{k}"]),
            ]
        )
        last = f"s{k}"
    return _model(made, ["N", WIDTH])


def hidden(size: int) -> onnx.ModelProto:
    """Twelve feed-forward blocks on 8 features with `size` hidden units, which are split, gated and joined again."""
    rng, last = np.random.default_rng(0), "x"
    made: Parts = ([], [])
    for k in range(BLOCKS):
        made[1].extend([_weight(rng, f"a{k}", WIDTH, size), _weight(rng, f"b{k}", size, WIDTH)])
        made[1].append(_weight(rng, f"g{k}", size // 2))
        made[0].extend(
            [
                helper.make_node("MatMul", [last, f"a{k}"], [f"h{k}"]),
                helper.make_node("Split", [f"h{k}"], [f"p{k}", f"q{k}"], axis=-1, num_outputs=2),
                helper.make_node("Mul", [f"p{k}", f"g{k}"], [f"t{k}"]),
                helper.make_node("Concat", [f"q{k}", f"t{k}"], [f"c{k}"], axis=-1),
                helper.make_node("MatMul", [f"c{k}", f"b{k}"], [f"m{k}"]),
                helper.make_node("Add", [last, f"m{k}"], [f"s{k}"]),
            ]
        )
        last = f"s{k}"
    return _model(made, ["N", WIDTH])


def convolutions(nodes: int) -> onnx.ModelProto:
    """Conv, BatchNormalization, Identity and Relu in a chain: `nodes` nodes, half of which canonicalisation removes."""
    rng, last = np.random.default_rng(0), "x"
    made: Parts = ([], [])
    for k in range(nodes // 4):
        statistics = [f"{part}{k}" for part in ("scale", "bias", "mean", "variance")]
        made[1].append(_weight(rng, f"w{k}", CHANNELS, CHANNELS, 1, 1))
        made[1].extend(
            numpy_helper.from_array(rng.uniform(0.5, 1.5, CHANNELS).astype(np.float32), name) for name in statistics
        )
        made[0].extend(
            [
                helper.make_node("Conv", [last, f"w{k}"], [f"c{k}"]),
                helper.make_node("BatchNormalization", [f"c{k}", *statistics], [f"n{k}"]),
                helper.make_node("Identity", [f"n{k}"], [f"i{k}"]),
                helper.make_node("Relu", [f"i{k}"], [f"r{k}"]),
            ]
        )
        last = f"r{k}"
    return _model(made, ["N", CHANNELS, 4, 4])


MODELS: Mapping[str, Callable[[int], onnx.ModelProto]] = {
    "chain": chain,
    "hidden": hidden,
    "convolutions": convolutions,
}
