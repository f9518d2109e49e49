"""What a row of the acceptance table shows, judged on rows made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cases import CASES, Case, chosen, row_id
from place import Place, last_line
from quality import command_line, from_report, plan, shown
from verdicts import asked_of, checks, holds, landing_note, landing_text, medians, table

CASE = Case("net-0.45x", "net", "compress", "0.45x", 100, loss=0.06, aim=0.01, seconds=360, memory=3_000_000_000)
GOOD: dict[str, Any] = {
    "id": "net-0.45x@0",
    "seed": 0,
    "command": "onnxprune $ONNXPRUNE_ZOO/net/model.onnx",
    "machine": {
        "cpu": "processor",
        "cpu_model": "1/2/3",
        "cores": 2,
        "memory_gib": 8,
        "onnxruntime": "1.31.1",
        "commit": "abc",
        "threads": 1,
        "load": 0.1,
        "date": "2026-01-01 00:00 UTC",
    },
    "exit_code": 0,
    "traceback": False,
    "error": None,
    "seconds": 100.0,
    "peak_memory_bytes": 900_000_000,
    "written": True,
    "valid": True,
    "before": 0.96,
    "after": 0.93,
    "met": True,
    "ratio": 0.44,
    "upper95": 0.445,
    "verdict": "FASTER",
    "landing": 0.44 / 0.45,
    "least_above": None,
    "lossless_met": False,
    "nothing_between": False,
    "floor": None,
    "params_ratio": 0.5,
    "macs_ratio": 0.4,
    "notes": [],
}


def _wrong(case: Case, **changes: Any) -> list[str]:
    return [name for name, value in checks(case, {**GOOD, **changes}, {}).items() if value is False]


def test_a_row_that_holds() -> None:
    assert holds(checks(CASE, GOOD, {})) == "yes"


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"exit_code": 5}, "exit 0"),
        ({"valid": False}, "valid"),
        ({"met": False}, "met"),
        ({"after": 0.8999}, "metric"),
        ({"after": None}, "metric"),
        ({"verdict": "INCONCLUSIVE"}, "faster"),
        ({"traceback": True}, "no traceback"),
        ({"landing": 0.899}, "landing"),
        ({"landing": 1.001}, "landing"),
        ({"seconds": 361.0}, "time"),
        ({"peak_memory_bytes": 3_000_000_001}, "memory"),
    ],
)
def test_each_thing_that_is_asked_for_can_fail(changes: dict[str, Any], name: str) -> None:
    assert _wrong(CASE, **changes) == [name]


def test_a_floor_is_an_answer_where_it_is_allowed() -> None:
    answer = {"exit_code": 4, "floor": 0.9, "written": False, "met": False, "landing": None, "valid": None}
    allowed = replace(CASE, floor_allowed=True)
    assert _wrong(allowed, **answer) == []
    assert _wrong(allowed, **answer | {"floor": None}) == ["floor"]
    assert _wrong(allowed, **answer | {"written": True}) == ["nothing written"]
    assert _wrong(CASE, **answer) == ["reachable here"]
    assert "exit 0" in _wrong(CASE, **answer | {"floor": None})
    assert "exit 0" in _wrong(allowed, **answer | {"exit_code": 1})


def test_the_other_export_is_judged_by_its_partner() -> None:
    case = replace(CASE, name="net-dynamo", loss=None, partner="net-0.45x")
    assert checks(case, GOOD, {})["as net-0.45x"] is None
    assert holds(checks(case, GOOD, {})) == "open: as net-0.45x"
    assert checks(case, GOOD, {"net-0.45x": {**GOOD, "after": 0.935}})["as net-0.45x"] is True
    assert checks(case, GOOD, {"net-0.45x": {**GOOD, "after": 0.9351}})["as net-0.45x"] is False


def test_landing_low_is_excused_only_by_a_lossless_model_or_by_what_lies_above() -> None:
    low = {**GOOD, "landing": 0.7}
    assert checks(CASE, low, {})["landing"] is False
    assert checks(CASE, {**low, "lossless_met": True}, {})["landing"] is True
    assert "lossless" in str(landing_note(CASE, {**low, "lossless_met": True}))
    assert checks(CASE, {**low, "nothing_between": True}, {})["landing"] is True
    assert "0.470x" in str(landing_note(CASE, {**low, "least_above": 0.47}))
    assert landing_note(CASE, GOOD) is None


def test_landing_is_marked() -> None:
    assert landing_text({**GOOD, "landing": 0.98}) == "0.980"
    assert landing_text({**GOOD, "landing": 0.95}) == "0.950 (short of aim)"
    assert landing_text({**GOOD, "landing": 0.85}) == "0.850 (out)"
    assert landing_text({**GOOD, "landing": None}) == "-"


def test_a_reference_row_is_asked_nothing() -> None:
    assert holds(checks(replace(CASE, reference=True), {**GOOD, "exit_code": 1}, {})) == "for comparison"


def test_the_table_counts_what_holds() -> None:
    bad, far = replace(CASE, name="bad"), replace(CASE, name="far", hoped=True)
    cases = [CASE, bad, far, replace(CASE, name="not run")]
    runs = {"net-0.45x@0": GOOD, "bad@0": _run("bad", 0, 0.1), "far@0": _run("far", 0, 0.1)}
    text = table(cases, runs)
    assert "1 of 2 rows hold" in text
    assert "not run" not in text
    assert "| bad | **no**: metric |" in text
    assert "| far | hoped for: **no**: metric |" in text
    assert not asked_of(far)


def _run(name: str, seed: int, after: float | None, **changes: Any) -> dict[str, Any]:
    return {**GOOD, "id": f"{name}@{seed}", "seed": seed, "after": after, **changes}


def test_a_row_is_the_run_with_the_median_metric() -> None:
    runs = [_run("net-0.45x", 2, 0.91), _run("net-0.45x", 0, 0.95, traceback=True), _run("net-0.45x", 1, 0.93)]
    row = medians([CASE], {run["id"]: run for run in runs})["net-0.45x"]
    assert row["seed"] == 1
    assert row["lost_by_seed"] == pytest.approx([0.01, 0.03, 0.05])
    assert row["traceback"] is True
    assert "0.0100, 0.0300, 0.0500" in table([CASE], {run["id"]: run for run in runs})


def test_a_run_without_a_model_is_the_worst_and_two_runs_are_the_worse_of_them() -> None:
    runs = [_run("net-0.45x", 0, None, exit_code=4, floor=0.5), _run("net-0.45x", 1, 0.93)]
    assert medians([CASE], {run["id"]: run for run in runs})["net-0.45x"]["seed"] == 0
    runs.append(_run("net-0.45x", 2, 0.94))
    assert medians([CASE], {run["id"]: run for run in runs})["net-0.45x"]["seed"] == 1


def test_a_loss_of_exactly_what_may_be_lost_holds() -> None:
    assert 0.9173 - 0.9073 > 0.01
    case = replace(CASE, loss=0.01)
    assert checks(case, {**GOOD, "before": 0.9173, "after": 0.9073}, {})["metric"] is True
    assert checks(case, {**GOOD, "before": 0.9173, "after": 0.9072}, {})["metric"] is False


def test_first_seeds_come_first_and_some_rows_take_no_other() -> None:
    once = replace(CASE, name="once", seeds=1)
    runs = [row_id(case, seed) for case, seed in plan([CASE, once], (5, 6))]
    assert runs == ["net-0.45x@5", "once@5", "net-0.45x@6"]


def test_the_report_is_read() -> None:
    report = {
        "met": True,
        "speedup": {"cpu": {"ratio": 0.36, "lower95": 0.35, "upper95": 0.38, "verdict": "FASTER"}},
        "search": [{"measured_ratio": [0.5]}, {"measured_ratio": [0.47]}, {"measured_ratio": [0.36]}],
        "floor": {},
        "drift": {"value": 0.1},
    }
    row = from_report(CASE, report)
    assert row["landing"] == pytest.approx(0.8)
    assert row["least_above"] == 0.47
    assert row["lossless_met"] is False
    assert from_report(CASE, {**report, "search": []})["lossless_met"] is True
    for note, excused in (("measured 0.951x", True), ("measured 0.310x", False)):
        notes = [f"the certified latency is 0.554 of the target: the next larger level {note}"]
        assert from_report(CASE, {**report, "notes": notes})["nothing_between"] is excused
    notes = ["the certified latency is 0.554 of the target: no larger level loses less"]
    assert from_report(CASE, {**report, "notes": notes})["nothing_between"] is True
    assert from_report(CASE, {"met": False, "floor": {"cpu": 0.6}})["floor"] == 0.6
    assert from_report(CASE, {})["met"] is None


def test_commands_name_no_folder_of_a_machine() -> None:
    for case in CASES:
        command = shown(command_line(case, 0, None if case.samples is None else "calib/x.npz"))
        assert "$ONNXPRUNE_ZOO/" in command
        assert " /" not in command
    place = Place(Path("/a/zoo"), Path("/b/out"))
    assert place.anonymous("error: /b/out/x.onnx and /a/zoo/m/model.onnx in /b/out") == (
        "error: x.onnx and $ONNXPRUNE_ZOO/m/model.onnx in ."
    )


def test_prune_has_no_latency_in_it() -> None:
    case = next(case for case in CASES if case.name == "resnet20-macs-0.5x")
    command = command_line(case, 0, "calib/x.npz")
    assert command[0] == "prune"
    assert "--threads" not in command
    assert command[command.index("--macs") + 1] == "0.5x"


def test_rows_are_unique_and_partners_exist() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))
    assert {case.partner for case in CASES if case.partner} <= set(names)
    assert {case.beside for case in CASES if case.beside} <= set(names)
    judged = [case for case in CASES if case.loss is None and case.partner is None and case.seconds is None]
    assert all(case.floor_allowed or case.reference for case in judged)


def test_rows_are_chosen_by_name_or_model() -> None:
    assert {case.model for case in chosen("minilm_l6", None)} == {"minilm_l6"}
    assert [case.name for case in chosen(None, "unet_sed-0.35x,resnet20-0.40x")] == ["resnet20-0.40x", "unet_sed-0.35x"]
    with pytest.raises(SystemExit, match="no row 'nothing'"):
        chosen(None, "nothing")
    with pytest.raises(SystemExit, match="no row for model"):
        chosen("nothing", None)


def test_the_last_line_of_a_message() -> None:
    assert last_line("first\n last \n\n") == "last"
    assert last_line("") == ""


@pytest.mark.zoo
def test_every_model_of_the_zoo_has_a_row(zoo: Path) -> None:
    there = {path.parent.name + "/" + path.name for path in zoo.glob("*/*.onnx")}
    assert {f"{case.model}/{case.file}" for case in CASES} == there
