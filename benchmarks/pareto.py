"""Draws latency against metric for six models, onnxprune and the other tools, from what peers.py measured.

    python benchmarks/pareto.py [--peers FOLDER] [--models A,B] [--html FILE] [--png FILE]

FOLDER is the --out of peers.py. The page holds its pictures itself, loads nothing, and follows the reader's light or
dark colours. The PNG needs the extra `report` (matplotlib) and is skipped without it. Exit code 1 where nothing was
measured.
"""

from __future__ import annotations

import argparse
import html
import sys
from collections.abc import Sequence
from pathlib import Path

from pareto_picture import SERIES, Panel, panel_of, png, svg
from peer_verdicts import Rows
from recording import machines_text, read_lines

MODELS = ("resnet20", "squeezenet11", "unet_sed", "espcn_superres", "ultraface_rfb320", "magika_v3_3")
DOCS = Path(__file__).resolve().parent.parent / "docs"

STYLE = """
:root { color-scheme: light dark; --line: #8886; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } figure { margin: 0; } figcaption { font-weight: 600; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(21rem, 1fr)); gap: 1.5rem; }
.chart { width: 100%; height: auto; } .chart text { font: 11px system-ui, sans-serif; fill: currentColor; }
.axis { stroke: currentColor; fill: none; } .grid { stroke: var(--line); }
.allowed { stroke: currentColor; stroke-dasharray: 2 4; } .front { fill: none; stroke-width: 2; }
.legend { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; }
.legend svg { width: 1rem; height: 1rem; vertical-align: -.15rem; }
""".strip()

HEAD = (
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
)


def main() -> int:
    """Draws what there is."""
    asked = _arguments()
    made, timed = (read_lines(asked.peers / name) for name in ("variants.jsonl", "latencies.jsonl"))
    panels = drawn(asked.models.split(","), made, timed)
    if not panels:
        print(f"nothing was measured in {asked.peers}: run peers.py first", file=sys.stderr)
        return 1
    asked.html.write_text(page(panels, machines_text(timed[panel.model] for panel in panels)), encoding="utf-8")
    try:
        png(panels, asked.png)
    except ImportError:
        print("no PNG: matplotlib is not installed; pip install 'onnxprune[report]'", file=sys.stderr)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, default=Path("build/peers"), help="default: %(default)s")
    parser.add_argument("--models", default=",".join(MODELS), help="default: %(default)s")
    parser.add_argument("--html", type=Path, default=DOCS / "pareto.html", help="default: docs/pareto.html")
    parser.add_argument("--png", type=Path, default=DOCS / "pareto.png", help="default: docs/pareto.png")
    return parser.parse_args()


def drawn(models: Sequence[str], made: Rows, timed: Rows) -> list[Panel]:
    """The panels of the models that were measured."""
    return [panel_of(model, made, timed) for model in models if timed.get(model, {}).get("speedups")]


def page(panels: Sequence[Panel], machines: str) -> str:
    """The whole page as text."""
    figures = "\n".join(
        f"<figure><figcaption>{_text(panel.model)}: {_text(panel.metric)}</figcaption>\n{svg(panel)}</figure>"
        for panel in panels
    )
    there = {point.tool for panel in panels for point in panel.points}
    legend = "\n".join(f"<li>{_key(tool)} {_text(tool)}</li>" for tool in SERIES if tool in there)
    about = (
        "Each mark is one model: its latency as a share of the input model's, measured interleaved with all others of "
        "its picture, and the metric on the evaluation data. Up and left is better. The dotted line is one point of "
        "loss; lines join the models that no other of the same side beats in both. Nothing was trained."
    )
    title = "Latency against accuracy"
    return (
        f"{HEAD}<title>{title}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n<h1>{title}</h1>\n<p>{about}</p>\n"
        f'<ul class="legend">\n{legend}\n</ul>\n<div class="panels">\n{figures}\n</div>\n<p>{_text(machines)}</p>\n'
        "</body>\n</html>\n"
    )


def _key(tool: str) -> str:
    colour, sign = SERIES[tool]
    return f'<svg viewBox="-8 -8 16 16" role="img" aria-hidden="true">{sign.svg(0, 0, colour)}</svg>'


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)


if __name__ == "__main__":
    sys.exit(main())
