"""Builds valid ONNX models node by node, in the form that the chosen opset wants.

Shapes are tracked here, by the operator specification, and never read from the code under test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, NamedTuple, Protocol

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

NEWEST_OPSET = min(26, onnx.defs.onnx_opset_version())  # what ONNX Runtime 1.27 and later take


class Chooser(Protocol):
    """Makes every structural choice of a random graph."""

    def integer(self, low: int, high: int) -> int:
        """A number from low to high, both included."""


class SeededChooser:
    """Choices from a seed: a failing graph is reproduced by its number."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def integer(self, low: int, high: int) -> int:
        return int(self._rng.integers(low, high + 1))


class Value(NamedTuple):
    """A tensor that later nodes may read."""

    name: str
    shape: tuple[int, ...]


class Builder:
    """A model under construction. `live` holds the tensors that steps may read."""

    def __init__(self, choose: Chooser, opset: int) -> None:
        self.choose, self.opset = choose, opset
        self.rng = np.random.default_rng(choose.integer(0, 2**16))
        self.live: list[Value] = []
        self.inputs: list[Value] = []
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def pick(self, options: Sequence[Any]) -> Any:
        return options[self.choose.integer(0, len(options) - 1)]

    def flag(self) -> bool:
        return bool(self.choose.integer(0, 1))

    def input(self, *shape: int) -> Value:
        value = Value(f"x{len(self.inputs)}", shape)
        self.inputs.append(value)
        self.live.append(value)
        return value

    def weight(self, *shape: int, fan_in: int = 0, offset: float = 0.0) -> str:
        """Random float weights; with `offset` they lie in offset..offset + 1."""
        scale = 1 / math.sqrt(fan_in) if fan_in else 1.0
        values = self.rng.random(shape) + offset if offset else self.rng.standard_normal(shape) * scale
        return self.constant(values.astype(np.float32), "w")

    def ints(self, values: Sequence[int]) -> str:
        return self.constant(np.asarray(values, np.int64), "i")

    def constant(self, values: np.ndarray, stem: str = "k") -> str:
        name = f"{stem}{len(self.constants)}"
        self.constants[name] = values
        return name

    def op(self, op: str, inputs: Sequence[str | Value], shape: Sequence[int], **attrs: Any) -> Value:
        """A node with one output of this shape."""
        return self.ops(op, inputs, [shape], **attrs)[0]

    def ops(self, op: str, inputs: Sequence[str | Value], shapes: Sequence[Sequence[int]], **attrs: Any) -> list[Value]:
        """A node with one output for each shape."""
        names = [each.name if isinstance(each, Value) else each for each in inputs]
        outputs = [Value(f"t{len(self.nodes)}_{k}", tuple(s)) for k, s in enumerate(shapes)]
        node = helper.make_node(op, names, [o.name for o in outputs], **attrs)
        self.nodes.append(node)
        return outputs

    def unary(self, op: str, x: Value, **attrs: Any) -> Value:
        return self.op(op, [x], x.shape, **attrs)

    def binary(self, op: str, a: Value | str, b: Value | str, shape: Sequence[int]) -> Value:
        return self.op(op, [a, b], shape)

    # Operators whose parameters moved from attributes to inputs.

    def reshape(self, x: Value, target: Sequence[int], shape: Sequence[int]) -> Value:
        """`target` may hold 0 and -1, `shape` is what comes out."""
        return self.op("Reshape", [x, self.ints(target)], shape)

    def reduce(self, op: str, x: Value, axes: Sequence[int], keepdims: bool = True) -> Value:
        positive = {a % len(x.shape) for a in axes}
        shape = [1 if a in positive else n for a, n in enumerate(x.shape) if keepdims or a not in positive]
        if self.opset >= (13 if op == "ReduceSum" else 18):
            return self.op(op, [x, self.ints(axes)], shape, keepdims=int(keepdims))
        return self.op(op, [x], shape, axes=list(axes), keepdims=int(keepdims))

    def squeeze(self, op: str, x: Value, axes: Sequence[int], shape: Sequence[int]) -> Value:
        """Squeeze or Unsqueeze."""
        if self.opset >= 13:
            return self.op(op, [x, self.ints(axes)], shape)
        return self.op(op, [x], shape, axes=list(axes))

    def split(self, x: Value, sizes: Sequence[int], axis: int, *, explicit: bool) -> list[Value]:
        """`explicit` writes the sizes; otherwise they are equal and implied."""
        place = axis % len(x.shape)
        shapes = [(*x.shape[:place], n, *x.shape[place + 1 :]) for n in sizes]
        if not explicit:
            count = {"num_outputs": len(sizes)} if self.opset >= 18 else {}
            return self.ops("Split", [x], shapes, axis=axis, **count)
        if self.opset >= 13:
            return self.ops("Split", [x, self.ints(sizes)], shapes, axis=axis)
        return self.ops("Split", [x], shapes, axis=axis, split=list(sizes))

    def slice(self, x: Value, axis: int, start: int, end: int, step: int = 1) -> Value:
        place = axis % len(x.shape)
        count = len(range(x.shape[place])[slice(start, None if step < 0 and end < -x.shape[place] else end, step)])
        shape = (*x.shape[:place], count, *x.shape[place + 1 :])
        if self.opset < 10:
            return self.op("Slice", [x], shape, axes=[axis], starts=[start], ends=[end])
        parameters = [self.ints([v]) for v in ((start, end, axis) if step == 1 else (start, end, axis, step))]
        return self.op("Slice", [x, *parameters], shape)

    def pad(self, x: Value, axis: int, before: int, after: int, value: float) -> Value:
        rank, shape = len(x.shape), list(x.shape)
        shape[axis] += before + after
        pads = [0] * (2 * rank)
        pads[axis], pads[rank + axis] = before, after
        if self.opset < 11:
            return self.op("Pad", [x], shape, pads=pads, value=value)
        fill = self.constant(np.asarray(value, np.float32))
        if self.opset >= 18 and self.flag():
            return self.op("Pad", [x, self.ints([before, after]), fill, self.ints([axis - rank])], shape)
        return self.op("Pad", [x, self.ints(pads), fill], shape)

    def clip(self, x: Value, low: float, high: float) -> Value:
        if self.opset < 11:
            return self.unary("Clip", x, min=low, max=high)
        bounds = [self.constant(np.asarray(v, np.float32)) for v in (low, high)]
        return self.op("Clip", [x, *bounds], x.shape)

    def upsample(self, x: Value) -> Value:
        """Nearest, twice the height and width, by scales or by sizes."""
        n, c, h, w = x.shape
        scales = self.constant(np.asarray([1, 1, 2, 2], np.float32))
        if self.opset < 10:
            return self.op("Upsample", [x, scales], (n, c, 2 * h, 2 * w), mode="nearest")
        if self.opset == 10:
            return self.op("Resize", [x, scales], (n, c, 2 * h, 2 * w), mode="nearest")
        modes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor", "mode": "nearest"}
        roi = "" if self.opset >= 13 else self.constant(np.zeros(0, np.float32))
        if self.flag():
            scales_slot = "" if self.opset >= 13 else self.constant(np.zeros(0, np.float32))
            sizes = self.ints([n, c, 2 * h, 2 * w])
            return self.op("Resize", [x, roi, scales_slot, sizes], (n, c, 2 * h, 2 * w), **modes)
        return self.op("Resize", [x, roi, scales], (n, c, 2 * h, 2 * w), **modes)

    def finish(self, outputs: Sequence[Value], symbols: Sequence[str] = ()) -> onnx.ModelProto:
        """The model, without nodes, weights and inputs that no output needs.

        `symbols` takes the place of the inputs' leading sizes, except where a name is empty; outputs then declare
        nothing but their rank.
        """
        needed, nodes = {o.name for o in outputs}, []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                nodes.append(node)

        def info(value: Value, dims: Sequence[int | str | None]) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(value.name, TensorProto.FLOAT, dims)

        graph = helper.make_graph(
            nodes[::-1],
            "random",
            [
                info(v, [name or size for name, size in zip_longest(symbols, v.shape)])
                for v in self.inputs
                if v.name in needed
            ],
            [info(v, [None] * len(v.shape) if symbols else v.shape) for v in outputs],
            [numpy_helper.from_array(v, n) for n, v in self.constants.items() if n in needed],
        )
        imports = [helper.make_opsetid(d, 1) for d in sorted({n.domain for n in nodes} - {""})]
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset), *imports], ir_version=8)
