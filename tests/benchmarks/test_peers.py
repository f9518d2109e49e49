"""Who is ahead is read from rows as they are kept, and the pictures show what was measured."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from machine_facts import MACHINE
from pareto import drawn, page
from pareto_picture import SERIES, front, panel_of, png, svg
from peer_table import OURS, TOOLS, VARIANTS, point, starts, variants
from peer_verdicts import WORTH_MEASURING, best, best_other, compare_text, curve, gain, mean_gain, verdicts
from peers import TOOLS_FOLDER, cut

STATIC = "ORT static int8"


def _made(tool: str, label: str, points: float | None, model: str = "net", error: str | None = None) -> dict[str, Any]:
    return {
        "id": f"{model}/{tool}/{label}",
        "model": model,
        "tool": tool,
        "label": label,
        "seconds": 3.0,
        "metric": "top1 <&>",
        "before": 0.9,
        "after": None if points is None else 0.9 - 0.01 * points,
        "points": points,
        "error": error,
    }


def _timed(model: str, ratios: dict[str, float]) -> dict[str, Any]:
    speedups = {
        name: {"ratio": ratio, "lower95": ratio - 0.01, "upper95": None, "verdict": "FASTER"}
        for name, ratio in ratios.items()
    }
    return {"id": model, "machine": MACHINE, "input": {"p50_ms": 1.0, "seconds": 9.0}, "speedups": speedups}


def _rows(*made: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in made}


MADE = _rows(
    _made(OURS, "0.5x", 0.4),
    _made(OURS, "0.3x", 1.4),
    _made(STATIC, "u8s8", 0.9),
    _made("onnxsim pruning", "5% of the channels", 1.0),
    _made("NNCF int8", "mixed", None, error="it ran too long"),
    _made("Torch-Pruning", "FPGM, 20%", 50.0),
)
RATIOS = {
    f"net/{OURS}/0.5x": 0.48,
    f"net/{OURS}/0.3x": 0.29,
    f"net/{STATIC}/u8s8": 1.1,
    "net/onnxsim pruning/5% of the channels": 0.96,
}
TIMED = {"net": _timed("net", RATIOS)}


def test_the_best_is_the_fastest_of_what_loses_one_point_at_most() -> None:
    assert best("net", OURS, MADE, TIMED).ratio == 0.48
    assert best("net", "onnxsim pruning", MADE, TIMED).label == "5% of the channels"
    slower = best("net", STATIC, MADE, TIMED)
    assert (slower.ratio, slower.label) == (1.0, "the input model")
    assert best_other("net", MADE, TIMED).tool == "onnxsim pruning"
    assert gain("net", MADE, TIMED) == pytest.approx(2.0)


def test_behind_on_one_model_is_behind_whatever_the_mean() -> None:
    made = {**MADE, **_rows(_made(OURS, "0.5x", 0.1, "two"), _made(STATIC, "u8s8", 0.1, "two"))}
    behind = {**TIMED, "two": _timed("two", {f"two/{OURS}/0.5x": 0.5, f"two/{STATIC}/u8s8": 0.48})}
    assert mean_gain(made, behind) == pytest.approx((2.0 * 0.96) ** 0.5)
    assert list(verdicts(made, behind).values()) == [False, False]
    assert "**behind**" in compare_text(made, behind)
    within_noise = {**TIMED, "two": _timed("two", {f"two/{OURS}/0.5x": 0.5, f"two/{STATIC}/u8s8": 0.495})}
    assert verdicts(made, within_noise)["never behind"] is True


def test_the_mean_is_geometric() -> None:
    made = {**MADE, **_rows(_made(OURS, "0.5x", 0.1, "two"))}
    timed = {**TIMED, "two": _timed("two", {f"two/{OURS}/0.5x": 1 / 1.125})}
    assert mean_gain(made, timed) == pytest.approx(1.5)
    assert list(verdicts(made, timed).values()) == [True, True]


def test_the_tables_say_what_was_not_measured_and_why() -> None:
    text = compare_text(MADE, TIMED)
    assert "- net/NNCF int8/mixed: it ran too long" in text
    assert "- net/Torch-Pruning/FPGM, 20%: loses 50.0 points" in text
    assert "| net | onnxprune | 0.3x | 0.290 (0.280 to ?) | 0.8860 | 1.40 | 3 |" in text
    assert compare_text(MADE, {}) == "Nothing was measured."
    assert [row["ratio"] for row in curve("net", MADE, TIMED)] == [0.29, 0.48, 0.96, 1.1]


def test_every_tool_has_its_script_and_its_mark() -> None:
    assert {variant.script for variant in VARIANTS} <= {path.name for path in TOOLS_FOLDER.glob("*.py")}
    assert set(SERIES) == {OURS, *TOOLS}
    names = [(variant.tool, variant.label) for variant in VARIANTS]
    assert len(names) == len(set(names))


def test_tools_for_some_models_run_on_those_alone() -> None:
    assert {variant.tool for variant in variants("resnet20")} == set(TOOLS)
    assert "Torch-Pruning" not in {variant.tool for variant in variants("unet_sed")}
    assert all(variant.settings["transformer"] for variant in variants("minilm_l6"))
    assert {"resnet20", "minilm_l6", "silero_vad"} <= set(starts())
    assert starts()["minilm_l6"].input_shapes == {"input_ids": (1, 32)}
    assert (point("espcn_superres"), point("resnet20")) == (0.35, 0.01)
    assert WORTH_MEASURING > 1


def test_the_front_keeps_what_no_other_beats() -> None:
    panel = panel_of("net", MADE, TIMED)
    assert front(panel, ours=True) == [(0.29, pytest.approx(0.886)), (0.48, pytest.approx(0.896)), (1.0, 0.9)]
    assert front(panel, ours=False) == [(0.96, pytest.approx(0.89)), (1.0, 0.9)]


def test_the_page_stands_alone_and_escapes_names() -> None:
    text = page(drawn(["net", "other"], MADE, TIMED), "Machine: <b>")
    assert text.count("<figure>") == 1
    assert "top1 &lt;&amp;&gt;" in text and "Machine: &lt;b&gt;" in text
    assert "http" not in text.replace("http-equiv", "") and "src=" not in text and "<script" not in text
    assert "color-scheme: light dark" in text
    assert svg(panel_of("net", MADE, TIMED)).count("<title>") == 4


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs matplotlib")
def test_the_picture_is_written(tmp_path: Path) -> None:
    png(drawn(["net"], MADE, TIMED), tmp_path / "pareto.png")
    assert (tmp_path / "pareto.png").read_bytes().startswith(b"\x89PNG")


def test_samples_are_cut_to_the_shape_that_models_are_made_for() -> None:
    """A model of 32 tokens does not run on 64, and the input model would take longer on them."""
    whole = {"ids": np.arange(12).reshape(2, 6), "mask": np.ones((2, 6)), "image": np.ones((2, 3, 6))}
    found = cut(whole, {"ids": (1, 4)})
    assert {name: values.shape for name, values in found.items()} == {"ids": (2, 4), "mask": (2, 4), "image": (2, 3, 6)}
    assert found["ids"].tolist() == [[0, 1, 2, 3], [6, 7, 8, 9]]
    assert cut(whole, {}).keys() == whole.keys()
