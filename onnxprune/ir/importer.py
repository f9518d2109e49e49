"""ModelProto -> Model, losing nothing, and refusing what is ill-formed with one line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import onnx
import onnx_graphsurgeon as gs

from onnxprune.errors import ModelError
from onnxprune.ir import attributes, captures, types
from onnxprune.ir.header import FIRST_IR_WITH_OPTIONAL_INPUTS, check_header, copy_header
from onnxprune.ir.model import Model
from onnxprune.ir.objects import Constant, Node, Variable
from onnxprune.ir.order import topological_sort
from onnxprune.ir.stored import Stored, StoredSparse, StoredTensor, store

_NOT_UTF8 = "a name or text in the model is not valid UTF-8; export the model again"
Storer = Callable[[onnx.TensorProto], StoredTensor]


def from_proto(proto: onnx.ModelProto) -> Model:
    """Builds a Model; the proto is not changed. One that refers to external data has to be read by `load`."""
    return build(proto, store, None)


def build(proto: onnx.ModelProto, storer: Storer, path: Path | None) -> Model:
    """`from_proto` with another way to store initializers (memory-mapped ones) and the file it came from."""
    check_header(proto)
    try:
        return _Builder(proto, storer).model(path)
    except UnicodeDecodeError:
        raise ModelError(_NOT_UTF8) from None


class _Builder:
    """Makes one gs tensor per name, then the nodes that refer to them."""

    def __init__(self, proto: onnx.ModelProto, storer: Storer) -> None:
        graph = proto.graph
        self.proto = proto
        self.store = storer
        self.tensors: dict[str, gs.Tensor] = {}
        self.infos = {info.name: info for info in (*graph.value_info, *graph.output, *graph.input)}
        self.inputs = _unique((info.name for info in graph.input), "graph input")

    def model(self, path: Path | None) -> Model:
        source = self.proto.graph
        initializers = self._initializers()
        inputs = self._inputs(initializers)
        nodes = [self._node(node) for node in source.node]
        outputs = [self._tensor(name) for name in _unique((info.name for info in source.output), "graph output")]
        used = captures.of_nodes(nodes)
        _check_defined(nodes, outputs, {*self.inputs, *initializers}, used)
        loose = {name: tensor for name, tensor in initializers.items() if name in used or not tensor.outputs}
        header = copy_header(self.proto, self.tensors.keys())
        graph = gs.Graph(nodes, inputs, outputs, source.name, source.doc_string, ir_version=header.ir_version)
        model = Model(graph, header, path, loose)
        graph.opset, graph.import_domains = model.opset(), header.opset_import
        topological_sort(model)
        return model

    def _initializers(self) -> Mapping[str, Constant]:
        graph = self.proto.graph
        payloads: list[tuple[str, Stored]] = [(tensor.name, self.store(tensor)) for tensor in graph.initializer]
        payloads += [(sparse.values.name, StoredSparse(_copy_sparse(sparse))) for sparse in graph.sparse_initializer]
        _unique((name for name, _ in payloads), "initializer")
        found = {name: Constant(name, payload) for name, payload in payloads}
        for name in found.keys() & self.infos.keys():
            found[name].info = _copy_info(self.infos[name])
        self.tensors.update(found)
        return found

    def _inputs(self, initializers: Mapping[str, Constant]) -> list[gs.Tensor]:
        names: Iterable[str] = self.inputs
        if self.proto.ir_version < FIRST_IR_WITH_OPTIONAL_INPUTS:
            # before IR 4 the format forced initializers to be inputs too; they were never meant to be fed
            names = [name for name in names if name not in initializers]
        for name in initializers.keys() & set(names):
            initializers[name].overridable = True
        return [self._tensor(name) for name in names]

    def _tensor(self, name: str) -> gs.Tensor:
        if not name:
            return Variable("")
        tensor = self.tensors.get(name)
        if tensor is None:
            _check_text(name)
            tensor = self.tensors[name] = Variable(name)
            info = self.infos.get(name)
            if info is not None:
                tensor.info, tensor.type = _copy_info(info), types.kind(info)
                tensor.dtype, tensor.shape = types.tensor_type(info)
        return tensor

    def _node(self, proto: onnx.NodeProto) -> Node:
        label = proto.name or proto.op_type
        _check_text(proto.name, proto.op_type, proto.domain)
        if not proto.op_type:
            raise ModelError(f"node {label!r} has no operator")
        attrs = {attribute.name: attributes.read(attribute) for attribute in proto.attribute}
        if len(attrs) != len(proto.attribute):
            raise ModelError(f"node {label!r} has the same attribute twice")
        written = _unique((name for name in proto.output if name), f"output of node {label!r}")
        outputs = [self._tensor(name) for name in proto.output]
        for output in outputs:
            if output.inputs or isinstance(output, gs.Constant) or output.name in self.inputs:
                raise ModelError(f"tensor {output.name!r} is written twice, the second time by node {label!r}")
        if proto.output and not written:
            raise ModelError(f"node {label!r} has no output")
        inputs = [self._tensor(name) for name in proto.input]
        node = Node(proto.op_type, proto.name, attrs, inputs=inputs, outputs=outputs, domain=proto.domain)
        node.extras = _extras(proto)
        return node


def _unique(names: Iterable[str], what: str) -> dict[str, None]:
    seen: dict[str, None] = {}
    for name in names:
        _check_text(name)
        if not name or name in seen:
            raise ModelError(f"{what} {name!r} is listed twice" if name else f"{what} without a name")
        seen[name] = None
    return seen


def _check_text(*names: str) -> None:
    # protobuf hands out bytes where a string is not valid UTF-8
    if any(isinstance(name, bytes) for name in names):
        raise ModelError(_NOT_UTF8)


def _check_defined(nodes: list[Node], outputs: list[gs.Tensor], given: set[str], used: set[str]) -> None:
    known = given.union(output.name for node in nodes for output in node.outputs)
    for node in nodes:
        for tensor in node.inputs:
            if tensor.name and tensor.name not in known:
                raise ModelError(f"node {node.name or node.op!r} reads {tensor.name!r}, which nothing produces")
    for name in sorted(used - known):
        raise ModelError(f"a subgraph reads {name!r}, which nothing produces")
    for tensor in outputs:
        if tensor.name not in known:
            raise ModelError(f"graph output {tensor.name!r} is produced by nothing")


def _extras(proto: onnx.NodeProto) -> onnx.NodeProto | None:
    documented = [attribute for attribute in proto.attribute if attribute.doc_string]
    lists = (documented, proto.metadata_props, proto.device_configurations)
    if not (proto.overload or proto.doc_string or any(len(entries) for entries in lists)):
        return None
    extras = onnx.NodeProto()
    if proto.overload:
        extras.overload = proto.overload
    if proto.doc_string:
        extras.doc_string = proto.doc_string
    extras.metadata_props.MergeFrom(proto.metadata_props)
    extras.device_configurations.MergeFrom(proto.device_configurations)
    for attribute in documented:
        extras.attribute.add(name=attribute.name, doc_string=attribute.doc_string)
    return extras


# Copies, not references: a message keeps the whole model that it is part of in memory.


def _copy_info(info: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(info)
    return copy


def _copy_sparse(proto: onnx.SparseTensorProto) -> onnx.SparseTensorProto:
    copy = onnx.SparseTensorProto()
    copy.CopyFrom(proto)
    return copy
