"""One table from (domain, op type, opset) to the rule that links a node's axes, and one to the hook that resizes it.

A rule is a generator function `(node, opset)` that yields links, or raises `Barrier(reason)`. It never changes
anything. An axis that no link mentions keeps its size: forgetting an axis costs pruning, never correctness.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import onnx.defs
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.channels.cut import Cut
from onnxprune.channels.facts import operand
from onnxprune.channels.links import AxisKey, AxisRef, Barrier, Dim, Inner, Link, Operand, OpLinks, Tie

Rule = Callable[[gs.Node, int], Iterator[Link]]
Hook = Callable[[gs.Node, int, Cut], None]

MALFORMED = (IndexError, KeyError, TypeError, ValueError, ZeroDivisionError)
OLDEST_OPSET = 7
NEWEST_OPSET = onnx.defs.onnx_opset_version()


class _Entry(NamedTuple):
    since: int
    until: int | None
    rule: Rule


_RULES: dict[tuple[str, str], list[_Entry]] = {}
_HOOKS: dict[tuple[str, str], Hook] = {}


def op_rule(*ops: str, domain: str = "", since: int = 1, until: int | None = None) -> Callable[[Rule], Rule]:
    """Registers a rule for these op types, opsets since..until (inclusive). ValueError where one is there already."""

    def register(rule: Rule) -> Rule:
        for op in ops:
            entries = _RULES.setdefault((domain, op), [])
            for entry in entries:
                if since <= (entry.until or since) and entry.since <= (until or entry.since):
                    raise ValueError(f"{domain or 'onnx'}.{op} has a rule for opset {max(since, entry.since)} already")
            entries.append(_Entry(since, until, rule))
        return rule

    return register


def resize_hook(*ops: str, domain: str = "") -> Callable[[Hook], Hook]:
    """Registers the hook of these op types: it rewrites what repeats a size (a group count, split sizes, a shape)."""

    def register(hook: Hook) -> Hook:
        for op in ops:
            if (domain, op) in _HOOKS:
                raise ValueError(f"{domain or 'onnx'}.{op} has a resize hook already")
            _HOOKS[domain, op] = hook
        return hook

    return register


def rule_for(op: str, opset: int, domain: str = "") -> Rule | None:
    """The rule of an op type at an opset of its domain."""
    for entry in _RULES.get((domain, op), ()):
        if entry.since <= opset and (entry.until is None or opset <= entry.until):
            return entry.rule
    return None


def hook_for(node: gs.Node) -> Hook | None:
    """The resize hook of a node's op type."""
    return _HOOKS.get((ir.domain(node), node.op))


def known_ops() -> list[tuple[str, str]]:
    """Every (domain, op type) that has a rule, sorted."""
    return sorted(_RULES)


def links_of(node: gs.Node, opset: int) -> OpLinks:
    """The checked links of a node; a barrier wherever anything about it is unknown. `opset` is that of its domain."""
    inputs = tuple(map(operand, node.inputs))
    outputs = tuple(map(operand, node.outputs))
    try:
        rule = _applicable(node, opset, (*inputs, *outputs))
        links = tuple(rule(node, opset))
        _check(links, {o.name: o for o in (*inputs, *outputs)})
    except Barrier as barrier:
        return OpLinks(ir.node_key(node), node.op, inputs, outputs, (), barrier.reason)
    except MALFORMED as error:  # too few operands, an axis or a permutation that the operand does not have
        return OpLinks(ir.node_key(node), node.op, inputs, outputs, (), f"malformed {node.op}: {error}")
    return OpLinks(ir.node_key(node), node.op, inputs, outputs, links)


def _applicable(node: gs.Node, opset: int, operands: tuple[Operand, ...]) -> Rule:
    domain = ir.domain(node)
    if ir.has_subgraph(node):
        raise Barrier(f"{node.op} carries a subgraph")
    if not domain and not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise Barrier(f"opset {opset} is outside of {OLDEST_OPSET}..{NEWEST_OPSET}")
    rule = rule_for(node.op, opset, domain)
    if rule is None:
        known = f" at opset {opset}" if (domain, node.op) in _RULES else ""
        raise Barrier(f"no rule for {domain + '.' if domain else ''}{node.op}{known}")
    for each in operands:
        if each.name and each.shape is None:
            raise Barrier(f"the rank of {each.name} is unknown")
    return rule


def _check(links: tuple[Link, ...], operands: dict[str, Operand]) -> None:
    """Single axes that are tied must have the sizes that the tie says, as far as they are static."""
    inner: dict[AxisKey, Dim] = {
        (link.axis.tensor, link.axis.axes[0]): link.size for link in links if isinstance(link, Inner)
    }
    for link in links:
        if not isinstance(link, Tie) or len(link.a.axes) != 1 or len(link.b.axes) != 1:
            continue
        a, b = _size(link.a, operands, inner), _size(link.b, operands, inner)
        if a is None or b is None:
            continue
        if link.index is None:
            fits = a == b
        else:
            fits = len(link.index) == b and (b == 0 or (link.index.min() >= -1 and link.index.max() < a))
        if not fits:
            raise Barrier(f"the sizes of {link.a} ({a}) and {link.b} ({b}) do not fit")


def _size(ref: AxisRef, operands: dict[str, Operand], inner: dict[AxisKey, Dim]) -> int | None:
    axis = ref.axes[0]
    shape = operands[ref.tensor].shape
    assert shape is not None
    dim = inner[ref.tensor, axis] if axis < 0 else shape[axis]
    return dim if isinstance(dim, int) else None
