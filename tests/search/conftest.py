"""A small residual network, and a machine whose latency is a formula, so that a search can be checked to the digit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune import channels, ir
from onnxprune.progress import SilentProgress
from onnxprune.search.options import SearchOptions
from onnxprune.search.workspace import Workspace
from onnxprune.stats import Feeds
from onnxprune.units import parse_target
from passes.block_removal import branches
from runtime_bench import Arm, Comparison, Quick, Speedup, Target, Timing

OVERHEAD_S, MAC_S = 2e-6, 1e-9


@pytest.fixture
def calibration(models: Path, tmp_path: Path) -> Path:
    """A few of the calibration images: enough for these models, and quick."""
    path = tmp_path / "calibration.npz"
    np.savez(path, image=np.load(models / "digits_calib.npz")["image"][:160])
    return path


@pytest.fixture
def mlp(models: Path) -> Path:
    return models / "digits_mlp.onnx"


@pytest.fixture
def recurrent() -> ir.Model:
    """Hidden units of an LSTM that only its own recurrence and a GRU read, and a product behind the GRU."""
    rng = np.random.default_rng(0)
    sizes = {"w": (1, 32, 5), "r": (1, 32, 8), "v": (1, 18, 8), "s": (1, 18, 6), "u": (6, 4)}
    body = """<ir_version: 8, opset_import: ["" : 17]> net (float[7, 1, 5] x) => (float[1, 4] y)
        <int64[1] one = {1}, int64[1] zero = {0}> {
        h4 = LSTM<hidden_size=8>(x, w, r)
        h = Squeeze(h4, one)
        g4, g3 = GRU<hidden_size=6>(h, v, s)
        g = Squeeze(g3, zero)
        y = MatMul(g, u)
    }"""
    proto = onnx.parser.parse_model(body)
    for name, shape in sizes.items():
        proto.graph.initializer.append(numpy_helper.from_array(rng.standard_normal(shape, np.float32), name))
    model = ir.from_proto(proto)
    ir.infer_shapes(model)
    return model


def residual_network(blocks: int = 3, width: int = 16, inner: int = 24, seed: int = 0) -> ir.Model:
    """Stem, `blocks` residual blocks with `inner` channels, pooling, classifier; canonical, dynamic batch."""
    rng = np.random.default_rng(seed)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def add(op: str, out: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [out], **attributes))
        return out

    def weight(name: str, *shape: int, scale: float = 1.0) -> str:
        values = rng.standard_normal(shape) * scale / np.sqrt(max(1, np.prod(shape[1:])))
        weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def conv(x: str, name: str, outputs: int, inputs: int, scale: float = 1.0) -> str:
        w, b = weight(f"{name}.w", outputs, inputs, 3, 3, scale=scale), weight(f"{name}.b", outputs, scale=0.1)
        return add("Conv", name, x, w, b, kernel_shape=[3, 3], pads=[1, 1, 1, 1])

    x = add("Relu", "stem_relu", conv("x", "stem", width, 3))
    for k in range(blocks):
        hidden = add("Relu", f"relu{k}", conv(x, f"a{k}", inner, width))
        x = add("Relu", f"out{k}", add("Add", f"sum{k}", x, conv(hidden, f"b{k}", width, inner, 0.3 + 0.2 * k)))
    pooled = add("Flatten", "flat", add("GlobalAveragePool", "pool", x))
    add("Gemm", "logits", pooled, weight("head.w", width, 5, scale=2.0), weight("head.b", 5))
    graph = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 5])],
        weights,
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    ir.infer_shapes(model)
    return model


@pytest.fixture(scope="session")
def residual() -> Callable[..., ir.Model]:
    """`residual(blocks=3, width=16, inner=24)`: a residual network with random weights."""
    return residual_network


def linear_first_branch(model: ir.Model) -> None:
    """Makes the first branch of a residual network, in place, a linear map of the stem that is pointwise: its Relu and
    the stem's never cut anything off, so that a stem with other weights can deliver the sum.
    """
    weights = ir.initializers(model)
    for name in ("a0.w", "b0.w"):
        centre = np.zeros((3, 3), np.float32)
        centre[1, 1] = 3.0
        weights[name].values = weights[name].values * centre
    for name in ("stem.b", "a0.b"):
        weights[name].values = np.full_like(weights[name].values, 6.0 if name == "stem.b" else 200.0)
    mapped = weights["b0.w"].values[:, :, 1, 1]
    weights["b0.b"].values = -(mapped @ weights["a0.b"].values)


@pytest.fixture(scope="session")
def linear_first() -> Callable[..., ir.Model]:
    """`linear_first(blocks=3, width=16, inner=24)`: a residual network whose first branch the stem can take over."""

    def make(**sizes: int) -> ir.Model:
        model = residual_network(**sizes)
        linear_first_branch(model)
        return model

    return make


def formula_seconds(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> float:
    """Latency on the machine of these tests: an overhead, and a nanosecond a MAC."""
    return OVERHEAD_S + MAC_S * ir.macs(model, ir.shapes_for(model, shapes))


@dataclass
class FormulaBench:
    """Stands for `runtime_bench.Bench`."""

    target: Target
    feeds: Any = None
    seed: int = 0

    def __enter__(self) -> FormulaBench:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def seconds(self, path: Path) -> float:
        return formula_seconds(ir.load(Path(path)), dict(self.target.shapes))

    def quick_ratio(self, baseline: Path, candidates: Sequence[Path], *, seconds: float = 0.5) -> list[Quick]:
        base = self.seconds(baseline)
        return [Quick(self.seconds(path) / base, 0.0, self.seconds(path), base) for path in candidates]


@dataclass
class FormBench(FormulaBench):
    """Models with a Sum take `factor` times as long."""

    factor: float = 0.9

    def seconds(self, path: Path) -> float:
        sums = any(node.op == "Sum" for node in ir.load(Path(path)).graph.nodes)
        return super().seconds(path) * (self.factor if sums else 1.0)


@pytest.fixture(scope="session")
def form_bench() -> type[FormBench]:
    """`form_bench(target, factor=0.9)`: a machine on which one form of a model is faster or slower than the other."""
    return FormBench


class FormulaTable:
    """Stands for `runtime_bench.LatencyTable`; `wrong(key)` is the factor by which an entry is off."""

    def __init__(self, bench: FormulaBench, *, wrong: Callable[[str], float] = lambda key: 1.0, **_: Any) -> None:
        self.bench, self.wrong = bench, wrong

    def lookup(self, keys: Mapping[str, Any], build: Callable[[str], bytes]) -> dict[str, float]:
        models = {key: ir.from_proto(onnx.load_from_string(build(key))) for key in keys}
        return {
            key: MAC_S * ir.macs(model, ir.shapes_for(model, {})) * self.wrong(key) for key, model in models.items()
        }


def formula_compare(models: Sequence[Path], target: Target, feeds: Any = None, **options: Any) -> Comparison:
    """Stands for `runtime_bench.compare`."""
    bench = FormulaBench(target)
    seconds = [bench.seconds(path) for path in models]
    arms = []
    for name, value in zip(options.get("names") or map(str, models), seconds, strict=True):
        ratio, ms = value / seconds[0], value * 1e3
        faster = Speedup(ratio, ratio, ratio, "FASTER" if ratio < 0.98 else "INCONCLUSIVE")
        arms.append(Arm(name, Timing(ms, ms, ms, ms, (((value,),),)), faster if arms else None, {}))
    return Comparison(target.to_json(), tuple(arms), None, 1, 1, 0, 0.0, False, {})


@pytest.fixture
def formula_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every latency that the engine measures comes from the formula."""
    monkeypatch.setattr("onnxprune.api.compression.Bench", FormulaBench)
    monkeypatch.setattr("onnxprune.api.compression.LatencyTable", FormulaTable)
    monkeypatch.setattr("onnxprune.search.certify.compare", formula_compare)
    monkeypatch.setattr("onnxprune.search.workspace.compare", formula_compare)


