"""From the recorded rows of the acceptance table to what they show, and to Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cases import GB, LANDING, LANDING_AIM, Case, row_id
from recording import machines_text, markdown_table

Row = Mapping[str, Any]
Rows = Mapping[str, Row]
Checks = dict[str, bool | None]
"""What was asked, and whether it is so; None where it cannot be said yet."""

HEAD = (
    "row",
    "holds",
    "exit",
    "met",
    "ratio (95 % bound)",
    "landing",
    "metric before",
    "after",
    "lost",
    "must lose at most",
    "aim",
    "lost by seed",
    "params",
    "MACs",
    "seconds",
    "peak MB",
)


LOST_NOTHING = 1e-9  # under which a difference of two metrics is rounding


def medians(cases: Iterable[Case], runs: Rows) -> dict[str, Row]:
    """By name of the row, the run whose metric is the median over the seeds: the lower of two, and a run without a
    model is the worst. It tells of all: `lost_by_seed`, and whether any of them had a traceback.
    """
    found: dict[str, Row] = {}
    for case in cases:
        seeds = [run for run in runs.values() if run["id"] == row_id(case, run["seed"])]
        if not seeds:
            continue
        ranked = sorted(seeds, key=lambda run: float("-inf") if run["after"] is None else run["after"])
        found[case.name] = {
            **ranked[(len(ranked) - 1) // 2],
            "lost_by_seed": [lost(run) for run in sorted(seeds, key=lambda run: run["seed"])],
            "traceback": any(run["traceback"] for run in seeds),
        }
    return found


def lost(row: Row) -> float | None:
    """What the metric fell by; None where there is no model."""
    return None if row["after"] is None else row["before"] - row["after"]


def asked_of(case: Case) -> bool:
    """Whether anything depends on what a row shows."""
    return not (case.reference or case.hoped)


def checks(case: Case, row: Row, rows: Rows) -> Checks:
    """What the acceptance table asks of a row. Empty for a row that is only there for comparison."""
    if case.reference:
        return {}
    found: Checks = {"no traceback": not row["traceback"]}
    if case.floor_allowed and row["exit_code"] == 4:
        return {**found, "floor": row["floor"] is not None, "nothing written": not row["written"]}
    if row["exit_code"] == 4 and row["floor"] is not None:
        return {**found, "reachable here": False}
    found["exit 0"] = row["exit_code"] == 0
    found["valid"] = bool(row["valid"])
    found["met"] = bool(row["met"])
    if case.kind == "compress":
        found["faster"] = row["verdict"] == "FASTER"
        found["landing"] = _lands(row)
    if case.loss is not None:
        gone = lost(row)
        found["metric"] = gone is not None and gone <= case.loss + LOST_NOTHING
    if case.partner is not None:
        found[f"as {case.partner}"] = _like_partner(case, row, rows)
    if case.seconds is not None:
        found["time"] = row["seconds"] <= case.seconds
    if case.memory is not None:
        found["memory"] = row["peak_memory_bytes"] <= case.memory
    return found


def _lands(row: Row) -> bool:
    low, high = LANDING
    share = row["landing"]
    excused = bool(row["lossless_met"] or row["nothing_between"])
    return share is not None and (low < share or excused) and share <= high


def _like_partner(case: Case, row: Row, rows: Rows) -> bool | None:
    partner = rows.get(case.partner or "")
    if partner is None:
        return None
    if row["after"] is None or partner["after"] is None:
        return False
    return bool(row["after"] >= partner["after"] - case.within)


def holds(found: Checks) -> str:
    """One word, and what does not hold."""
    wrong = [name for name, value in found.items() if value is False]
    if wrong:
        return f"**no**: {', '.join(wrong)}"
    open_ = [name for name, value in found.items() if value is None]
    if open_:
        return f"open: {', '.join(open_)}"
    return "yes" if found else "for comparison"


def landing_text(row: Row) -> str:
    """The certified P50 over the target; marked where it is outside of what is asked, or short of the aim."""
    share = row["landing"]
    if share is None:
        return "-"
    low, high = LANDING
    mark = " (out)" if not low < share <= high else "" if share > LANDING_AIM else " (short of aim)"
    return f"{share:.3f}{mark}"


def landing_note(case: Case, row: Row) -> str | None:
    """Why a row lands below what is asked, as far as its search says: a reader judges whether a larger level was to be
    had.
    """
    if row["landing"] is None or row["landing"] > LANDING[0] or not row["met"]:
        return None
    if row["lossless_met"]:
        return f"{case.name}: the lossless passes alone meet the target"
    if row["nothing_between"]:
        return f"{case.name}: no level between this one and the target loses less, says its report"
    above = row["least_above"]
    if above is None:
        return f"{case.name}: lands low, and no model above the target was tried"
    return f"{case.name}: lands low; the least that was measured above the target is {above:.3f}x"


def table(cases: Iterable[Case], runs: Rows) -> str:
    """The Markdown of all rows that were run: machines, table, notes, commands."""
    cases = list(cases)
    rows = medians(cases, runs)
    done = [(case, rows[case.name]) for case in cases if case.name in rows]
    if not done:
        return "No row was run."
    found = [(case, row, checks(case, row, rows)) for case, row in done]
    asked = [each for case, _, each in found if asked_of(case)]
    held = sum(all(value is True for value in each.values()) for each in asked)
    notes = [note for case, row in done for note in _notes(case, row)]
    names = {row_id(case, run["seed"]) for case in cases for run in runs.values()}
    parts = [
        machines_text(run for name, run in runs.items() if name in names),
        f"{held} of {len(asked)} rows hold everything that is asked of them.",
        markdown_table(HEAD, [_line(*each) for each in found]),
        "\n".join(f"- {note}" for note in notes),
        "```\n" + "\n".join(row["command"] for _, row in done) + "\n```",
    ]
    return "\n\n".join(part for part in parts if part)


def _line(case: Case, row: Row, found: Checks) -> list[str]:
    return [
        case.name,
        f"hoped for: {holds(found)}" if case.hoped else holds(found),
        str(row["exit_code"]),
        "-" if row["met"] is None else "yes" if row["met"] else "no",
        _ratio(row),
        landing_text(row),
        _number(row["before"]),
        _number(row["after"]),
        _loss(lost(row)),
        _must(case),
        _loss(case.aim),
        ", ".join(_loss(value) for value in row["lost_by_seed"]),
        _share(row["params_ratio"]),
        _share(row["macs_ratio"]),
        f"{row['seconds']:.0f}",
        f"{row['peak_memory_bytes'] * 1000 / GB:.0f}",
    ]


def _must(case: Case) -> str:
    return f"{case.partner} - {case.within:g}" if case.partner else _loss(case.loss)


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _ratio(row: Row) -> str:
    if row["ratio"] is None:
        return "-" if row["floor"] is None else f"floor {row['floor']:.3f}"
    bound = "" if row["upper95"] is None else f" ({row['upper95']:.3f})"
    return f"{row['ratio']:.3f}{bound}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}" if abs(value) < 2 else f"{value:.2f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}x"


def _notes(case: Case, row: Row) -> list[str]:
    notes = [landing_note(case, row)]
    if row["error"]:
        notes.append(f"{case.name}: {row['error']}")
    notes.extend(f"{case.name}: {note}" for note in row["notes"])
    return [note for note in notes if note]
