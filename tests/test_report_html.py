"""The HTML report: well formed, harmless whatever names hold, whole also where a run reached nothing."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from onnxprune import api
from onnxprune import report as facts
from onnxprune.errors import TargetNotMetError
from onnxprune.report_html import render

VOID = {"meta"}
EVIL = '</title><script>alert(\'x\')</script><img src="http://evil/" onerror="a()">\x1b[2J\ud800 &amp;'
FORBIDDEN_ATTRIBUTES = {"src", "href", "xlink:href", "action", "data", "srcset"}


class Page(HTMLParser):
    """Parses strictly: every element is closed in order; keeps elements, attributes, and the text by element."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if "td" in self.open:
            self.cells[-1] += data

    def all(self, tag: str, name: str) -> list[dict[str, str | None]]:
        return [attrs for found, attrs in self.elements if found == tag and name in (attrs.get("class") or "").split()]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def headings(self) -> list[str]:
        return [self.words[i] for i, word in enumerate(self.words) if word in HEADINGS]


HEADINGS = (
    "Before and after", "Latency", "Groups", "Dropped branches", "Search", "Passes", "Nodes left in float",
    "Output error", "Notes", "Run", "Models", "Host", "Versions",
)  # fmt: skip


def timing(milliseconds: float, runs: int) -> facts.LatencyFacts:
    raw = tuple(milliseconds / 1e3 * (1 + 0.001 * (i % 50)) for i in range(runs))
    return facts.LatencyFacts(milliseconds, milliseconds * 1.1, milliseconds * 1.2, milliseconds * 1.01, runs, raw)


def size(name: str | None, params: int) -> facts.ModelFacts:
    return facts.ModelFacts(name, "0" * 64, 20, params, 1_000 * params, 4 * params)


def short(**given: Any) -> facts.Report:
    target = facts.TargetFacts("ratio", 0.5, ("cpu",))
    return facts.Report(size("dir/m.onnx", 40_000), target, 0, {"cores": 2}, {"onnx": "1.20"}, **given)


def full(name: str = "w:0") -> facts.Report:
    made = short(
        met=True,
        output=size(f".staged-1/{name}", 10_000),
        baseline={"cpu": timing(2.0, 300)},
        result={"cpu": timing(0.9, 600)},
        speedup={"cpu": facts.SpeedupFacts(0.45, 0.44, 0.46, "FASTER")},
        drift=facts.DriftFacts("relative output error", 0.03, {name: 0.03}),
        eval=facts.EvalFacts("top1", 99.0, 98.5),
        opset=(11, 13),
        dropped_branches=(name,),
        float_nodes=(name,),
        groups=(facts.GroupFacts(name, "channel", 64, 16, (facts.RemovedSlices(name, 0, (1, 2)),)),),
        passes=[facts.PassFacts(name, True, 0.5, True, (name,)), facts.PassFacts("folding", True, 0.1, False)],
        search=[{"scheme": name, "dropped": 1, "narrowed": 2, "predicted_ratio": [0.48], "measured_ratio": [0.4512]}],
        oracle={"ok": True, "error": 0.0},
        notes=[name],
        stages={name: 1.0},
    )
    made.host = {"cpu": name, name: None}
    return made


def page(report: facts.Report) -> Page:
    return Page(render(report.to_dict()))


def test_everything_that_was_measured_is_on_the_page():
    shown = page(full())
    assert shown.headings == list(HEADINGS)
    assert "Target 0.5x: met cpu: 0.450x (95 %: at most 0.460x) FASTER" in shown.text
    assert shown.cells[:4] == ["latency P50, cpu", "2 ms", "900 us (95 %: at most 909 us)",
                               "0.450x (95 %: at most 0.460x) FASTER"]  # fmt: skip
    group = shown.cells.index("channel")
    assert shown.cells[group - 1 : group + 3] == ["w:0", "channel", "64", "16"]
    assert {"98.50", "0.480x", "0.451x", "reverted", "11 -> 13", "1.20"} <= set(shown.cells)
    assert [bar["width"] for bar in shown.all("rect", "after") if bar.get("height") == "10" and "x" not in bar] == [
        "25.0"
    ]


