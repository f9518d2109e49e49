"""ai.onnx.ml: what scikit-learn pipelines put before and behind a network. Rows pass; what is read by number stays."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune import ir
from onnxprune.channels import registry
from onnxprune.channels.cut import Cut
from onnxprune.channels.facts import constant_ints, is_weight, output, rank, ref, size, static
from onnxprune.channels.links import Barrier, Link, Pin, Tie
from onnxprune.channels.rules.alike import pass_through

DOMAIN = "ai.onnx.ml"
op_rule = partial(registry.op_rule, domain=DOMAIN)
resize_hook = partial(registry.resize_hook, domain=DOMAIN)

# attributes that hold one number for each feature, or one for all
PER_FEATURE = {"Imputer": ("imputed_value_floats", "imputed_value_int64s"), "Scaler": ("offset", "scale")}
READERS = {
    "LinearClassifier": "multiplies features with coefficients of its own",
    "LinearRegressor": "multiplies features with coefficients of its own",
    "Normalizer": "divides by a norm over the features",
    "SVMClassifier": "compares features with vectors of its own",
    "SVMRegressor": "compares features with vectors of its own",
    "TreeEnsemble": "reads features by number",
    "TreeEnsembleClassifier": "reads features by number",
    "TreeEnsembleRegressor": "reads features by number",
}


@op_rule("Binarizer", "CategoryMapper", "Imputer", "LabelEncoder", "Scaler")
def element_by_element(node: gs.Node, opset: int) -> Iterator[Link]:
    yield from pass_through(node.inputs[0], node.outputs[0])


@resize_hook(*PER_FEATURE)
def resize_per_feature(node: gs.Node, opset: int, cut: Cut) -> None:
    """Features are the last axis."""
    x = node.inputs[0]
    axis = rank(x) - 1
    for name in PER_FEATURE[node.op]:
        values = ir.attribute(node, name)
        if isinstance(values, (list, tuple)) and len(values) == x.shape[axis] > 1:
            node.attrs[name] = [values[k] for k in cut.kept(x, axis)]


@op_rule("OneHotEncoder")
def one_hot_encoder(node: gs.Node, opset: int) -> Iterator[Link]:
    """The categories are a new last axis."""
    x = node.inputs[0]
    yield from pass_through(x, node.outputs[0], range(rank(x)))


@op_rule(*READERS)
def reader(node: gs.Node, opset: int) -> Iterator[Link]:
    """Rows pass to every output that has them."""
    x = node.inputs[0]
    for slot in range(len(node.outputs)):
        y = output(node, slot)
        if y is not None and rank(x) > 1 and rank(y):
            yield from pass_through(x, y, (0,))
    if size(x, -1) is not None:
        yield Pin(ref(x, -1), f"{node.op} {READERS[node.op]}")


@op_rule("FeatureVectorizer")
def feature_vectorizer(node: gs.Node, opset: int) -> Iterator[Link]:
    """The features of all inputs in a row, as in Concat."""
    y, start = node.outputs[0], 0
    for x in node.inputs:
        if rank(x) != 2:
            raise Barrier(f"{x.name} is not a matrix")
        width = static(x, 1)
        yield from pass_through(x, y, (0,))
        yield Tie(ref(y, 1), ref(x, 1), np.arange(start, start + width))
        start += width


@resize_hook("FeatureVectorizer")
def resize_feature_vectorizer(node: gs.Node, opset: int, cut: Cut) -> None:
    node.attrs["inputdimensions"] = [len(cut.kept(x, 1)) for x in node.inputs]


@op_rule("ArrayFeatureExtractor")
def array_feature_extractor(node: gs.Node, opset: int) -> Iterator[Link]:
    """Constant indices pick elements of the last axis."""
    x, indices = node.inputs[:2]
    y = node.outputs[0]
    picked = constant_ints(indices)
    if picked is None or not is_weight(indices):
        raise Barrier("the indices of ArrayFeatureExtractor are computed")
    if rank(x) == rank(y):
        yield from pass_through(x, y, range(rank(x) - 1))
    if size(x, -1) is not None and size(y, -1) is not None:
        yield Tie(ref(x, -1), ref(y, -1), np.array(picked, np.int64))


@resize_hook("ArrayFeatureExtractor")
def resize_array_feature_extractor(node: gs.Node, opset: int, cut: Cut) -> None:
    x, y = node.inputs[0], node.outputs[0]
    picked = constant_ints(node.inputs[1]) or []
    kept = np.array(picked, np.int64)[cut.kept(y, rank(y) - 1)]
    cut.set_input(node, 1, np.searchsorted(cut.kept(x, rank(x) - 1), kept))
