"""A latency table reproduces a result: on a machine whose latencies are half noise, and on another one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onnxprune import api, ir
from onnxprune.errors import DataError, TargetNotMetError
from onnxprune.search.structure import structure
from runtime_bench import Comparison, Speedup, Target
from runtime_bench.comparison import LAUNCHES

Residual = Callable[..., ir.Model]
Run = Callable[..., api.Result]


@pytest.fixture
def run(residual: Residual, tmp_path: Path) -> Run:
    """`run(table)`: compresses one small model to 0.6x with that latency table."""
    path = tmp_path / "model.onnx"
    ir.save(residual(blocks=1, width=8, inner=8), path)

    def compressed(table: Path | None, **options: Any) -> api.Result:
        options = {
            "target_latency": "0.6x",
            "precision": ["fp32"],
            "threads": 1,
            "effort": "fast",
            "best_effort": True,
            **options,
        }
        return api.compress(path, latency_table=table, cache_dir=tmp_path / "cache", **options)

    return compressed


def decided(result: api.Result) -> Any:
    return result.report["search"], result.report["groups"], result.report["dropped_branches"], result.report["scheme"]


def test_a_table_reproduces_the_bytes(noisy_machine: Any, run: Run, tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    first = run(table)
    written = table.read_bytes()
    assert first.report["latency_table"]["measured"] > 20 and not first.report["latency_table"]["measured_elsewhere"]
    again = run(table)
    assert again.model.SerializeToString(deterministic=True) == first.model.SerializeToString(deterministic=True)
    assert decided(again) == decided(first)
    assert again.report["latency_table"]["measured"] == 0 < again.report["latency_table"]["taken"]
    assert table.read_bytes() == written
    assert again.report["speedup"]["cpu"]["ratio"] != first.report["speedup"]["cpu"]["ratio"]  # measured here, now
    without = run(None)
    assert without.report["latency_table"] is None and without.report["search"] != first.report["search"]
    (cache,) = (tmp_path / "cache").iterdir()
    (section,) = json.loads(cache.read_text())["sections"]
    assert section["ratios"] and not section["looks"]  # whole models are of the day


def test_another_machine_takes_the_decisions_and_speaks_for_itself(
    noisy_machine: Any, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "table.json"
    here, there = Speedup(0.5, 0.5, 0.5, "FASTER"), Speedup(1.5, 1.4, 1.6, "SLOWER")
    monkeypatch.setattr("onnxprune.search.certify.compare", certifying(noisy_machine, here))
    first = run(table)
    monkeypatch.setattr("runtime_bench.latency_table.fingerprint", lambda runtime: "elsewhere")
    monkeypatch.setattr("onnxprune.search.certify.compare", certifying(noisy_machine, there))
    for name in ("quick_ratio", "measure_many"):
        monkeypatch.setattr(noisy_machine.bench, name, lambda *a, **k: pytest.fail("a decision was measured"))
    again = run(table, best_effort=False)
    assert again.model == first.model and decided(again) == decided(first)
    assert first.report["met"] is True and again.report["met"] is False
    assert again.report["speedup"]["cpu"]["ratio"] == 1.5
    assert len(again.report["latency_table"]["measured_elsewhere"]) == 1
    assert any("measured elsewhere" in note for note in again.report["notes"])
    assert any("here the 95 % bound is 2.667" in note for note in again.report["notes"])


def certifying(machine: Any, speedup: Speedup) -> Callable[..., Comparison]:
    """A machine on which the certificate of any model says this."""

    def compare(*arguments: Any, **options: Any) -> Comparison:
        exact = machine.exact_compare(*arguments, **options)
        return replace(exact, arms=(exact.arms[0], *(replace(arm, speedup=speedup) for arm in exact.arms[1:])))

    return compare


def test_a_failed_certificate_is_a_decision_too(
    noisy_machine: Any, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What made the search try smaller is replayed; only the certificate that it ends with is measured."""
    table = tmp_path / "table.json"
    calls: list[Path] = []

    def certified(models: Sequence[Path], target: Target, feeds: Any = None, **options: Any) -> Comparison:
        calls.append(models[-1])
        exact = noisy_machine.exact_compare(models, target, feeds, **options)
        ratio = exact.speedup().ratio * (1.3 if len(calls) == 1 else 1.0)
        worse = replace(exact.arms[-1], speedup=Speedup(ratio, ratio, ratio, "FASTER"))
        return replace(exact, arms=(*exact.arms[:-1], worse))

    monkeypatch.setattr("onnxprune.search.certify.compare", certified)
    first = run(table)
    assert len(calls) >= 2
    before = len(calls)
    again = run(table)
    assert len(calls) == before + 1
    assert again.model == first.model and decided(again) == decided(first)


