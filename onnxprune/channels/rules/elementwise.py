"""Operators that work element by element: every axis passes through, operands broadcast."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_graphsurgeon as gs

from onnxprune.channels.links import Link
from onnxprune.channels.registry import op_rule
from onnxprune.channels.rules.alike import broadcast, on_its_own, pass_through

UNARY = (
    *(
        "Abs",
        "Acos",
        "Acosh",
        "Asin",
        "Asinh",
        "Atan",
        "Atanh",
        "BitCast",
        "BitwiseNot",
        "Cast",
        "Ceil",
        "Celu",
        "Cos",
        "Cosh",
    ),
    *("Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu"),
    *("Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh"),
    *("Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu"),
)
VARIADIC = (
    *("Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater", "GreaterOrEqual"),
    *("Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "Pow", "Sub", "Sum", "SwiGLU", "Where"),
    "Xor",
)


@op_rule(*UNARY)
def unary(node: gs.Node, opset: int) -> Iterator[Link]:
    yield from pass_through(node.inputs[0], node.outputs[0])


@op_rule(*VARIADIC)
def variadic(node: gs.Node, opset: int) -> Iterator[Link]:
    yield from broadcast(node.inputs, node.outputs[0])


@op_rule("PRelu")
def prelu(node: gs.Node, opset: int) -> Iterator[Link]:
    yield from broadcast(node.inputs, node.outputs[0])


@op_rule("Clip")
def clip(node: gs.Node, opset: int) -> Iterator[Link]:
    """The limits are scalars: attributes before opset 11, inputs since."""
    yield from pass_through(node.inputs[0], node.outputs[0])


@op_rule("CastLike")
def cast_like(node: gs.Node, opset: int) -> Iterator[Link]:
    """Only the element type of the second operand is read; its axes are free to change on their own."""
    yield from pass_through(node.inputs[0], node.outputs[0])
    yield from on_its_own(node.inputs[1])


@op_rule("Dropout")
def dropout(node: gs.Node, opset: int) -> Iterator[Link]:
    """At inference the identity; the mask has the shape of the input."""
    for y in node.outputs:
        if y.name:
            yield from pass_through(node.inputs[0], y)
