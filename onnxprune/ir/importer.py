"""ModelProto -> Model, losing nothing, and refusing what is ill-formed with one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import onnx_graphsurgeon as gs

from onnxprune.errors import ModelError
from onnxprune.ir import attributes, captures, types
from onnxprune.ir.model import Model
from onnxprune.ir.objects import Constant, Node, Variable
from onnxprune.ir.order import topological_sort
from onnxprune.ir.stored import Stored, StoredSparse, StoredTensor, store

Storer = Callable[[onnx.TensorProto], StoredTensor]
_FIRST_IR_WITH_OPTIONAL_INPUTS = 4


def from_proto(proto: onnx.ModelProto) -> Model:
    """Builds a Model; the proto is not changed. Its external data, if any, must have been loaded: see `load`."""
    return build(proto, store, None)


def build(proto: onnx.ModelProto, storer: Storer, path: Path | None) -> Model:
    """`from_proto` with another way to store initializers (memory-mapped ones) and the file it came from."""
    check_header(proto)
    return _Builder(proto, storer).model(path)


def check_header(proto: onnx.ModelProto) -> None:
    """Raises ModelError for a model without graph or opset, or with one newer than the installed onnx knows."""
    if not proto.HasField("graph") or not proto.ir_version:
        raise ModelError("this is not an ONNX model: it has no graph or no IR version")
    if proto.ir_version > onnx.IR_VERSION:
        raise ModelError(f"IR version {proto.ir_version} is newer than {onnx.IR_VERSION}, the last one known here")
    domains = [
        entry.domain.replace("ai.onnx", "") if entry.domain == "ai.onnx" else entry.domain
        for entry in proto.opset_import
    ]
    if not domains:
        raise ModelError("the model imports no opset; export it again with a current exporter")
    twice = next((domain for domain in domains if domains.count(domain) > 1), None)
    if twice is not None:
        raise ModelError(f"the model imports the opset of domain {twice or 'ai.onnx'!r} twice")
    newest = onnx.defs.onnx_opset_version()
    for entry in proto.opset_import:
        if entry.version < 1 or (entry.domain in ("", "ai.onnx") and entry.version > newest):
            raise ModelError(f"opset {entry.version} of domain {entry.domain!r} is outside 1..{newest} known here")


class _Builder:
    def __init__(self, proto: onnx.ModelProto, storer: Storer) -> None:
        self.proto = proto
        self.store = storer
        self.tensors: dict[str, gs.Tensor] = {}
        self.infos: dict[str, onnx.ValueInfoProto] = {}

    def model(self, path: Path | None) -> Model:
        source = self.proto.graph
        try:
            for info in (*source.value_info, *source.output, *source.input):
                self.infos[info.name] = info
            initializers = self._initializers()
            inputs = self._inputs(set(initializers))
            nodes = [self._node(node) for node in source.node]
            outputs = self._outputs()
        except UnicodeDecodeError:
            raise ModelError("a name in the model is not valid UTF-8; export the model again") from None
        used = captures.of_nodes(nodes)
        known = {tensor.name for tensor in inputs} | initializers.keys()
        known.update(output.name for node in nodes for output in node.outputs)
        _check_defined(nodes, outputs, known, used)
        loose = {name: tensor for name, tensor in initializers.items() if name in used or not tensor.outputs}
        header = _header(self.proto, self.tensors.keys())
        graph = gs.Graph(nodes, inputs, outputs, source.name, source.doc_string, ir_version=header.ir_version)
        model = Model(graph, header, path, loose)
        graph.opset = model.opset()
        graph.import_domains = header.opset_import
        topological_sort(model)
        return model

    def _initializers(self) -> dict[str, Constant]:
        found: dict[str, Constant] = {}
        payloads: list[tuple[str, Stored]] = [(t.name, self.store(t)) for t in self.proto.graph.initializer]
        payloads += [(t.values.name, StoredSparse(_sparse(t))) for t in self.proto.graph.sparse_initializer]
        for name, payload in payloads:
            if not name:
                raise ModelError("an initializer has no name")
            if name in found:
                raise ModelError(f"initializer {name!r} is defined twice")
            found[name] = constant = Constant(name, payload)
            if name in self.infos:
                constant.info = _copy_info(self.infos[name])
        self.tensors.update(found)
        return found

    def _inputs(self, initializers: set[str]) -> list[gs.Tensor]:
        names = [info.name for info in self.proto.graph.input]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ModelError(f"graph input {twice!r} is listed twice")
        if self.proto.ir_version < _FIRST_IR_WITH_OPTIONAL_INPUTS:
            # before IR 4 the format forced initializers to be inputs too; they were never meant to be fed
            names = [name for name in names if name not in initializers]
        for name in initializers.intersection(names):
            self.tensors[name].overridable = True
        return [self._tensor(name) for name in names]

    def _outputs(self) -> list[gs.Tensor]:
        names = [info.name for info in self.proto.graph.output]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ModelError(f"graph output {twice!r} is listed twice")
        return [self._tensor(name) for name in names]

    def _tensor(self, name: str) -> gs.Tensor:
        if not name:
            return Variable("")
        tensor = self.tensors.get(name)
        if tensor is None:
            tensor = self.tensors[name] = Variable(name)
            info = self.infos.get(name)
            if info is not None:
                tensor.info = _copy_info(info)
                tensor.type = types.kind(info)
                tensor.dtype, tensor.shape = types.tensor_type(info)
        return tensor

    def _node(self, proto: onnx.NodeProto) -> Node:
        if not proto.op_type:
            raise ModelError(f"node {proto.name!r} has no operator")
        attrs = {attribute.name: attributes.read(attribute) for attribute in proto.attribute}
        if len(attrs) != len(proto.attribute):
            raise ModelError(f"node {proto.name or proto.op_type!r} has the same attribute twice")
        outputs = [self._tensor(name) for name in proto.output]
        for output in outputs:
            if output.inputs or isinstance(output, gs.Constant) or output.name in self._input_names:
                raise ModelError(f"tensor {output.name!r} is written twice (node {proto.name or proto.op_type!r})")
        node = Node(
            proto.op_type,
            proto.name,
            attrs,
            inputs=[self._tensor(name) for name in proto.input],
            outputs=outputs,
            domain=proto.domain,
        )
        if len({output.name for output in outputs if output.name}) != sum(bool(output.name) for output in outputs):
            raise ModelError(f"node {proto.name or proto.op_type!r} writes the same tensor twice")
        node.extras = _extras(proto)
        return node

    @property
    def _input_names(self) -> set[str]:
        names: set[str] = self.__dict__.setdefault("_names", {info.name for info in self.proto.graph.input})
        return names


def _check_defined(nodes: list[Node], outputs: list[gs.Tensor], known: set[str], used: set[str]) -> None:
    for node in nodes:
        for tensor in node.inputs:
            if tensor.name and tensor.name not in known:
                raise ModelError(f"node {node.name or node.op!r} reads {tensor.name!r}, which nothing produces")
    for name in sorted(used - known):
        raise ModelError(f"a subgraph reads {name!r}, which nothing produces")
    for tensor in outputs:
        if tensor.name not in known:
            raise ModelError(f"graph output {tensor.name!r} is produced by nothing")


def _header(proto: onnx.ModelProto, known: object) -> onnx.ModelProto:
    header = onnx.ModelProto()
    for field, value in proto.ListFields():
        if field.name == "graph":
            continue
        if field.is_repeated:
            getattr(header, field.name).MergeFrom(value)
        else:
            setattr(header, field.name, value)
    header.ir_version = max(header.ir_version, _FIRST_IR_WITH_OPTIONAL_INPUTS)
    graph = header.graph
    graph.name, graph.doc_string = proto.graph.name, proto.graph.doc_string
    graph.metadata_props.MergeFrom(proto.graph.metadata_props)
    graph.quantization_annotation.MergeFrom(proto.graph.quantization_annotation)
    graph.value_info.extend(info for info in proto.graph.value_info if info.name not in known)  # type: ignore[operator]
    return header


def _extras(proto: onnx.NodeProto) -> onnx.NodeProto | None:
    documented = [attribute for attribute in proto.attribute if attribute.doc_string]
    lists = (documented, proto.metadata_props, proto.device_configurations)
    if not (proto.overload or proto.doc_string or any(len(entry) for entry in lists)):
        return None
    extras = onnx.NodeProto(overload=proto.overload, doc_string=proto.doc_string)
    extras.metadata_props.MergeFrom(proto.metadata_props)
    extras.device_configurations.MergeFrom(proto.device_configurations)
    for attribute in documented:
        extras.attribute.add(name=attribute.name, doc_string=attribute.doc_string)
    return extras


def _copy_info(info: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(info)
    return copy


def _sparse(proto: onnx.SparseTensorProto) -> onnx.SparseTensorProto:
    copy = onnx.SparseTensorProto()
    copy.CopyFrom(proto)
    return copy