def test_names_of_a_model_stay_text():
    text = render(full(EVIL).to_dict())
    shown = Page(text)
    text.encode("utf-8")
    assert {tag for tag, _ in shown.elements}.isdisjoint({"script", "img", "a", "link", "iframe", "object", "use"})
    assert all(not name.startswith("on") for _, attrs in shown.elements for name in attrs)
    assert shown.headings == list(HEADINGS)
    assert "<script>alert('x')</script>" in shown.text
    assert "&amp;" in shown.text
    assert "\x1b" not in text


def test_the_page_loads_nothing():
    text = render(full().to_dict())
    assert not re.search(r"https?://|//\w|url\(|@import", text)
    assert not any(FORBIDDEN_ATTRIBUTES & attrs.keys() for _, attrs in Page(text).elements)
    assert "default-src 'none'" in text


@pytest.mark.parametrize("name", [None, "m.onnx"])
def test_a_run_that_reached_nothing(name):
    made = short(floor={"cpu": 0.61}, notes=["no calibration data"])
    made.model = size(name, 10)
    shown = page(made)
    assert "Target 0.5x: NOT met cpu: the lowest latency measured is 0.610x of the input model's" in shown.text
    assert shown.headings == ["Notes", "Run", "Models", "Host", "Versions"]
    assert "None" not in shown.text


def test_numbers_that_are_not_finite():
    made = full()
    made.drift = facts.DriftFacts("error", float("nan"), {"y": float("nan")})
    made.speedup = {"cpu": facts.SpeedupFacts(0.45, float("-inf"), float("inf"), "INCONCLUSIVE")}
    made.result = {"cpu": facts.LatencyFacts(0.9, 1.0, 1.1, float("inf"), 1, (0.0009,))}
    made.search = [{"scheme": "float", "measured_ratio": [float("nan")]}]
    made.eval = facts.EvalFacts("top1", 99.0)
    shown = page(made)
    assert "cpu: 0.450x INCONCLUSIVE" in shown.text
    assert shown.cells.count("not a number") == 3
    assert "900 us" in shown.cells


def test_the_histogram_holds_the_runs_and_tells_what_it_leaves_out():
    made = full()
    slow = timing(2.0, 300)
    made.baseline = {"cpu": facts.LatencyFacts(2.0, 2.2, 90.0, 2.1, 301, (*slow.raw_s, 0.09))}
    shown = page(made)
    before, after = (shown.all("path", name)[0]["d"] or "" for name in ("before", "after"))
    # the lower edge of each outline's highest step: the fast model's runs lie left of the slow one's
    assert _peak(after) < _peak(before)
    lines = {name: float(shown.all("line", name)[0]["x1"] or 0) for name in ("before", "after")}
    assert 30 <= lines["after"] < lines["before"] <= 690
    assert re.search(r"Slower runs than shown: \d before\.", shown.text)
    assert "after: P50 900 us, 600 runs" in shown.text


def _peak(outline: str) -> float:
    return min((float(y), float(x)) for y, x in re.findall(r"V([\d.]+)H([\d.]+)", outline))[1]


def test_equal_runs_and_no_runs():
    made = full()
    same = facts.LatencyFacts(1.0, 1.0, 1.0, 1.0, 3, (0.001,) * 3)
    made.baseline = made.result = {"cpu": same}
    assert len(page(made).all("path", "dist")) == 2
    made.baseline = made.result = {"cpu": facts.LatencyFacts(1.0, 1.0, 1.0, 1.0, 3)}
    assert "Latency" not in page(made).headings


def test_the_page_is_written_also_where_the_target_is_not_met(tmp_path: Path):
    missed = TargetNotMetError("floor 0.61x")
    with pytest.raises(TargetNotMetError):
        api._run(lambda progress: (None, short(), missed), None, tmp_path / "r.json", None, tmp_path / "r.html")
    assert "NOT met" in Page((tmp_path / "r.html").read_text(encoding="utf-8")).text
    assert {path.name for path in tmp_path.iterdir()} == {"r.json", "r.html"}
