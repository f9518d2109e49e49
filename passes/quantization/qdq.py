"""Static 8-bit models: QuantizeLinear/DequantizeLinear pairs placed by `onnxruntime.quantization`, then tidied for
the CPU provider.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
import onnx.helper
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.errors import ModelError
from passes.quantization import scaling
from passes.quantization.scheme import Scheme
from passes.quantization.selection import CLAMPS, CONTRACTIONS, MOVEMENT, data_inputs

Range = tuple[float, float]


def name_nodes(model: ir.Model) -> dict[str, str]:
    """Gives every node a name of its own, in place (its key where it has none or shares it); returns key -> name."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for node in model.graph.nodes:
        key = ir.node_key(node)
        name = node.name if node.name and node.name not in taken else key
        name = ir.free_name(name, taken)
        taken.add(name)
        node.name = names[key] = name
    return names


def own_constants(model: ir.Model, chosen: Sequence[gs.Node]) -> None:
    """Gives chosen contractions weights and biases of their own where others read them too, so that those keep their
    float values; in place.
    """
    keys = {ir.node_key(node) for node in chosen}
    kept_names = ir.captured(model) | {tensor.name for tensor in model.graph.outputs}
    taken = set(ir.tensors(model)) | set(model.loose)
    for node in chosen:
        if node.op not in CONTRACTIONS:
            continue
        for slot in range(1, len(node.inputs)):
            tensor = node.inputs[slot]
            if not tensor.name or not isinstance(tensor, gs.Constant):
                continue
            readers = ir.consumers(tensor)
            alike = all(
                r is node or (slot == 1 and _same_use(r, node, tensor) and ir.node_key(r) in keys) for r in readers
            )
            if not alike or tensor.name in kept_names:
                name = ir.free_name(f"{tensor.name}_of_{ir.node_key(node)}", taken)
                taken.add(name)
                node.inputs[slot] = ir.Constant(name, np.asarray(tensor.values))


def _same_use(reader: gs.Node, node: gs.Node, weight: gs.Tensor) -> bool:
    uses = [tensor is weight for tensor in reader.inputs]
    return (
        reader.op == node.op
        and uses.count(True) == 1
        and len(uses) > 1
        and uses[1]
        and reader.attrs.get("transB", 0) == node.attrs.get("transB", 0)
    )


def wanted_tensors(chosen: Sequence[gs.Node]) -> list[str]:
    """Names of the activations whose ranges the quantizer needs."""
    names = [tensor.name for node in chosen for tensor in (*data_inputs(node), *node.outputs) if tensor.name]
    return list(dict.fromkeys(names))


def shared_ranges(chosen: Sequence[gs.Node], ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Ranges after sharing: movement keeps its input's, scaling multiplies it, and inputs of a Concat that nothing else
    reads take the Concat's.

    The second changes no value that is kept (the Concat would round to its own scale anyway) and turns the Concat into
    a copy.
    """
    result = dict(ranges)
    for node in reversed(chosen):
        if node.op != "Concat":
            continue
        for tensor in data_inputs(node):
            source = ir.producer(tensor)
            alone = len(ir.consumers(tensor)) == 1 and source is not None and source.op not in MOVEMENT
            if (
                alone
                and source is not None
                and (source.op not in CLAMPS or result[node.outputs[0].name][0] == result[tensor.name][0] == 0.0)
            ):
                result[tensor.name] = result[node.outputs[0].name]
    for node in chosen:
        by = scaling.factor(node)
        if by is not None and (span := result.get(data_inputs(node)[0].name)) is not None:
            result[node.outputs[0].name] = (span[0] * by, span[1] * by)
        if node.op in MOVEMENT and node.inputs[0].name in result:
            for tensor in node.outputs:
                result[tensor.name] = result[node.inputs[0].name]
    return result


def insert(model: ir.Model, chosen: Sequence[gs.Node], ranges: Mapping[str, Range], scheme: Scheme) -> ir.Model:
    """A copy of `model` with the `chosen` nodes between QDQ pairs. Nodes are named; `ranges` covers
    `wanted_tensors(chosen)`.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import TensorData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    seen = scaling.others(chosen)
    proto = ir.to_proto(model)
    producer = (proto.producer_name, proto.producer_version)
    with_types(proto, model)
    symmetric = scheme.activation == "s8"
    spans = {name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in ranges.items()}
    options = {"ActivationSymmetric": symmetric, "WeightSymmetric": True, "ForceQuantizeNoInputCheck": True}
    with quiet():
        quantizer = QDQQuantizer(
            proto,
            scheme.per_channel,
            scheme.seven_bits,
            QuantType.QInt8,
            QuantType.QInt8 if symmetric else QuantType.QUInt8,
            spans,
            [node.name for node in seen],
            [],
            sorted({node.op for node in seen}),
            options,
        )
        try:
            result = quantizer.quantize_model()
        except (ValueError, TypeError, KeyError, RuntimeError, AssertionError, AttributeError, IndexError) as error:
            raise ModelError(
                f"ONNX Runtime's quantizer refuses the model: {' '.join(str(error).split())[:200]}"
            ) from None
    result.producer_name, result.producer_version = producer
    return ir.from_proto(without_marker(result))


def with_types(proto: onnx.ModelProto, model: ir.Model) -> None:
    """Adds the type of every float32 tensor, which the quantizer looks up, and the mark that stops it from inferring
    types itself.
    """
    proto.metadata_props.add(key="onnx.infer", value="onnxruntime.quant")
    told = {info.name for info in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output)}
    for name, tensor in ir.tensors(model).items():
        if isinstance(tensor, gs.Variable) and name not in told and tensor.dtype == np.float32:
            proto.graph.value_info.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))


def without_marker(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model without what `with_types` added; in place."""
    shaped = [info for info in proto.graph.value_info if info.type.tensor_type.HasField("shape")]
    kept_infos = [onnx.ValueInfoProto.FromString(info.SerializeToString()) for info in shaped]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept_infos)
    kept = [entry for entry in proto.metadata_props if entry.key not in ("onnx.infer", "onnx.quant.pre_process")]
    copies = [onnx.StringStringEntryProto(key=entry.key, value=entry.value) for entry in kept]
    del proto.metadata_props[:]
    proto.metadata_props.extend(copies)
    return proto


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences the root logger, which `onnxruntime.quantization` writes to; restores it afterwards."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        root.setLevel(level)
