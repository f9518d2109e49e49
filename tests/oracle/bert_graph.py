"""A small BERT encoder, written node by node as torch's exporter writes it, and its fused form by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from graph_builder import Builder, SeededChooser, Value
from onnx import TensorProto, helper, numpy_helper

BATCH, LENGTH, WORDS = 2, 8, 20


class Bert:
    """`layers` encoder layers of `heads` heads, then `labels` scores a token (0: the hidden state).

    Inputs: token numbers and an attention mask, both (batch, length).
    """

    def __init__(
        self, *, hidden: int = 24, heads: int = 4, inner: int = 40, layers: int = 2, opset: int = 14, labels: int = 3
    ) -> None:
        self.hidden, self.heads, self.inner = hidden, heads, inner
        self.b = Builder(SeededChooser(0), opset)
        ids, mask = Value("input_ids", (BATCH, LENGTH)), Value("attention_mask", (BATCH, LENGTH))
        x, bias = self._embed(ids), self._mask(mask)
        for _ in range(layers):
            x = self._feed_forward(self._attention(x, bias))
        self.output = self._linear(x, labels) if labels else x

    def model(self) -> onnx.ModelProto:
        """The batch is a symbol."""
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", LENGTH])
            for name in ("input_ids", "attention_mask")
        ]
        output = helper.make_tensor_value_info(
            self.output.name, TensorProto.FLOAT, ["batch", LENGTH, self.output.shape[-1]]
        )
        weights = [numpy_helper.from_array(value, name) for name, value in self.b.constants.items()]
        graph = helper.make_graph(self.b.nodes, "bert", inputs, [output], weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.b.opset)], ir_version=8)

    def _scalar(self, value: float) -> str:
        return self.b.constant(np.asarray(value, np.float32))

    def _linear(self, x: Value, outputs: int) -> Value:
        shape = (*x.shape[:-1], outputs)
        y = self.b.op("MatMul", [x, self.b.weight(x.shape[-1], outputs, fan_in=x.shape[-1])], shape)
        return self.b.binary("Add", y, self.b.weight(outputs), shape)

    def _embed(self, ids: Value) -> Value:
        b, shape = self.b, (BATCH, LENGTH, self.hidden)
        words = b.op("Gather", [b.weight(WORDS, self.hidden), ids], shape)
        kinds = b.op("Gather", [b.weight(2, self.hidden), b.constant(np.zeros((1, LENGTH), np.int64))], shape)
        places = b.op("Gather", [b.weight(16, self.hidden), b.constant(np.arange(LENGTH)[None])], shape)
        return self._normalize(b.binary("Add", b.binary("Add", words, kinds, shape), places, shape))

    def _mask(self, mask: Value) -> Value:
        b, shape = self.b, (BATCH, 1, 1, LENGTH)
        wide = b.squeeze("Unsqueeze", b.squeeze("Unsqueeze", mask, [1], (BATCH, 1, LENGTH)), [2], shape)
        real = b.op("Cast", [wide], shape, to=TensorProto.FLOAT)
        return b.binary("Mul", b.binary("Sub", self._scalar(1.0), real, shape), self._scalar(-10000.0), shape)

    def _normalize(self, x: Value) -> Value:
        b, d = self.b, self.hidden
        centred = b.binary("Sub", x, b.reduce("ReduceMean", x, [-1]), x.shape)
        variance = b.reduce("ReduceMean", b.binary("Pow", centred, self._scalar(2.0), x.shape), [-1])
        deviation = b.unary("Sqrt", b.binary("Add", variance, self._scalar(1e-5), variance.shape))
        y = b.binary("Div", centred, deviation, x.shape)
        return b.binary("Add", b.binary("Mul", y, b.weight(d, offset=0.5), x.shape), b.weight(d), x.shape)

    def _attention(self, x: Value, bias: Value) -> Value:
        b, size = self.b, self.hidden // self.heads
        wide = (BATCH, LENGTH, self.heads, size)
        parts = []
        for perm in ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)):
            part = b.reshape(self._linear(x, self.hidden), (0, 0, self.heads, size), wide)
            parts.append(b.op("Transpose", [part], [wide[p] for p in perm], perm=list(perm)))
        scores = b.op("MatMul", parts[:2], (BATCH, self.heads, LENGTH, LENGTH))
        scores = b.binary("Div", scores, self._scalar(float(np.sqrt(size))), scores.shape)
        weights = b.unary("Softmax", b.binary("Add", scores, bias, scores.shape), axis=3)
        mixed = b.op("MatMul", [weights, parts[2]], (BATCH, self.heads, LENGTH, size))
        turned = b.op("Transpose", [mixed], wide, perm=[0, 2, 1, 3])
        flat = b.reshape(turned, (0, 0, self.hidden), x.shape)
        return self._normalize(b.binary("Add", self._linear(flat, self.hidden), x, x.shape))

    def _feed_forward(self, x: Value) -> Value:
        b, h = self.b, self._linear(x, self.inner)
        error = b.unary("Erf", b.binary("Div", h, self._scalar(float(np.sqrt(2))), h.shape))
        gate = b.binary("Add", error, self._scalar(1.0), h.shape)
        h = b.binary("Mul", b.binary("Mul", h, gate, h.shape), self._scalar(0.5), h.shape)
        return self._normalize(b.binary("Add", self._linear(h, self.hidden), x, x.shape))


def fused_by_runtime(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """What ONNX Runtime's own extended optimisations make of a model."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "fused.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(str(folder / "fused.onnx"))


def feeds(rng: np.random.Generator) -> dict[str, np.ndarray]:
    mask = np.ones((BATCH, LENGTH), np.int64)
    mask[1, 5:] = 0
    return {"input_ids": rng.integers(0, WORDS, (BATCH, LENGTH)), "attention_mask": mask}
