"""Outputs that a normalisation divides, row by row, by their own deviation: an error there counts relative to it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxprune import ir
from onnxprune.stats.arrays import Array
from onnxprune.stats.product import Product

_ROW_NORMS = frozenset({"LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "LpNormalization"})
_LEAST = 0.1  # of the median: rows of almost no deviation must not decide alone


def is_divided(tensor: ir.Variable) -> bool:
    """Whether a normalisation over the last axis reads the tensor."""
    users = ir.consumers(tensor)
    return any(node.op in _ROW_NORMS and node.inputs[0] is tensor for node in users)


def row_normalised(model: ir.Model, products: Mapping[str, Product]) -> dict[str, str]:
    """For each product whose output goes only through additions into such a normalisation, the tensor that is
    divided.
    """
    tensors = ir.tensors(model)
    found = {}
    for key, product in products.items():
        tensor = tensors[product.output]
        while not is_divided(tensor) and len(tensor.outputs) == 1 and tensor.outputs[0].op == "Add":
            tensor = tensor.outputs[0].outputs[0]
        if product.window is None and is_divided(tensor):
            found[key] = tensor.name
    return found


def row_weights(rows: Array) -> Array:
    """Inverse variances of rows (rows, channels); a variance under a tenth of the median counts as that."""
    variances = rows.var(1, dtype=np.float64)
    floor = max(float(np.median(variances)) * _LEAST, 1e-30)
    weights: Array = 1 / np.maximum(variances, floor)
    return weights
