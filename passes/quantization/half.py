"""Half precision: a float32 model in float16, its inputs and outputs as they were.

A tensor that both precisions need exists twice, with a Cast between. What a node may read and write in float16 is what
the schemas of ONNX Runtime allow, slot by slot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Literal

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.errors import ModelError
from onnxprune.stats import Feeds, run
from onnxprune.stats.runner import reads
from passes.quantization.budget import affordable
from passes.quantization.scheme import Scheme

LARGEST = float(np.finfo(np.float16).max)
_SAMPLES = 32
_BATCH = 8
_HEADROOM = 2.0
"""Values over a half of the largest number stay float32: samples do not show the largest ones."""
_STANDS_FOR_INFINITY = 1e9
"""Constants from here on mask something out, or bound nothing."""
_FAR = 0.375 * LARGEST
_TYPED = """
    Bernoulli Constant ConstantOfShape EyeLike Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike
"""
_GENERATORS = frozenset(_TYPED.split())
"""An attribute says which type their results have."""
_TENSOR = "tensor(float16)"
Side = Literal["inputs", "outputs"]
_SIDES: tuple[Side, Side] = ("inputs", "outputs")


def halve(model: ir.Model, feeds: Feeds | None, scheme: Scheme) -> ir.Model:
    """A copy of `model` in float16. Nodes in `scheme.exclude` and nodes with subgraphs stay in float32, as do those
    that meet numbers too large for half precision: constants, and with `feeds` activations too. Raises ModelError where
    no node is left.
    """
    halved = model.copy()
    ir.infer_shapes(halved)
    _bring_infinities_near(halved)
    large = _large(halved, feeds)
    slots = {
        (id(node), side): found
        for node in halved.graph.nodes
        if not (ir.node_key(node) in scheme.exclude or large & {t.name for t in (*node.inputs, *node.outputs)})
        for side in _SIDES
        if (found := _slots(halved, node, side))
    }
    if not slots:
        raise ModelError("no node of the model can run in half precision: none has float32 values that it can hold")
    _convert(halved, slots)
    ir.topological_sort(halved)
    return halved


def _bring_infinities_near(model: ir.Model) -> None:
    """Constants that stand for infinity become large numbers of half precision, in place."""
    for tensor in ir.initializers(model).values():
        values = tensor.values
        if values.dtype == np.float32 and (np.abs(values) >= _STANDS_FOR_INFINITY).any():
            tensor.values = np.where(np.abs(values) >= _STANDS_FOR_INFINITY, np.sign(values) * np.float32(_FAR), values)


def _large(model: ir.Model, feeds: Feeds | None) -> frozenset[str]:
    """Names of the tensors that are too large: constants, and activations by a few samples."""
    peaks = {name: _peak(t.values) for name, t in ir.initializers(model).items() if t.values.dtype == np.float32}
    if feeds is not None:
        names = [t.name for node in model.graph.nodes for t in node.outputs if t.name and t.dtype == np.float32]
        few = feeds.spread(_SAMPLES)
        for tensors in run(model, few, names, batch=affordable(model, few, _BATCH, all_at_once=True), threads=1):
            peaks.update({name: max(_peak(values), peaks.get(name, 0.0)) for name, values in tensors.items()})
    return frozenset(name for name, peak in peaks.items() if not peak * _HEADROOM <= LARGEST)


def _peak(values: np.ndarray) -> float:
    return float(np.abs(values).max(initial=0.0))


def _slots(model: ir.Model, node: gs.Node, side: Side) -> frozenset[int]:
    """Which inputs or outputs of a node can be float16 in place of float32; none where a type is not known."""
    known = all(t.dtype is not None and _is_tensor(t) for t in (*node.inputs, *node.outputs) if t.name)
    if not known or node.op in _GENERATORS or ir.has_subgraph(node):
        return frozenset()
    allowed = _allowed(node.domain or "", node.op, model.opset(node.domain or ""), side)
    return frozenset(k for k, t in enumerate(getattr(node, side)) if t.name and t.dtype == np.float32 and allowed(k))


def _is_tensor(tensor: gs.Tensor) -> bool:
    return getattr(tensor, "type", "tensor_type") == "tensor_type"


@cache
def _schemas() -> Mapping[tuple[str, str], Sequence[Any]]:
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

    found: dict[tuple[str, str], list[Any]] = {}
    for schema in get_all_operator_schema():
        found.setdefault((schema.domain, schema.name), []).append(schema)
    return found


@cache
def _allowed(domain: str, op: str, opset: int, side: Side) -> Callable[[int], bool]:
    """Whether the k-th input or output of an operator may be float16; never for operators that are unknown."""
    versions = [schema for schema in _schemas().get((domain, op), ()) if schema.since_version <= opset]
    if not versions:
        return lambda k: False
    schema = max(versions, key=lambda item: item.since_version)
    types = {item.type_param_str: item.allowed_type_strs for item in schema.type_constraints}
    slots = [_TENSOR in types.get(item.typeStr, [item.typeStr]) for item in getattr(schema, side)]
    variadic = bool(getattr(schema, side)) and "Variadic" in str(getattr(schema, side)[-1].option)
    return lambda k: slots[k] if k < len(slots) else variadic and slots[-1]


def _convert(model: ir.Model, slots: Mapping[tuple[int, Side], frozenset[int]]) -> None:
    """Gives these slots float16 tensors, in place, and puts Casts where both precisions are needed."""
    taken = ir.tensors(model)
    twins: dict[str, tuple[gs.Tensor, gs.Tensor]] = {}
    written: set[str] = set()
    for node in model.graph.nodes:
        for side in _SIDES:
            for k in slots.get((id(node), side), ()):
                tensor = getattr(node, side)[k]
                if tensor.name not in twins:
                    twins[tensor.name] = tensor, _twin(tensor, ir.free_name(f"{tensor.name}_half", taken))
                getattr(node, side)[k] = twins[tensor.name][1]
                written.update([tensor.name] if side == "outputs" else [])
        if node.op == "Cast" and (id(node), "outputs") in slots:
            node.attrs["to"] = onnx.TensorProto.FLOAT16
    wide = {t.name for t in model.graph.outputs}.union(*(reads(node) for node in model.graph.nodes))
    for name, (tensor, half) in twins.items():
        if isinstance(half, gs.Constant):
            half.name = half.name if name in wide else name
        elif name not in written:
            _cast(model, tensor, half, onnx.TensorProto.FLOAT16)
        elif name in wide:
            _cast(model, half, tensor, onnx.TensorProto.FLOAT)


def _twin(tensor: gs.Tensor, name: str) -> gs.Tensor:
    """The tensor in half precision: constants as values, others to be computed."""
    if isinstance(tensor, gs.Constant) and not getattr(tensor, "overridable", False):
        return ir.Constant(name, tensor.values.astype(np.float16))
    return ir.Variable(name, np.dtype(np.float16), tensor.shape)


def _cast(model: ir.Model, source: gs.Tensor, target: gs.Tensor, to: int) -> None:
    model.graph.nodes.append(ir.Node("Cast", f"{target.name}_cast", {"to": to}, [source], [target]))
