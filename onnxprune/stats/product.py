"""Every contraction with a constant weight, seen as one matrix product: outputs = weight matrix x columns + bias.

Columns are what the weight is multiplied with at one output position: an input row for Gemm and MatMul, an im2col
patch for Conv and ConvTranspose. Matrices are (groups, outputs, columns); a convolution's columns run over kernel
positions first and channels last, so that a patch is gathered in whole channel vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.channels.facts import is_weight
from onnxprune.stats.arrays import Array
from onnxprune.stats.window import Window


@dataclass(frozen=True)
class Product:
    """One contraction node. ``input_axis`` and ``output_axis`` are the weight's axes; ``channel_axis`` counts
    channels in data and output. ``fixed``: the weight is an operand of a quantized operator and is not to be changed.
    ``zero``: what stands for zero in the data.
    """

    node: str
    op: str
    data: str
    weight: str
    bias: str | None
    output: str
    groups: int
    input_axis: int
    output_axis: int
    channel_axis: int
    shape: tuple[int, ...]
    factor: float = 1.0  # Gemm's alpha: part of the matrix
    bias_factor: float = 1.0  # Gemm's beta
    transposed_data: bool = False  # Gemm's transA
    window: Window | None = None
    fixed: bool = False
    zero: float = 0.0

    @property
    def size(self) -> int:
        """Columns of a group's matrix."""
        return self.shape[self.input_axis] * self.kernel // (self.groups if self.op == "ConvTranspose" else 1)

    @property
    def kernel(self) -> int:
        """Kernel positions; 1 for Gemm and MatMul."""
        return math.prod(self.shape[2:])

    @property
    def outputs(self) -> int:
        """Output channels of the node."""
        return self.shape[self.output_axis] * (self.groups if self.op == "ConvTranspose" else 1)

    def matrix(self, values: Array) -> Array:
        """The weight as (groups, outputs of a group, columns), float64."""
        weight = np.asarray(values, np.float64) * self.factor
        if self.op == "Conv":
            outputs, channels = weight.shape[:2]
            return (
                weight.reshape(self.groups, outputs // self.groups, channels, -1)
                .swapaxes(2, 3)
                .reshape(self.groups, outputs // self.groups, -1)
            )
        if self.op == "ConvTranspose":
            channels, outputs = weight.shape[:2]
            split = weight.reshape(self.groups, channels // self.groups, outputs, -1)
            return split.transpose(0, 2, 3, 1).reshape(self.groups, outputs, -1)
        return (weight if self.output_axis == 0 else weight.T)[None]

    def values(self, matrix: Array, shape: tuple[int, ...], dtype: np.dtype) -> Array:
        """The inverse of :meth:`matrix`, for a weight of ``shape``."""
        weight = matrix / self.factor
        kernel = math.prod(shape[2:])
        if self.op == "Conv":
            weight = weight.reshape(self.groups, -1, kernel, shape[1]).swapaxes(2, 3)
        elif self.op == "ConvTranspose":
            weight = weight.reshape(self.groups, shape[1], kernel, -1).transpose(0, 3, 1, 2)
        else:
            weight = weight[0] if self.output_axis == 0 else weight[0].T
        return np.ascontiguousarray(weight.reshape(shape), dtype=dtype)

    def column_owner(self, owner: Array) -> Array:
        """From the unit of every element of the weight's input axis to the unit of every column, (groups, columns)."""
        if self.op == "ConvTranspose":
            return np.tile(owner.reshape(self.groups, 1, -1), (1, self.kernel, 1)).reshape(self.groups, -1)
        return np.tile(owner, (self.groups, self.kernel))

    def on(self, data: str, zero: float) -> Product:
        """The same product with its columns read from other data, and a weight that is not to be changed."""
        return replace(self, data=data, zero=zero, bias=None, fixed=True)


def products(model: ir.Model) -> dict[str, Product]:
    """By node key, in graph order. Nodes whose weight is an activation, batched or overridable are not among them."""
    from onnxprune.stats.quantized_products import QUANTIZED_READERS  # builds on this module

    found = {}
    for node in model.graph.nodes:
        domain = ir.domain(node)
        read = (_READERS.get(node.op) if not domain else None) or QUANTIZED_READERS.get((domain, node.op))
        product = read(node) if read is not None else None
        if product is not None and product.weight not in {tensor.name for tensor in model.graph.inputs}:
            found[product.node] = product
    return found


def _weight(node: gs.Node) -> gs.Tensor | None:
    """The float weight in the second slot: an initializer, or what is computed from some (quantized ones mostly)."""
    tensor = node.inputs[1] if len(node.inputs) > 1 else None
    if tensor is None or tensor.dtype is None or np.dtype(tensor.dtype).kind != "f":
        return None
    if isinstance(tensor, gs.Constant):
        return tensor
    static = tensor.shape is not None and all(isinstance(dim, int) for dim in tensor.shape)
    return tensor if static and is_weight(tensor) else None


def _bias(node: gs.Node) -> str | None:
    return str(node.inputs[2].name) if len(node.inputs) > 2 and node.inputs[2].name else None


def _read(make: Callable[[gs.Node, gs.Tensor], Product | None]) -> Callable[[gs.Node], Product | None]:
    def read(node: gs.Node) -> Product | None:
        weight = _weight(node)
        return None if weight is None else make(node, weight)

    return read


def convolution(node: gs.Node, weight: gs.Tensor) -> Product | None:
    """A convolution with this weight; None for a ConvTranspose that `Window` does not cover."""
    forward = node.op != "ConvTranspose"
    window = Window.of(node, weight, forward=forward)
    if window is None:
        return None
    return Product(
        node=ir.node_key(node),
        op="Conv" if forward else "ConvTranspose",
        data=node.inputs[0].name,
        weight=weight.name,
        bias=_bias(node),
        output=node.outputs[0].name,
        groups=int(ir.attribute(node, "group", 1)),
        input_axis=1 if forward else 0,
        output_axis=0 if forward else 1,
        channel_axis=1,
        shape=tuple(weight.shape),
        window=window,
    )


def matrix_product(node: gs.Node, weight: gs.Tensor) -> Product | None:
    """A Gemm with this weight."""
    output_axis = 0 if ir.attribute(node, "transB", 0) else 1
    return Product(
        node=ir.node_key(node),
        op="Gemm",
        data=node.inputs[0].name,
        weight=weight.name,
        bias=_bias(node),
        output=node.outputs[0].name,
        groups=1,
        input_axis=1 - output_axis,
        output_axis=output_axis,
        channel_axis=1,
        shape=tuple(weight.shape),
        factor=float(ir.attribute(node, "alpha", 1.0)),
        bias_factor=float(ir.attribute(node, "beta", 1.0)),
        transposed_data=bool(ir.attribute(node, "transA", 0)),
    )


def stacked_product(node: gs.Node, weight: gs.Tensor) -> Product | None:
    """A MatMul with this weight; None where the weight is not a matrix."""
    if len(weight.shape) != 2:
        return None
    return Product(
        node=ir.node_key(node),
        op="MatMul",
        data=node.inputs[0].name,
        weight=weight.name,
        bias=None,
        output=node.outputs[0].name,
        groups=1,
        input_axis=0,
        output_axis=1,
        channel_axis=-1,
        shape=tuple(weight.shape),
    )


_READERS: dict[str, Callable[[gs.Node], Product | None]] = {
    "Conv": _read(convolution),
    "ConvTranspose": _read(convolution),
    "Gemm": _read(matrix_product),
    "MatMul": _read(stacked_product),
}