def test_a_bound_that_alone_misses_is_measured_again(
    noisy_machine: Any, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From twice as many processes, and another run takes both certificates from the table."""
    table = tmp_path / "table.json"
    asked: list[tuple[Path, int]] = []

    def certified(models: Sequence[Path], target: Target, feeds: Any = None, **options: Any) -> Comparison:
        asked.append((models[-1], options["launches"]))
        exact = noisy_machine.exact_compare(models, target, feeds, **options)
        ratio = 0.95 * 0.6
        bound = ratio * (1.1 if options["launches"] == LAUNCHES else 1.01)
        close = replace(exact.arms[-1], speedup=Speedup(ratio, ratio, bound, "FASTER"))
        return replace(exact, arms=(*exact.arms[:-1], close))

    monkeypatch.setattr("onnxprune.search.certify.compare", certified)
    first = run(table)
    assert [launches for _, launches in asked] == [LAUNCHES, 2 * LAUNCHES]
    assert asked[0][0] == asked[1][0] and first.report["met"] is True
    again = run(table)
    assert [launches for _, launches in asked[2:]] == [2 * LAUNCHES]
    assert again.model == first.model and again.report["met"] is True


def test_two_providers_in_one_table(noisy_machine: Any, run: Run, tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    first = run(table, eps=("cpu", "xnnpack"))
    sections = json.loads(table.read_text())["sections"]
    assert [s["target"]["provider"] for s in sections] == ["CPUExecutionProvider", "XnnpackExecutionProvider"]
    assert all(s["ratios"] and s["looks"] and s["reference_s"] for s in sections)
    assert set(first.report["speedup"]) == {"cpu", "xnnpack"}
    assert all(
        len(entry["measured_ratio"]) == len(entry["predicted_ratio"]) == 2
        for entry in first.report["search"]
        if entry["predicted_ratio"]
    )
    again = run(table, eps=("cpu", "xnnpack"))
    assert again.model == first.model and again.report["latency_table"]["measured"] == 0
    confirmed = [entry for entry in first.report["search"] if "fresh_ratio" in entry]  # others may be over the target
    assert max(confirmed[-1]["measured_ratio"]) <= 0.7
    one = run(table)  # its section serves it alone, and it adds what only it needs
    assert one.report["latency_table"]["taken"] > 0


def test_a_file_that_is_no_table_costs_no_search(run: Run, tmp_path: Path) -> None:
    (tmp_path / "table.json").write_text("dear diary")
    with pytest.raises(DataError, match="is no latency table"):
        run(tmp_path / "table.json")


def test_a_floor_is_reproduced(noisy_machine: Any, run: Run, tmp_path: Path) -> None:
    floors = []
    for _ in range(2):
        with pytest.raises(TargetNotMetError) as caught:
            run(tmp_path / "table.json", target_latency="0.001x", best_effort=False)
        floors.append(caught.value.report["floor"])  # type: ignore[attr-defined]
    assert floors[0] == floors[1]


def test_structure_is_what_latency_depends_on(residual: Residual, tmp_path: Path) -> None:
    def of(model: ir.Model) -> str:
        path = tmp_path / "m.onnx"
        ir.save(model, path, overwrite=True)
        return structure(path)

    plain = of(residual(blocks=1))
    assert plain.startswith("3Conv+3Relu+1Add ") and of(residual(blocks=1, seed=5)) == plain
    assert len({plain, of(residual(blocks=2)), of(residual(blocks=1, width=12)), of(residual(blocks=1, inner=12))}) == 4
    renamed, padded, moved = residual(blocks=1), residual(blocks=1), residual(blocks=1)
    for tensor in renamed.all_tensors():
        tensor.name = f"other_{tensor.name}"
    padded.graph.nodes[0].attrs["group"] = 1
    assert of(renamed) == plain != of(padded)
    node = next(n for n in moved.graph.nodes if n.op == "Add")
    node.inputs[0] = node.inputs[1]
    assert of(moved) != plain
