"""The graph of groups, and its text in the DOT language. A node is a group, or axes that are frozen together; an edge
goes from one to another where a weight sums the first away and makes the second.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import networkx as nx
import numpy as np

from onnxprune.channels.causes import grouped
from onnxprune.channels.collect import Tables
from onnxprune.channels.explain import frozen_axes
from onnxprune.channels.groups import Frozen, Group
from onnxprune.channels.links import AxisKey
from onnxprune.channels.shares import Shares
from onnxprune.channels.solve import Solution


def group_graph(tables: Tables, solution: Solution, groups: tuple[Group, ...], shares: Shares) -> nx.DiGraph[str]:
    """Nodes carry `label` and `frozen`; groups also `kind`, `width`, `exact` and `share` (of MACs and parameters)."""
    graph: nx.DiGraph[str] = nx.DiGraph()
    makes: dict[str, set[str]] = defaultdict(set)
    sums: dict[str, set[str]] = defaultdict(set)
    for group in groups:
        share = shares.groups[group.name]
        size = f"{group.width} {group.kind}{'' if group.width == 1 else 's'}{'' if group.exact else ', approximate'}"
        label = f"{group.name}\n{size}\n{share.macs:.1%} of MACs, {share.params:.1%} of parameters"
        facts = {"kind": group.kind, "width": group.width, "exact": group.exact, "share": tuple(share)}
        graph.add_node(group.name, label=label, frozen=False, **facts)
        for tensor, _ in group.producers:
            makes[tensor].add(group.name)
        for contraction in group.contractions:
            sums[contraction.tensor].add(group.name)
    summed = [tables.keys[each.axis] for each in tables.summed]
    for name, axes in _together(tables, solution, frozen_axes(tables, solution, groups)).items():
        more = f" and {len(axes) - 1} more" if len(axes) > 1 else ""
        graph.add_node(name, label=f"{_text(axes[0].axis)}{more}\nfrozen: {axes[0].reason}", frozen=True)
        for each in axes:
            makes[each.axis[0]].add(name)
        for tensor in _sharing(tables, solution, groups, axes, summed):
            sums[tensor].add(name)
    graph.add_edges_from(
        (a, b) for tensor, before in sums.items() for a in sorted(before) for b in sorted(makes[tensor])
    )
    return graph


def to_dot(graph: nx.DiGraph[str]) -> str:
    """The DOT text: frozen nodes are grey. Names and labels may hold any characters."""
    lines = ["digraph channels {", "  rankdir=TB;", '  node [shape=box, fontname="sans-serif"];']
    for name, facts in graph.nodes(data=True):
        style = ", style=filled, fillcolor=lightgrey, fontcolor=dimgrey" if facts["frozen"] else ""
        lines.append(f"  {quoted(name)} [label={quoted(facts['label'])}{style}];")
    lines += [f"  {quoted(a)} -> {quoted(b)};" for a, b in graph.edges]
    return "\n".join([*lines, "}"]) + "\n"


def quoted(text: str) -> str:
    """A DOT string. A line feed becomes the escape for a centred line; other control characters are left out."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '"' + "".join(character for character in plain if character.isprintable()) + '"'


def _together(tables: Tables, solution: Solution, found: Iterable[Frozen]) -> dict[str, list[Frozen]]:
    """Frozen axes by the run of elements that they share, under a name that no group has."""
    strands: dict[tuple[int, str], list[Frozen]] = defaultdict(list)
    for each in found:
        strands[int(solution.strand[tables.number[each.axis]]), each.reason].append(each)
    return {f"frozen {number}": axes for number, axes in enumerate(strands.values(), start=1)}


def _sharing(
    tables: Tables, solution: Solution, groups: tuple[Group, ...], axes: list[Frozen], summed: list[AxisKey]
) -> set[str]:
    """Tensors that sum away elements that are frozen together with these axes."""
    free = grouped(solution, groups)
    classes = np.zeros(len(solution.pinned), bool)
    for each in axes:
        classes[solution.labels(int(solution.strand[tables.number[each.axis]]))] = True
    classes &= ~free
    return {key[0] for key in summed if classes[solution.labels(int(solution.strand[tables.number[key]]))].any()}


def _text(key: AxisKey) -> str:
    return f"{key[0]}:{key[1]}"
