"""Small graphs for the channel tests, and the proof that pruning them equals masking them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune import channels, ir
from passes.structured_pruning.apply import prune
from passes.verify_masking import verify

Shape = Sequence[int | str]


class Net:
    """Builds a model node by node. Weights are random, names count up."""

    def __init__(self, opset: int = 17, seed: int = 0) -> None:
        self.opset = opset
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def input(self, *shape: int | str, name: str = "x", kind: int = TensorProto.FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def weight(self, *shape: int, name: str = "") -> str:
        values = (self.rng.standard_normal(shape) * 0.4).astype(np.float32)
        return self.constant(values, name or f"w{len(self.initializers)}")

    def ints(self, *values: int, name: str = "") -> str:
        return self.constant(np.array(values, np.int64), name)

    def constant(self, values: np.ndarray, name: str = "") -> str:
        name = name or f"k{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(values, name))
        return name

    def op(self, op: str, *inputs: str, out: str = "", domain: str = "", **attributes: object) -> str:
        return self.ops(op, 1, *inputs, out=out, domain=domain, **attributes)[0]

    def ops(self, op: str, n: int, *inputs: str, out: str = "", domain: str = "", **attributes: object) -> list[str]:
        stem = out or f"t{len(self.nodes)}"
        names = [stem] if n == 1 else [f"{stem}_{i}" for i in range(n)]
        self.nodes.append(helper.make_node(op, inputs, names, domain=domain, **attributes))
        return names

    def conv(self, x: str, outputs: int, inputs: int, kernel: int = 1, name: str = "", **attributes: object) -> str:
        w = self.weight(outputs, inputs // int(str(attributes.get("group", 1))), kernel, kernel, name=name)
        return self.op("Conv", x, w, self.weight(outputs), pads=[kernel // 2] * 4, **attributes)

    def linear(self, x: str, inputs: int, outputs: int, name: str = "") -> str:
        return self.op("MatMul", x, self.weight(inputs, outputs, name=name))

    def proto(self, *outputs: str) -> onnx.ModelProto:
        infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "net", self.inputs, infos, self.initializers)
        imports = [helper.make_opsetid("", self.opset)]
        imports += [helper.make_opsetid(d, 1) for d in {n.domain for n in self.nodes} - {""}]
        return helper.make_model(graph, opset_imports=imports, ir_version=8)

    def model(self, *outputs: str) -> ir.Model:
        proto = onnx.shape_inference.infer_shapes(self.proto(*outputs), data_prop=True)
        return ir.from_proto(proto)


@pytest.fixture
def net() -> type[Net]:
    return Net


Keep = dict[str, np.ndarray]
Prove = Callable[..., ir.Model]


def random_keep(graph: channels.ChannelGraph, rng: np.random.Generator, fraction: float = 0.5) -> Keep:
    keep: Keep = {}
    for group in graph.groups:
        gone = (
            min(max(1, int(group.width * fraction)), group.width - group.min_keep)
            // group.multiple_of
            * group.multiple_of
        )
        keep[group.name] = np.ones(group.width, bool)
        keep[group.name][rng.choice(group.width, gone, replace=False)] = False
    return keep


def feeds_of(model: ir.Model, rng: np.random.Generator, symbols: Mapping[str, int]) -> dict[str, np.ndarray]:
    feeds = {}
    for tensor in ir.feed_inputs(model):
        shape = [dim if isinstance(dim, int) else symbols.get(dim, 3) for dim in tensor.shape]
        integer = np.dtype(tensor.dtype).kind in "iu"
        values = rng.integers(0, 5, shape) if integer else rng.standard_normal(shape)
        feeds[tensor.name] = values.astype(tensor.dtype)
    return feeds


@pytest.fixture
def prove(rng: np.random.Generator) -> Prove:
    """Prunes a copy at random (or by `masks`), checks it, and asserts that it equals the masked original."""

    def run(
        model: ir.Model, graph: channels.ChannelGraph | None = None, masks: Keep | None = None, **symbols: int
    ) -> ir.Model:
        graph = graph or channels.analyze(model)
        assert graph.groups, [frozen.reason for frozen in graph.frozen]
        for keep in [masks] if masks else [random_keep(graph, rng) for _ in range(3)]:
            pruned = model.copy()
            prune(pruned, graph, keep)
            onnx.checker.check_model(ir.to_proto(pruned), full_check=True)
            verdict = verify(model, pruned, graph.removals(keep), [feeds_of(model, rng, symbols)])
            assert verdict.ok, (verdict, {name: np.flatnonzero(~mask).tolist() for name, mask in keep.items()})
        return pruned

    return run