class NoisyBench(FormulaBench):
    """Each look is off by up to 5 %, never twice alike; the second provider likes narrow models."""

    def hello(self) -> dict[str, Any]:
        return {"onnxruntime": "1.0"}

    def quick_ratio(self, baseline: Path, candidates: Sequence[Path], *, seconds: float = 0.5) -> list[Quick]:
        return [
            replace(look, ratio=self._bent(look.ratio) * noise(), baseline_p50_s=look.baseline_p50_s * noise())
            for look in super().quick_ratio(baseline, candidates)
        ]

    def measure_many(self, models: Sequence[bytes], *, min_ns: int = 0) -> list[float | None]:
        parsed = [ir.from_proto(onnx.load_from_string(data)) for data in models]
        return [self._bent(formula_seconds(model, {})) * noise() for model in parsed]

    def _bent(self, value: float) -> float:
        return value**1.1 if self.target.alias == "xnnpack" else value


NOISE = np.random.default_rng()  # without a seed: no two runs see the same machine


def noise() -> float:
    return float(NOISE.uniform(0.95, 1.05))


def noisy_compare(models: Sequence[Path], target: Target, feeds: Any = None, **options: Any) -> Comparison:
    """`formula_compare`, off by up to 5 %."""
    exact = formula_compare(models, target, feeds, **options)
    arms = [exact.arms[0]]
    for arm in exact.arms[1:]:
        assert arm.speedup is not None
        ratio = arm.speedup.ratio * noise()
        arms.append(replace(arm, speedup=Speedup(ratio, ratio, ratio, "FASTER" if ratio < 0.98 else "INCONCLUSIVE")))
    return replace(exact, arms=tuple(arms))


