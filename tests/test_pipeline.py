"""The contract of passes: verification, reverting, reproducers, records; and the text form of pipelines."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx.parser
import pytest

import passes
from onnxprune import ir, pipeline_text
from onnxprune.errors import ModelError, UsageError
from onnxprune.pipeline import Pass, PassContext, PassManager, PassResult, Skip, parse_pipeline
from onnxprune.pipeline_text import format_pipeline, registry
from onnxprune.stats import Feeds
from onnxprune.verification import difference
from passes.constant_folding import ConstantFolding

TEXT = """<ir_version: 8, opset_import: ["" : 17]>
agraph (float[N,2] x) => (float[N,2] y) <float[2] w = {1, 2}> { c = Neg(w) a = Add(x, c) y = Relu(a) }"""


@pytest.fixture
def model():
    return ir.from_proto(onnx.parser.parse_model(TEXT))


@pytest.fixture
def feeds(model):
    return Feeds.from_arrays({"x": np.float32([[5, 6], [-1, 7], [2, 2]])}, model)


@dataclass(frozen=True)
class Scale:
    """Multiplies the weight: wrong by ``factor``."""

    name: ClassVar[str] = "scale"
    promise: ClassVar[Literal["exact", "tolerance", "lossy"]] = "tolerance"
    factor: float = 1.0
    label: str = "plain"
    axes: tuple[int, ...] = ()
    exact: bool = False
    limit: int | None = None
    kind: Literal["row", "column"] = "row"

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        weight = ir.initializers(model)["w"]
        weight.values = weight.values * np.float32(self.factor)
        return PassResult.of({"weights": 1}, [Skip("y", "not a weight")])


@dataclass(frozen=True)
class Broken:
    """Removes the node that the output needs."""

    name: ClassVar[str] = "broken"
    promise: ClassVar[Literal["exact", "tolerance", "lossy"]] = "exact"

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        model.graph.nodes.pop()
        return PassResult(True)


@dataclass(frozen=True)
class Renames(Broken):
    """Changes the signature."""

    name: ClassVar[str] = "renames"

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        model.graph.outputs[0].name = "z"
        return PassResult(True)


@dataclass(frozen=True)
class Raises(Broken):
    """Refuses the model."""

    name: ClassVar[str] = "raises"

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        raise ModelError("no")


def test_the_input_is_not_touched_and_the_result_is_kept(model, feeds):
    before = ir.text(model)
    result, records = PassManager().run(model, [ConstantFolding(), ConstantFolding()], PassContext(feeds=feeds))
    assert ir.text(model) == before
    assert [node.op for node in result.graph.nodes] == ["Add", "Relu"]
    assert [(r.name, r.modified, r.kept, dict(r.counts)) for r in records] == [
        ("constant-folding", True, True, {"folded": 1}),
        ("constant-folding", False, True, {}),
    ]
    assert all(record.seconds >= 0 for record in records)


@dataclass(frozen=True)
class Looks(Broken):
    """Changes nothing, and notes on which model it looked and what was found there."""

    name: ClassVar[str] = "looks"
    places: tuple[list[str], ...] = ()
    label: str = ""

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        self.places[0].append(ctx.finding("nodes", lambda: f"{len(model.graph.nodes)} nodes"))
        return PassResult(False, skips=(Skip("y", self.label),))


@pytest.mark.parametrize("verify", ["end", "each"])
def test_a_pass_that_changed_nothing_does_not_run_again_on_the_same_model(model, feeds, verify):
    places: list[str] = []
    once, other = Looks(places=(places,), label="a"), Looks(places=(places,), label="b")
    _, records = PassManager().run(
        model, [once, once, other, ConstantFolding(), once], PassContext(feeds=feeds, verify=verify)
    )
    assert places == ["3 nodes", "3 nodes", "2 nodes"]
    assert [[skip.reason for skip in record.skips] for record in records if record.name == "looks"] == [
        ["a"], ["a"], ["b"], ["a"],
    ]  # fmt: skip
    assert records[1].seconds == 0.0


def test_without_a_manager_nothing_is_held(model):
    ctx = PassContext()
    assert (ctx.finding("x", lambda: 1), ctx.finding("x", lambda: 2)) == (1, 2)


def test_a_wrong_weight_is_caught_and_reproduced(model, feeds, tmp_path):
    ctx = PassContext(feeds=feeds, work_dir=tmp_path, verify="each")
    result, records = PassManager().run(model, [Scale(factor=1.01), ConstantFolding()], ctx)
    assert [(record.modified, record.kept) for record in records] == [(False, False), (True, True)]
    assert "is off by" in records[0].error
    assert ir.initializers(result)["c"].values.tolist() == [-1, -2]
    before = ir.load(tmp_path / "scale.before.onnx")
    assert ir.text(before) == ir.text(model)
    assert "Scale(factor=1.01" in (tmp_path / "scale.txt").read_text()


def test_verification_at_the_end_finds_the_culprit(model, feeds):
    result, records = PassManager().run(model, [Scale(factor=1.01), ConstantFolding()], PassContext(feeds=feeds))
    assert [(record.name, record.kept) for record in records] == [("scale", False), ("constant-folding", True)]
    assert ir.initializers(result)["c"].values.tolist() == [-1, -2]


def test_a_change_inside_the_tolerance_is_kept(model, feeds):
    _, records = PassManager().run(model, [Scale(factor=1.0 + 1e-6)], PassContext(feeds=feeds, verify="each"))
    assert records[0].kept and records[0].skips == (Skip("y", "not a weight"),)


@pytest.mark.parametrize(("item", "reason"), [(Broken(), "checker"), (Renames(), "outputs changed")])
@pytest.mark.parametrize("verify", ["end", "each"])
def test_an_invalid_result_is_reverted_without_any_data(model, item, reason, verify):
    result, records = PassManager().run(model, [item], PassContext(verify=verify))
    assert ir.text(result) == ir.text(model)
    assert not records[0].kept and reason in records[0].error


def test_an_error_on_purpose_reaches_the_caller(model):
    with pytest.raises(ModelError, match="no"):
        PassManager().run(model, [Raises()], PassContext())


def test_nothing_is_compared_when_nothing_is_verified(model, feeds):
    result, records = PassManager().run(model, [Scale(factor=3.0)], PassContext(feeds=feeds, verify="none"))
    assert records[0].kept
    assert ir.initializers(result)["w"].values.tolist() == [3, 6]


@pytest.mark.parametrize(
    ("old", "new", "promise", "said"),
    [
        ([1.0, np.nan], [1.0, np.nan], "exact", ""),
        ([1.0, 2.0], [1.0, np.nextafter(np.float32(2), np.float32(3))], "exact", "is not bit-equal"),
        ([1.0, 2.0], [1.0, 2.00001], "tolerance", ""),
        ([1.0, 2.0], [1.0, 2.001], "tolerance", "is off by"),
        ([0.0, 0.0], [0.0, 0.0], "tolerance", ""),
        ([1.0, np.inf], [1.0, 2.0], "tolerance", "has other non-finite elements"),
        ([1.0, 2.0], [5.0, 6.0], "lossy", ""),
        ([1.0, 2.0], [5.0, np.nan], "lossy", "is no longer finite"),
    ],
)
def test_what_counts_as_a_difference(old, new, promise, said):
    found = difference(np.float32(old), np.float32(new), promise, 1e-5)
    assert found.startswith(said) and bool(found) == bool(said)


def test_shapes_and_types_always_have_to_agree():
    assert "changed from" in difference(np.zeros(2, np.float32), np.zeros(3, np.float32), "lossy", 1.0)
    assert "changed from" in difference(np.zeros(2, np.float32), np.zeros(2, np.int64), "lossy", 1.0)


def test_half_precision_gets_a_wider_tolerance():
    old, new = np.float16([1.0, 2.0]), np.float16([1.0, 2.01])
    assert difference(old, new, "tolerance", 1e-5) == ""


def test_parse_pipeline_builds_passes_with_options():
    items = parse_pipeline("constant-folding{max_growth=10, max-ratio=2},dead-code, flush-denormals{}")
    assert [item.name for item in items] == ["constant-folding", "dead-code", "flush-denormals"]
    assert items[0] == ConstantFolding(max_growth=10, max_ratio=2)
    assert all(isinstance(item, Pass) for item in items)


def test_options_take_their_type_from_the_field(monkeypatch):
    monkeypatch.setitem(passes.PASSES, "scale", f"{__name__}:Scale")
    monkeypatch.setattr(pipeline_text, "pass_class", lambda name: Scale)
    text = "scale{factor=0.5,label=a b,axes=1+2,exact=true,limit=7,kind=column}"
    assert parse_pipeline(text) == [Scale(0.5, "a b", (1, 2), True, 7, "column")]
    assert parse_pipeline("scale{limit=none}") == [Scale()]
    assert parse_pipeline(format_pipeline(parse_pipeline(text))) == parse_pipeline(text)
    for wrong in ("factor=x", "exact=yes", "kind=diagonal", "nothing=1", "factor", "factor=1,factor=2", "limit=1.5"):
        with pytest.raises(UsageError, match="scale"):
            parse_pipeline(f"scale{{{wrong}}}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("constant-foldin", "did you mean 'constant-folding'"),
        ("", "empty pass name"),
        ("dead-code,,dead-code", "empty pass name"),
        ("dead-code{", "do not match"),
        ("dead-code}", "do not match"),
        ("dead-code{a=1}x", "not closed"),
        ("dead-code{a={1}}", "do not match"),
        ("zzzzzz", "known passes: "),
    ],
)
def test_bad_pipelines_are_one_clear_line(text, said):
    with pytest.raises(UsageError, match=said) as caught:
        parse_pipeline(text)
    assert "\n" not in str(caught.value)


def test_every_registered_pass_loads():
    for name in passes.PASSES:
        cls = pipeline_text.pass_class(name)
        assert cls.name == name
        assert cls.promise in ("exact", "tolerance", "lossy")


@pytest.mark.parametrize("item", passes.canonical(), ids=lambda item: item.name)
def test_the_docstring_of_a_canonical_pass_says_everything(item):
    headings = ("Rewrites:", "Requires:", "Guarantees:", "Leaves alone:", "Options:", "References:")
    assert all(heading in type(item).__doc__ for heading in headings)


def test_passes_of_other_packages_are_found(monkeypatch):
    entry = importlib.metadata.EntryPoint("own-pass", "onnxprune.pipeline:PassRecord", pipeline_text.ENTRY_POINTS)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry])
    assert registry()["own-pass"] == "onnxprune.pipeline:PassRecord"


def test_a_pass_that_cannot_be_imported_is_a_usage_error(monkeypatch):
    monkeypatch.setitem(passes.PASSES, "lost", "no_such_module:Lost")
    with pytest.raises(UsageError, match="cannot be loaded"):
        parse_pipeline("lost")
