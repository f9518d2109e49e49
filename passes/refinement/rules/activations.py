"""Functions of one tensor, element by element: dy times the derivative, from the input or the output."""

from __future__ import annotations

import math
from collections.abc import Callable

import onnx_graphsurgeon as gs

from onnxprune import ir
from passes.refinement.tape import Gradients, NoRuleError, Rule, Tape, given

Derivative = Callable[[Tape, gs.Node, str, str], str]
"""(tape, node, input, output) -> the derivative, as a tensor of the backward graph"""


def _pointwise(derivative: Derivative) -> Rule:
    def rule(tape: Tape, node: gs.Node, dy: str) -> Gradients:
        x, y = tape.value(node.inputs[0]), tape.value(node.outputs[0])
        return {0: tape.op("Mul", dy, derivative(tape, node, x, y))}

    return rule


def relu(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    above = tape.op("Greater", tape.value(node.outputs[0]), tape.constant(0.0))
    return {0: tape.positive(above, dy)}


def clip(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    """Zero where the input is at or beyond a bound."""
    x, gradient = tape.value(node.inputs[0]), dy
    for place, (name, test) in enumerate((("min", "Greater"), ("max", "Less")), start=1):
        bound = _bound(node, place, name)
        if bound is not None:
            gradient = tape.positive(tape.op(test, x, tape.constant(bound)), gradient)
    return {0: gradient}


def _bound(node: gs.Node, place: int, name: str) -> float | None:
    values = given(node, name, place)
    return None if values is None else float(values[0])


def prelu(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    x, slope = tape.value(node.inputs[0]), tape.value(node.inputs[1])
    below = tape.op("Less", x, tape.constant(0.0))
    sides = {0: tape.op("Where", below, tape.op("Mul", dy, slope), dy)}
    if tape.wants(node.inputs[1]):
        shape = tape.shape(node.inputs[0])
        product = tape.positive(below, tape.op("Mul", dy, x))
        sides[1] = tape.unbroadcast(product, shape, tape.shape(node.inputs[1]))
    return sides


def leaky_relu(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    slope = tape.constant(float(ir.attribute(node, "alpha", 0.01)))
    below = tape.op("Less", tape.value(node.inputs[0]), tape.constant(0.0))
    return {0: tape.op("Where", below, tape.op("Mul", dy, slope), dy)}


def hard_sigmoid(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    """alpha where 0 < y < 1."""
    alpha, y = float(ir.attribute(node, "alpha", 0.2)), tape.value(node.outputs[0])
    inside = tape.op("And", tape.op("Greater", y, tape.constant(0.0)), tape.op("Less", y, tape.constant(1.0)))
    return {0: tape.positive(inside, tape.op("Mul", dy, tape.constant(alpha)))}


def hard_swish(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    """0 below -3, 1 above 3, (2x + 3) / 6 between."""
    x = tape.value(node.inputs[0])
    middle = tape.op("Add", tape.op("Mul", x, tape.constant(1 / 3)), tape.constant(0.5))
    above = tape.op("Where", tape.op("Greater", x, tape.constant(3.0)), tape.constant(1.0), middle)
    return {0: tape.positive(tape.op("Greater", x, tape.constant(-3.0)), tape.op("Mul", dy, above))}


def _sigmoid(tape: Tape, _node: gs.Node, _x: str, y: str) -> str:
    return tape.op("Mul", y, tape.op("Sub", tape.constant(1.0), y))


def _tanh(tape: Tape, _node: gs.Node, _x: str, y: str) -> str:
    return tape.op("Sub", tape.constant(1.0), tape.op("Mul", y, y))


def _erf(tape: Tape, _node: gs.Node, x: str, _y: str) -> str:
    return tape.op("Mul", tape.op("Exp", tape.op("Neg", tape.op("Mul", x, x))), tape.constant(2 / math.sqrt(math.pi)))


def _exp(_tape: Tape, _node: gs.Node, _x: str, y: str) -> str:
    return y


def _log(tape: Tape, _node: gs.Node, x: str, _y: str) -> str:
    return tape.op("Reciprocal", x)


def _sqrt(tape: Tape, _node: gs.Node, _x: str, y: str) -> str:
    return tape.op("Div", tape.constant(0.5), y)


def _negative(tape: Tape, _node: gs.Node, _x: str, _y: str) -> str:
    return tape.constant(-1.0)


def _absolute(tape: Tape, _node: gs.Node, x: str, _y: str) -> str:
    return tape.op("Sign", x)


def _reciprocal(tape: Tape, _node: gs.Node, _x: str, y: str) -> str:
    return tape.op("Neg", tape.op("Mul", y, y))


def _softplus(tape: Tape, _node: gs.Node, x: str, _y: str) -> str:
    return tape.op("Sigmoid", x)


def _elu(tape: Tape, node: gs.Node, x: str, y: str) -> str:
    """1 above zero, y + alpha below."""
    below = tape.op("Add", y, tape.constant(float(ir.attribute(node, "alpha", 1.0))))
    return tape.op("Where", tape.op("Less", x, tape.constant(0.0)), below, tape.constant(1.0))


def _selu(tape: Tape, node: gs.Node, x: str, y: str) -> str:
    """gamma above zero, y + alpha gamma below."""
    alpha, gamma = float(ir.attribute(node, "alpha", 1.6732632)), float(ir.attribute(node, "gamma", 1.0507010))
    below = tape.op("Add", y, tape.constant(alpha * gamma))
    return tape.op("Where", tape.op("Greater", x, tape.constant(0.0)), tape.constant(gamma), below)


def _celu(tape: Tape, node: gs.Node, _x: str, y: str) -> str:
    """1 above zero, y / alpha + 1 below."""
    share = tape.op("Mul", y, tape.constant(1 / float(ir.attribute(node, "alpha", 1.0))))
    return tape.op("Min", tape.op("Add", share, tape.constant(1.0)), tape.constant(1.0))


def _mish(tape: Tape, _node: gs.Node, x: str, _y: str) -> str:
    """t + x (1 - t^2) sigmoid(x), with t = tanh(softplus(x))."""
    t = tape.op("Tanh", tape.op("Softplus", x))
    slope = tape.op("Mul", tape.op("Sub", tape.constant(1.0), tape.op("Mul", t, t)), tape.op("Sigmoid", x))
    return tape.op("Add", t, tape.op("Mul", x, slope))


def _softsign(tape: Tape, _node: gs.Node, x: str, _y: str) -> str:
    share = tape.op("Reciprocal", tape.op("Add", tape.op("Abs", x), tape.constant(1.0)))
    return tape.op("Mul", share, share)


def _sine(tape: Tape, _node: gs.Node, x: str, _y: str) -> str:
    return tape.op("Cos", x)


def _cosine(tape: Tape, _node: gs.Node, x: str, _y: str) -> str:
    return tape.op("Neg", tape.op("Sin", x))


def _gelu(tape: Tape, node: gs.Node, x: str, _y: str) -> str:
    """Phi(x) + x phi(x); of the approximate form (1 + t) / 2 + x (1 - t^2) u' / 2, with t = tanh(u)."""
    if ir.attribute(node, "approximate", "none") in ("tanh", b"tanh"):
        return _gelu_by_tanh(tape, x)
    share = tape.op("Erf", tape.op("Mul", x, tape.constant(math.sqrt(0.5))))
    share = tape.op("Mul", tape.op("Add", share, tape.constant(1.0)), tape.constant(0.5))
    density = tape.op("Exp", tape.op("Mul", tape.op("Mul", x, x), tape.constant(-0.5)))
    density = tape.op("Mul", density, tape.constant(1 / math.sqrt(2 * math.pi)))
    return tape.op("Add", share, tape.op("Mul", x, density))


def _gelu_by_tanh(tape: Tape, x: str) -> str:
    """u = sqrt(2 / pi) (x + 0.044715 x^3)."""
    root, square = math.sqrt(2 / math.pi), tape.op("Mul", x, x)
    bend = tape.op("Add", tape.op("Mul", square, tape.constant(0.044715 * root)), tape.constant(root))
    t = tape.op("Tanh", tape.op("Mul", x, bend))
    inner = tape.op("Add", tape.op("Mul", square, tape.constant(3 * 0.044715 * root)), tape.constant(root))
    slope = tape.op("Mul", tape.op("Sub", tape.constant(1.0), tape.op("Mul", t, t)), inner)
    both = tape.op("Add", tape.op("Add", t, tape.constant(1.0)), tape.op("Mul", x, slope))
    return tape.op("Mul", both, tape.constant(0.5))


def power(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    """p x^(p - 1), for a constant exponent of one element."""
    exponent = ir.constant(node.inputs[1])
    if exponent is None or exponent.size != 1 or exponent.ndim > len(tape.shape(node.inputs[0])):
        raise NoRuleError("an exponent that is no single constant")
    p = float(exponent.reshape(-1)[0])
    slope = tape.op("Pow", tape.value(node.inputs[0]), tape.constant(p - 1))
    return {0: tape.op("Mul", dy, tape.op("Mul", slope, tape.constant(p)))}


RULES: dict[str, Rule] = {
    "Abs": _pointwise(_absolute),
    "Celu": _pointwise(_celu),
    "Clip": clip,
    "Cos": _pointwise(_cosine),
    "Elu": _pointwise(_elu),
    "Erf": _pointwise(_erf),
    "Exp": _pointwise(_exp),
    "Gelu": _pointwise(_gelu),
    "HardSigmoid": hard_sigmoid,
    "HardSwish": hard_swish,
    "LeakyRelu": leaky_relu,
    "Log": _pointwise(_log),
    "Mish": _pointwise(_mish),
    "Neg": _pointwise(_negative),
    "PRelu": prelu,
    "Pow": power,
    "Reciprocal": _pointwise(_reciprocal),
    "Relu": relu,
    "Selu": _pointwise(_selu),
    "Sigmoid": _pointwise(_sigmoid),
    "Sin": _pointwise(_sine),
    "Softplus": _pointwise(_softplus),
    "Softsign": _pointwise(_softsign),
    "Sqrt": _pointwise(_sqrt),
    "Tanh": _pointwise(_tanh),
}
