"""The operator that everything in a latency table is measured relative to: a small dense convolution, present and
ordinary on every provider, about a tenth of a millisecond on one CPU core."""

from __future__ import annotations

import functools

import numpy as np


@functools.cache
def reference_model() -> bytes:
    """Serialized model: 3x3 convolution, 32 to 32 channels, 16x16, then ReLU."""
    from onnx import TensorProto, helper, numpy_helper

    weight = np.random.default_rng(0).standard_normal((32, 32, 3, 3), dtype=np.float32) * np.float32(0.06)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["y"]),
        ],
        "reference",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 32, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 32, 16, 16])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
