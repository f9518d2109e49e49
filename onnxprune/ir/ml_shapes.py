"""Shape functions of the ai.onnx.ml operators that ONNX gives no shape inference: scalers, regressors, tree ensembles.

Each takes the node and the types of its inputs (None where unknown) and returns the types of its outputs. Source: the
operators' specification, https://onnx.ai/onnx/operators/index_ai.onnx.ml.html.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.ir.query import attribute
from onnxprune.ir.types import Dim, ShapeFunction, TensorType

_FLOAT = np.dtype(np.float32)


def _as_float(node: gs.Node, inputs: Sequence[TensorType | None]) -> list[TensorType | None]:
    """float32 of the input's shape."""
    x = inputs[0]
    return [None if x is None else TensorType(_FLOAT, x.shape)]


def alike(node: gs.Node, inputs: Sequence[TensorType | None]) -> list[TensorType | None]:
    """The type of the first input."""
    return [inputs[0]]


def _feature_vectorizer(node: gs.Node, inputs: Sequence[TensorType | None]) -> list[TensorType | None]:
    """(rows, features of all inputs); a vector is one row."""
    widths = attribute(node, "inputdimensions")
    if widths is None or inputs[0] is None:
        return [None]
    return [TensorType(_FLOAT, [_rows(inputs[0]), sum(int(width) for width in widths)])]


def _regressor(targets: str | None) -> ShapeFunction:
    """(rows, targets): the number of targets is an attribute, or 1."""

    def shapes(node: gs.Node, inputs: Sequence[TensorType | None]) -> list[TensorType | None]:
        x = inputs[0]
        count = 1 if targets is None else int(attribute(node, targets, 1))
        return [None if x is None else TensorType(_FLOAT, [_rows(x), count])]

    return shapes


def _tree_classifier(node: gs.Node, inputs: Sequence[TensorType | None]) -> list[TensorType | None]:
    """The label of each row, and (rows, classes) scores."""
    x = inputs[0]
    if x is None:
        return [None, None]
    names = attribute(node, "classlabels_strings")
    numbers = attribute(node, "classlabels_int64s")
    label = np.dtype(np.int64) if names is None else np.dtype(object)
    classes = len(names or numbers or ()) or None
    return [TensorType(label, [_rows(x)]), TensorType(_FLOAT, [_rows(x), classes])]


_LABELS = {"values_floats": np.float32, "values_int64s": np.int64, "values_strings": object}


def _label_encoder(node: gs.Node, inputs: Sequence[TensorType | None]) -> list[TensorType | None]:
    """The shape of the input, the type of the values; the form of opset 1 turns strings into integers and back."""
    x = inputs[0]
    if x is None:
        return [None]
    for name, dtype in _LABELS.items():
        if name in node.attrs:
            return [TensorType(np.dtype(dtype), x.shape)]
    if "classes_strings" in node.attrs:
        return [TensorType(np.dtype(np.int64 if x.dtype == object else object), x.shape)]
    return [None]


def _rows(x: TensorType) -> Dim:
    return 1 if len(x.shape) < 2 else x.shape[0]


ML_SHAPES: dict[tuple[str, str], ShapeFunction] = {
    ("ai.onnx.ml", "FeatureVectorizer"): _feature_vectorizer,
    ("ai.onnx.ml", "Imputer"): alike,
    ("ai.onnx.ml", "LabelEncoder"): _label_encoder,
    ("ai.onnx.ml", "LinearRegressor"): _regressor("targets"),
    ("ai.onnx.ml", "Normalizer"): _as_float,
    ("ai.onnx.ml", "SVMRegressor"): _regressor(None),
    ("ai.onnx.ml", "Scaler"): _as_float,
    ("ai.onnx.ml", "TreeEnsembleClassifier"): _tree_classifier,
    ("ai.onnx.ml", "TreeEnsembleRegressor"): _regressor("n_targets"),
}
