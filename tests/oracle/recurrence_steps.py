"""Steps of random graphs with LSTM, GRU and RNN over token features (N, T, D), in every form they take."""

from __future__ import annotations

import numpy as np
from graph_builder import Builder, Value

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(b: Builder, x: Value) -> Value:
    """One layer: all outputs of a sequence, or its last state added to every token."""
    n, t, _ = x.shape
    op, hidden, direction = b.pick(["LSTM", "GRU", "RNN"]), b.pick([3, 4]), b.pick(["forward", "reverse", "both"])
    dirs = 2 if direction == "both" else 1
    turned = b.op("Transpose", [x], (t, n, x.shape[2]), perm=[1, 0, 2])
    attrs = {"hidden_size": hidden, "direction": "bidirectional" if dirs == 2 else direction}
    if op == "GRU" and b.flag():
        attrs["linear_before_reset"] = 1
    shapes = [(t, dirs, n, hidden), (dirs, n, hidden), (dirs, n, hidden)][: 3 if op == "LSTM" else 2]
    y, last, *_ = b.ops(op, _operands(b, turned, op, hidden, dirs), shapes, **attrs)
    if b.flag():
        return _sequence(b, y, hidden * dirs)
    last = b.op("Transpose", [last], (n, dirs, hidden), perm=[1, 0, 2])
    last = b.reshape(last, b.pick([(0, -1), (n, hidden * dirs)]), (n, hidden * dirs))
    mixed = b.op("MatMul", [last, b.weight(hidden * dirs, x.shape[2], fan_in=hidden)], (n, x.shape[2]))
    return b.binary("Add", x, b.squeeze("Unsqueeze", mixed, [1], (n, 1, x.shape[2])), x.shape)


def _operands(b: Builder, x: Value, op: str, hidden: int, dirs: int) -> list[str | Value]:
    gates, d, (t, n) = GATES[op], x.shape[2], x.shape[:2]
    operands: list[str | Value] = [x, b.weight(dirs, gates * hidden, d, fan_in=d)]
    operands.append(b.weight(dirs, gates * hidden, hidden, fan_in=hidden))
    operands.append(b.weight(dirs, 2 * gates * hidden) if b.flag() else "")
    operands.append(b.constant(np.asarray([t, t - 2][:n], np.int32)) if b.flag() else "")
    operands.append(b.weight(dirs, n, hidden) if b.flag() else "")
    if op == "LSTM":
        operands.append(b.weight(dirs, n, hidden) if b.flag() else "")
        operands.append(b.weight(dirs, 3 * hidden) if b.flag() else "")
    return operands


def _sequence(b: Builder, y: Value, width: int) -> Value:
    """(T, directions, N, hidden) -> (N, T, directions * hidden)."""
    t, dirs, n, hidden = y.shape
    if dirs == 1 and b.flag():
        return b.op("Transpose", [b.squeeze("Squeeze", y, [1], (t, n, hidden))], (n, t, hidden), perm=[1, 0, 2])
    if b.flag():
        y = b.op("Transpose", [y], (n, t, dirs, hidden), perm=[2, 0, 1, 3])
        return b.reshape(y, b.pick([(0, 0, -1), (n, t, width), (n, -1, width)]), (n, t, width))
    y = b.op("Transpose", [y], (t, n, dirs, hidden), perm=[0, 2, 1, 3])
    y = b.reshape(y, b.pick([(0, 0, -1), (t, n, width)]), (t, n, width))
    return b.op("Transpose", [y], (n, t, width), perm=[1, 0, 2])


def stacked(b: Builder, x: Value) -> Value:
    """Two layers that take their first states as slices of one zero tensor, as exporters write them."""
    n, t, d = x.shape
    hidden, zeros = 4, b.constant(np.zeros((2, n, 4), np.float32))
    y = b.op("Transpose", [x], (t, n, d), perm=[1, 0, 2])
    for layer in range(2):
        size = y.shape[2]
        state = b.slice(Value(zeros, (2, n, hidden)), 0, layer, layer + 1)
        operands = [y, b.weight(1, 3 * hidden, size, fan_in=size), b.weight(1, 3 * hidden, hidden, fan_in=hidden)]
        y = b.op("GRU", [*operands, b.weight(1, 6 * hidden), "", state], (t, 1, n, hidden), hidden_size=hidden)
        y = b.squeeze("Squeeze", y, [1], (t, n, hidden))
    return b.op("Transpose", [y], (n, t, hidden), perm=[1, 0, 2])