@dataclass(frozen=True)
class NoisyMachine:
    """What measures on it, for tests that put something else in place."""

    bench: type[NoisyBench] = NoisyBench
    compare: Callable[..., Comparison] = noisy_compare
    exact_compare: Callable[..., Comparison] = formula_compare


@pytest.fixture
def noisy_machine(monkeypatch: pytest.MonkeyPatch) -> NoisyMachine:
    """Every look is the formula's with noise; the latency table is the real one."""
    monkeypatch.setattr("onnxprune.api.compression.Bench", NoisyBench)
    monkeypatch.setattr("onnxprune.search.certify.compare", noisy_compare)
    monkeypatch.setattr("onnxprune.search.workspace.compare", noisy_compare)
    return NoisyMachine()


@pytest.fixture
def workspace(tmp_path: Path) -> Callable[..., Workspace]:
    """`workspace(model, target="0.5x", wrong=...)`: a search on the formula machine, float only."""

    def make(
        model: ir.Model,
        target: str = "0.5x",
        wrong: Callable[[str], float] = lambda key: 1.0,
        samples: int = 256,
        targets: int = 1,
        **options: Any,
    ) -> Workspace:
        path = tmp_path / "original.onnx"
        ir.save(model, path, overwrite=True)
        first = {
            tensor.name: tuple(n if isinstance(n, int) else 1 for n in tensor.shape) for tensor in model.graph.inputs
        }
        shapes = ir.shapes_for(model, first)
        feeds = Feeds.synthetic(model, samples, 0)
        bench = FormulaBench(Target("cpu", threads=1, shapes=tuple(first.items())))
        return Workspace(
            original=path,
            base=model,
            graph=channels.analyze(model),
            branches=branches(model, shapes),
            feeds=feeds,
            held=feeds.take(range(8)),
            shapes=shapes,
            options=SearchOptions(parse_target(target), precisions=("fp32",), **options),
            progress=SilentProgress(),
            folder=tmp_path,
            benches=[bench] * targets,
            tables=[FormulaTable(bench, wrong=wrong)] * targets,  # type: ignore[list-item]
        )

    return make
