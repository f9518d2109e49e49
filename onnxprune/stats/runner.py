"""Streams inputs through a model on the CPU provider and hands back any tensors in it, call by call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort

from onnxprune import ir
from onnxprune.errors import ModelError
from onnxprune.ir import captures
from onnxprune.ir.objects import Variable
from onnxprune.stats.arrays import Array
from onnxprune.stats.feeds import Feeds

_FOLDED_BYTES = "67108864"  # a constant that folding would blow up beyond this is computed at run time instead


def run(
    model: ir.Model, feeds: Feeds, outputs: Sequence[str] | None = None, *, batch: int | None = None, threads: int = 0
) -> Iterator[dict[str, Array]]:
    """Yields, for every call of ``feeds``, the tensors named in ``outputs`` (default: the graph's outputs), by name.

    Intermediate tensors and graph inputs may be asked for. Only one call's tensors are alive at a time. ``batch``:
    samples a call where the model's batch is dynamic; ``threads``: 0 takes every core. Raises ModelError where the
    model cannot be run.
    """
    names = list(outputs) if outputs is not None else [tensor.name for tensor in model.graph.outputs]
    inputs = [tensor.name for tensor in ir.feed_inputs(model)]
    runner = Runner(model, names, inputs, threads=threads)
    for call in feeds.calls(batch):
        yield runner(call)


class Runner:
    """A session on the part of ``model`` between the tensors ``inputs`` and the tensors ``outputs``; call it with the
    inputs by name.

    Inputs that no needed node reads are ignored, outputs that are inputs are handed through.
    """

    def __init__(
        self,
        model: ir.Model,
        outputs: Sequence[str],
        inputs: Sequence[str],
        *,
        dtypes: Mapping[str, Any] | None = None,
        threads: int = 0,
    ) -> None:
        self._through = [name for name in outputs if name in set(inputs)]
        self._computed = [name for name in dict.fromkeys(outputs) if name not in set(inputs)]
        self._session: ort.InferenceSession | None = None
        self._inputs: list[str] = []
        if self._computed:
            proto = extract(model, self._computed, inputs, dtypes)
            self._session = session(proto, threads)
            self._inputs = [value.name for value in self._session.get_inputs()]

    def __call__(self, call: Mapping[str, Array]) -> dict[str, Array]:
        found = {name: call[name] for name in self._through}
        if self._session is not None:
            try:
                values = self._session.run(self._computed, {name: call[name] for name in self._inputs})
            except RUNTIME_ERRORS as error:
                raise ModelError(f"the model does not run on this input: {one_line(error)}") from None
            found.update(zip(self._computed, values, strict=True))
        return found


def _errors() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = (
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "NoSuchFile",
        "NotImplemented",
        "RuntimeException",
        "EPFail",
    )
    return tuple(getattr(state, name) for name in names if hasattr(state, name))


RUNTIME_ERRORS: tuple[type[Exception], ...] = _errors()


def one_line(error: BaseException, limit: int = 200) -> str:
    """The error's text without line breaks, cut at ``limit`` characters."""
    return " ".join(str(error).split())[:limit]


def session(proto: onnx.ModelProto, threads: int) -> ort.InferenceSession:
    """On the CPU provider, with denormals flushed to zero. Raises ModelError where ONNX Runtime refuses the model."""
    options: Any = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("optimization.constant_folding_max_output_size_in_bytes", _FOLDED_BYTES)
    try:
        return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except RUNTIME_ERRORS as error:
        raise ModelError(f"ONNX Runtime cannot load the model: {one_line(error)}") from None


def extract(
    model: ir.Model, outputs: Sequence[str], inputs: Sequence[str], dtypes: Mapping[str, Any] | None = None
) -> onnx.ModelProto:
    """The nodes that compute ``outputs`` from ``inputs`` as a model of its own; ``inputs`` that it does not need are
    left out.

    ``dtypes`` gives the type of inputs that the model itself does not say. Raises ModelError where an output does not
    exist, or needs a graph input that is not among ``inputs``.
    """
    given, tensors = set(inputs), ir.tensors(model)
    missing = [name for name in outputs if name not in tensors]
    if missing:
        raise ModelError(f"the model has no tensor named {missing[0]!r}")
    nodes, reached = needed(model, outputs, given)
    defaults = [
        tensor for tensor in model.graph.inputs if isinstance(tensor, gs.Constant) and tensor.name in reached - given
    ]
    dangling = [tensor.name for tensor in ir.feed_inputs(model) if tensor.name in reached - given]
    if dangling:
        raise ModelError(f"input {dangling[0]!r} is needed and not given")
    read = [_plain(tensors[name], (dtypes or {}).get(name)) for name in inputs if name in reached]
    graph = gs.Graph(
        nodes=nodes,
        inputs=read + defaults,
        outputs=[_plain(tensors[name]) for name in outputs],
        name="part",
        opset=model.graph.opset,
    )
    loose = {name: tensor for name, tensor in model.loose.items() if name in reached}
    proto = ir.to_proto(ir.Model(graph=graph, header=model.header, path=model.path, loose=loose))
    del proto.graph.value_info[:]  # sizes inferred for other inputs would be taken for promises
    return proto


def needed(model: ir.Model, outputs: Sequence[str], given: set[str]) -> tuple[list[gs.Node], set[str]]:
    """Nodes in graph order that ``outputs`` depend on, walking back as far as ``given``, and the names of all tensors
    that they read.
    """
    wanted, reached, nodes = set(outputs) - given, set[str](), []
    for node in reversed(model.graph.nodes):
        if any(tensor.name in wanted for tensor in node.outputs):
            names = reads(node)
            reached |= names
            wanted |= names - given
            nodes.append(node)
    return nodes[::-1], reached


def reads(node: gs.Node) -> set[str]:
    """Names of the tensors that the node uses, in its subgraphs too."""
    return {tensor.name for tensor in node.inputs if tensor.name} | captures.of_nodes([node])


def _plain(tensor: gs.Tensor, dtype: Any = None) -> gs.Tensor:
    """The tensor without its sizes: what the part yields may differ from what was inferred for other input sizes."""
    if isinstance(tensor, gs.Constant):
        return tensor
    copy = Variable(tensor.name, dtype if tensor.dtype is None else tensor.dtype, None, tensor.type)
    if tensor.dtype is None and dtype is None:
        copy.info = getattr(tensor, "info", None)
    return copy
