"""ai.onnx.ml: what passes through scalers and extractors can be pruned, what a model reads by number cannot."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxprune import channels, ir

ML = "ai.onnx.ml"


def model_of(n, *outputs: str) -> ir.Model:
    proto = n.proto(*outputs)
    next(entry for entry in proto.opset_import if entry.domain == ML).version = 2
    model = ir.from_proto(proto)
    ir.infer_shapes(model)
    return model


def node(model: ir.Model, op: str) -> ir.Node:
    return next(each for each in model.graph.nodes if each.op == op)


def start(n, width: int = 6) -> str:
    return n.op("Tanh", n.linear(n.input("N", 5), 5, width, name="first"))


def finish(n, x: str, width: int) -> ir.Model:
    return model_of(n, n.op("Relu", n.linear(x, width, 3)))


@pytest.mark.parametrize("count", [1, 6])
def test_scaler_and_imputer_between_layers(net, prove, count):
    """Numbers for each feature leave with it; one number for all stays."""
    n = net()
    offset, scale = [0.1 * k for k in range(count)], [1.0 + k for k in range(count)]
    x = n.op("Scaler", start(n), domain=ML, offset=offset, scale=scale)
    x = n.op("Imputer", x, domain=ML, imputed_value_floats=[0.5 + k for k in range(count)], replaced_value_float=9.0)
    model = finish(n, x, 6)
    graph = channels.analyze(model)
    keep = np.array([1, 0, 1, 1, 0, 1], bool)
    pruned = prove(model, graph, {"first:1": keep})
    left = np.flatnonzero(keep) if count == 6 else [0]
    assert node(pruned, "Scaler").attrs["scale"] == [scale[k] for k in left]
    assert len(node(pruned, "Imputer").attrs["imputed_value_floats"]) == len(left)


def test_features_joined_and_extracted(net, prove):
    n = net()
    first = start(n)
    second = n.op("Relu", n.linear("x", 5, 4, name="second"))
    x = n.op("FeatureVectorizer", first, second, domain=ML, inputdimensions=[6, 4])
    x = n.op("ArrayFeatureExtractor", x, n.constant(np.array([[9, 0, 3, 3, 7]])), domain=ML)
    model = finish(n, x, 5)
    pruned = prove(model)
    sizes = [tensor.shape[1] for tensor in node(pruned, "FeatureVectorizer").inputs]
    assert node(pruned, "FeatureVectorizer").attrs["inputdimensions"] == sizes


def test_normalizer_keeps_its_features(net):
    n = net()
    model = finish(n, n.op("Normalizer", start(n), domain=ML, norm="L2"), 6)
    graph = channels.analyze(model)
    assert not graph.groups
    assert any("Normalizer" in frozen.reason for frozen in graph.frozen)


def test_trees_keep_what_they_read(net):
    """A network in front of a tree: the tree names the features that it reads."""
    n = net()
    leaf = {"nodes_treeids": [0], "nodes_nodeids": [0], "nodes_featureids": [0], "nodes_values": [0.0]}
    leaf |= {"nodes_modes": ["LEAF"], "nodes_truenodeids": [0], "nodes_falsenodeids": [0], "n_targets": 1}
    leaf |= {"target_treeids": [0], "target_nodeids": [0], "target_ids": [0], "target_weights": [1.0]}
    model = model_of(n, n.op("TreeEnsembleRegressor", start(n), domain=ML, **leaf))
    graph = channels.analyze(model)
    assert not graph.groups
    (frozen,) = graph.frozen
    assert frozen.axis == ("first", 1) and "reads features by number" in frozen.reason


def test_labels_behind_a_network(net, prove):
    """The classes of an argmax become names; the hidden units stay prunable."""
    n = net()
    scores = n.linear(start(n), 6, 3)
    best = n.op("ArgMax", scores, axis=1)
    model = model_of(n, n.op("LabelEncoder", best, domain=ML, keys_int64s=[0, 1, 2], values_int64s=[7, 5, 3], out="y"))
    model.graph.outputs[0].dtype = helper.tensor_dtype_to_np_dtype(TensorProto.INT64)
    assert [group.width for group in channels.analyze(model).groups] == [6]
    prove(model)
