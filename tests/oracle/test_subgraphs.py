"""Networks inside If, Loop and Scan: what is prunable there, pruned, equals masked; and the oracle can tell."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnx
import pytest
from graph_builder import SeededChooser
from nesting import SHAPES, nested_feeds, random_nested
from proving import Outcome, prove_groups

from onnxprune import canonicalize, channels, ir
from passes.structured_pruning.apply import delete, prune
from passes.verify_masking import verify

Feeds = list[dict[str, np.ndarray]]


def _prove(seed: int, kinds: str, most: int = 5) -> Outcome:
    model = random_nested(SeededChooser(seed), kinds, most)
    rng = np.random.default_rng(seed)
    feeds = nested_feeds(model, rng, bool(seed % 2))
    canonical = canonicalize(model)
    assert verify(model, canonical, {}, feeds).ok
    outcome = prove_groups(canonical, feeds, rng, most=2)
    assert outcome.failure is None, (
        seed,
        kinds,
        outcome.failure,
        {k: np.flatnonzero(~v) for k, v in outcome.keep.items()},
    )
    return outcome


@pytest.mark.parametrize("kinds", SHAPES)
def test_pruned_equals_masked(kinds: str) -> None:
    found = [_prove(seed, kinds).groups for seed in range(4)]
    assert sum(count > 0 for count in found) >= 2, found


@pytest.mark.slow
@pytest.mark.parametrize("kinds", SHAPES)
def test_pruned_equals_masked_often(kinds: str) -> None:
    for seed in range(100, 200):
        _prove(seed, kinds, 9)


def _body_net() -> tuple[ir.Model, Feeds]:
    """relu(x A) B in both branches of an If, with other weights."""
    rng = np.random.default_rng(0)
    branches = ""
    for name in ("then_branch", "else_branch"):
        a, b = (", ".join(f"{v:.4f}" for v in rng.standard_normal(count)) for count in (12, 8))
        branches += f"{',' if branches else ''} {name} = g () => (float[2,2] y) <float[3,4] A = {{{a}}}, "
        branches += f"float[4,2] B = {{{b}}}> {{ m = MatMul(x, A) r = Sigmoid(m) y = MatMul(r, B) }}"
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> '
        f"net (float[2,3] x_in, bool c) => (float[2,2] z) {{ x = Abs(x_in) z = If<{branches}>(c) }}"
    )
    loaded = ir.from_proto(model)
    ir.infer_shapes(loaded)
    return loaded, [{"x_in": rng.standard_normal((2, 3)).astype(np.float32), "c": np.asarray(True)}]


def test_the_oracle_proves_the_branch_that_the_inputs_do_not_take() -> None:
    original, feeds = _body_net()
    graph = channels.analyze(original)
    assert [group.name for group in graph.groups] == ["A:1", "A_1:1"]
    for name in ("A:1", "A_1:1"):
        keep = {name: np.array([True, False, True, True])}
        right = original.copy()
        prune(right, graph, keep)
        assert verify(original, right, graph.removals(keep), feeds).ok
        other = original.copy()
        wrong = {name: np.array([True, True, False, True])}
        delete(other, graph.removals(wrong))
        verdict = verify(original, other, graph.removals(keep), feeds)
        assert not verdict.ok and verdict.error > 1, name


def test_non_interference_reaches_weights_of_bodies() -> None:
    """A plan that names the producers alone leaves the contraction reading what was removed."""
    original, feeds = _body_net()
    graph = channels.analyze(original)
    removed = graph.removals({"A:1": np.array([True, False, True, True])})
    masked = {key: indices for key, indices in removed.items() if key[0] == "A"}
    verdict = verify(original, original, masked, feeds)
    assert not verdict.ok and verdict.proof == "non-interference"


def test_final_weights_of_a_body_are_scattered_back() -> None:
    original, feeds = _body_net()
    graph = channels.analyze(original)
    keep = {"A:1": np.array([True, False, True, True])}
    small = original.copy()
    prune(small, graph, keep)
    weights = ir.initializers(ir.graphs(small)[1])
    weights["B"].values = weights["B"].values + np.float32(0.5)
    removed = graph.removals(keep)
    assert not verify(original, small, removed, feeds).ok
    assert verify(original, small, removed, feeds, weights="final").ok
    assert verify(original, small, removed, feeds, weights="final", float64=True).ok


def test_weights_of_a_scripted_pytorch_loop_and_condition() -> None:
    """TorchScript leaves them outside of the bodies, and the size of the loop's state open."""
    torch = pytest.importorskip("torch")

    class Block(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = torch.nn.Linear(8, 16), torch.nn.Linear(16, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[name-defined]
            return self.b(torch.relu(self.a(x)))

    class Net(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.loop, self.other = Block(), Block()

        def forward(self, x: torch.Tensor, n: int) -> torch.Tensor:  # type: ignore[name-defined]
            for _ in range(n):
                x = x + self.loop(x)
            return self.other(x) if bool(x.sum() > 0) else x * 2.0

    torch.manual_seed(0)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.script(Net().eval())
        names = {"input_names": ["x", "n"], "dynamic_axes": {"x": {0: "N"}}}
        torch.onnx.export(script, (torch.randn(2, 8), torch.tensor(3)), buffer, dynamo=False, opset_version=17, **names)
    original = ir.from_proto(canonicalize(onnx.load_model_from_string(buffer.getvalue())))
    ir.infer_shapes(original)
    graph = channels.analyze(original)
    assert [(group.name, group.width) for group in graph.groups] == [("loop.a.weight:0", 16), ("other.a.weight:0", 16)]
    rng = np.random.default_rng(0)
    keep = {group.name: rng.permutation(16) < 10 for group in graph.groups}
    small = original.copy()
    prune(small, graph, keep)
    for trips in (0, 1, 3):
        feeds = {"x": rng.standard_normal((5, 8)).astype(np.float32), "n": np.asarray(trips)}
        verdict = verify(original, small, graph.removals(keep), [feeds])
        assert verdict.ok, (trips, verdict)
