"""What a row of the acceptance table shows, judged on rows made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cases import CASES, Case, chosen
from quality import Place, command_line, from_report, last_line, shown
from verdicts import checks, holds, landing_note, landing_text, table

CASE = Case("net-0.45x", "net", "compress", "0.45x", 100, bound=0.9, aim=0.95, seconds=360, memory=3_000_000_000)
GOOD: dict[str, Any] = {
    "id": "net-0.45x",
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
    assert "exit 0" in _wrong(CASE, **answer)
    assert "exit 0" in _wrong(allowed, **answer | {"exit_code": 1})


def test_the_other_export_is_judged_by_its_partner() -> None:
    case = replace(CASE, name="net-dynamo", bound=None, partner="net-0.45x")
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
    bad = replace(CASE, name="bad")
    text = table([CASE, bad, replace(CASE, name="not run")], {"net-0.45x": GOOD, "bad": {**GOOD, "after": 0.1}})
    assert "1 of 2 rows hold" in text
    assert "not run" not in text
    assert "| **no**: metric |" in text


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
        command = shown(command_line(case, None if case.samples is None else "calib/x.npz"))
        assert "$ONNXPRUNE_ZOO/" in command
        assert " /" not in command
    place = Place(Path("/a/zoo"), Path("/b/out"))
    assert place.anonymous("error: /b/out/x.onnx and /a/zoo/m/model.onnx in /b/out") == (
        "error: x.onnx and $ONNXPRUNE_ZOO/m/model.onnx in ."
    )


def test_prune_has_no_latency_in_it() -> None:
    case = next(case for case in CASES if case.name == "resnet20-macs-0.5x")
    command = command_line(case, "calib/x.npz")
    assert command[0] == "prune"
    assert "--threads" not in command
    assert command[command.index("--macs") + 1] == "0.5x"


def test_rows_are_unique_and_partners_exist() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))
    assert {case.partner for case in CASES if case.partner} <= set(names)
    assert all(case.bound is not None or case.partner or case.floor_allowed or case.reference for case in CASES)


def test_rows_are_chosen_by_name_or_model() -> None:
    assert {case.model for case in chosen("minilm_l6", None)} == {"minilm_l6"}
    assert [case.name for case in chosen(None, "unet_sed-0.45x,resnet20-0.45x")] == ["resnet20-0.45x", "unet_sed-0.45x"]
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
