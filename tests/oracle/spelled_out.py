"""Operators that ONNX Runtime has no CPU kernel for, written as standard operators, by their specification.

Names of tensors stay, so a plan for the original fits what comes out.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper, numpy_helper

RUNNABLE_OPSET = 21
AxisKey = tuple[str, int]


class Writer:
    """Takes the place of one node."""

    def __init__(self, model: onnx.ModelProto, node: onnx.NodeProto) -> None:
        self.model, self.node, self.made = model, node, 0
        self.nodes: list[onnx.NodeProto] = []
        self.same: dict[AxisKey, AxisKey] = {}
        self.attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}

    def slot(self, place: int) -> str:
        return self.node.input[place] if place < len(self.node.input) else ""

    def out(self, place: int) -> str:
        return self.node.output[place] if place < len(self.node.output) else ""

    def constant(self, values: np.ndarray) -> str:
        name = self._fresh("k")
        self.model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def emit(self, op: str, *inputs: str, out: str = "", **attributes: object) -> str:
        name = out or self._fresh("t")
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def _fresh(self, kind: str) -> str:
        self.made += 1
        return f"{self.node.output[0]}/{kind}{self.made}"


def _sum(w: Writer, out: str = "") -> str:
    """input + bias (+ residual)."""
    total = w.emit("Add", w.slot(0), w.slot(1), out="" if w.slot(2) else out)
    return w.emit("Add", total, w.slot(2), out=out) if w.slot(2) else total


def _bias_add(w: Writer) -> None:
    _sum(w, w.out(0))


def _bias_split_gelu(w: Writer) -> None:
    halves = [f"{w.out(0)}/half{k}" for k in range(2)]
    w.nodes.append(helper.make_node("Split", [w.emit("Add", w.slot(0), w.slot(1))], halves, axis=-1, num_outputs=2))
    w.emit("Mul", halves[0], w.emit("Gelu", halves[1]), out=w.out(0))


def _gemm_fast_gelu(w: Writer) -> None:
    y = w.emit("MatMul", w.slot(0), w.slot(1))
    y = w.emit("Add", y, w.slot(2)) if w.slot(2) else y
    w.emit("Gelu", y, out=w.out(0), approximate="tanh")


def _group_norm(w: Writer) -> None:
    """Channels last; SkipGroupNorm adds skip and bias first."""
    x = w.slot(0)
    if w.node.op_type == "SkipGroupNorm":
        x = w.emit("Add", x, w.slot(3))
        x = w.emit("Add", x, w.slot(4), out=w.out(1)) if w.slot(4) else x
    y = w.emit("Transpose", x, perm=[0, 3, 1, 2])
    w.same[y, 1] = (w.out(0), 3)
    epsilon, groups = w.attributes.get("epsilon", 1e-5), w.attributes["groups"]
    y = w.emit("GroupNormalization", y, w.slot(1), w.slot(2), num_groups=groups, epsilon=epsilon)
    if w.attributes.get("activation", 0):
        y = w.emit("Mul", y, w.emit("Sigmoid", y))
    w.emit("Transpose", y, perm=[0, 2, 3, 1], out=w.out(0))


def _channels_last_conv(w: Writer) -> None:
    turned = w.emit("Transpose", w.slot(0), perm=[0, 3, 1, 2])
    attributes = {k: v for k, v in w.attributes.items() if not k.startswith("activation")}
    y = w.emit("Conv", turned, *[name for name in (w.slot(1), w.slot(2)) if name], **attributes)
    y = w.emit("Transpose", y, perm=[0, 2, 3, 1], out="" if w.slot(3) else w.out(0))
    if w.slot(3):
        w.emit("Add", y, w.slot(3), out=w.out(0))


def _swiglu(w: Writer) -> None:
    w.emit("Mul", w.emit("Mul", w.slot(0), w.emit("Sigmoid", w.slot(0))), w.slot(1), out=w.out(0))


def _causal_convolution(w: Writer) -> None:
    weight = next(numpy_helper.to_array(t) for t in w.model.graph.initializer if t.name == w.slot(1))
    channels, _, width = weight.shape
    inputs = [w.slot(0), *[name for name in (w.slot(1), w.slot(2)) if name]]
    w.emit("Conv", *inputs, out=w.out(0), group=channels, pads=[width - 1, 0])


def _linear_attention(w: Writer) -> None:
    """update_rule=linear: the state sums key x value over all tokens so far, so outputs are masked products."""
    heads, kv_heads = w.attributes["q_num_heads"], w.attributes["kv_num_heads"]

    def apart(name: str, count: int, repeats: int) -> str:
        wide = w.emit("Reshape", name, w.constant(np.array([0, 0, count, -1])))
        turned = w.emit("Transpose", wide, perm=[0, 2, 1, 3])
        return w.emit("Gather", turned, w.constant(np.repeat(np.arange(count), repeats)), axis=1)

    repeats = heads // kv_heads
    q, k, v = apart(w.slot(0), heads, 1), apart(w.slot(1), kv_heads, repeats), apart(w.slot(2), kv_heads, repeats)
    scores = w.emit("Trilu", w.emit("MatMul", q, w.emit("Transpose", k, perm=[0, 1, 3, 2])), upper=0)
    scaled = w.emit("Mul", scores, w.constant(np.float32(w.attributes["scale"])))
    mixed = w.emit("Transpose", w.emit("MatMul", scaled, v), perm=[0, 2, 1, 3])
    w.emit("Reshape", mixed, w.constant(np.array([0, 0, -1])), out=w.out(0))


def _packed_attention(w: Writer) -> None:
    """(batch, length, heads, parts, size), taken apart for the form that has a kernel."""
    place = next(k for k in (0, 1) if len(w.node.input) == k + 1)
    parts = [f"{w.out(0)}/part{k}" for k in range(3 - place)]
    w.nodes.append(helper.make_node("Split", [w.slot(place)], parts, axis=3, num_outputs=len(parts)))
    flat = [w.emit("Reshape", part, w.constant(np.array([0, 0, -1]))) for part in parts]
    inputs = [*w.node.input[:place], *flat]
    w.nodes.append(helper.make_node(w.node.op_type, inputs, [w.out(0)], domain=w.node.domain, **w.attributes))


SPELLED: dict[str, Callable[[Writer], None]] = {
    "BiasAdd": _bias_add,
    "BiasDropout": _bias_add,
    "BiasSplitGelu": _bias_split_gelu,
    "CausalConvWithState": _causal_convolution,
    "GemmFastGelu": _gemm_fast_gelu,
    "GroupNorm": _group_norm,
    "LinearAttention": _linear_attention,
    "MultiHeadAttention": _packed_attention,
    "NhwcConv": _channels_last_conv,
    "NhwcFusedConv": _channels_last_conv,
    "SkipGroupNorm": _group_norm,
    "SwiGLU": _swiglu,
}


def spell_out(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[AxisKey, AxisKey]]:
    """The model in standard operators of an opset that ONNX Runtime runs, and new axes that are old ones."""
    same: dict[AxisKey, AxisKey] = {}
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        writer = Writer(twin, node)
        if node.op_type in SPELLED:
            SPELLED[node.op_type](writer)
        else:
            writer.nodes.append(node)
        nodes += writer.nodes
        same.update(writer.same)
    del twin.graph.node[:], twin.graph.value_info[:], twin.opset_import[:]
    twin.graph.node.extend(nodes)
    twin.opset_import.append(helper.make_opsetid("", RUNNABLE_OPSET))
    twin.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return twin, same
