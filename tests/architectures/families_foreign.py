"""What tf2onnx, Paddle2ONNX and MXNet write, in their own idioms: layouts, constants, paddings, computed shapes."""

from __future__ import annotations

import numpy as np
import onnx
from foreign import Feeds, Foreign, Writer

TO_FIRST, TO_LAST = [0, 3, 1, 2], [0, 2, 3, 1]


class Keras(Writer):
    """tf2onnx of a Keras model whose maps stay NHWC: transposes around what must be NCHW; parameters along the end."""

    def __init__(self) -> None:
        super().__init__(15)

    def conv(self, x: str, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, group: int = 1) -> str:
        """SAME padding, which at stride 2 adds a row and a column at the end; the bias as an Add of its own."""
        before = (kernel - stride) // 2 if stride < kernel else 0
        pads = [before] * 2 + [max(kernel - stride, 0) - before] * 2
        y = self.op("Transpose", [x], perm=TO_FIRST)
        weight = self.weight(outputs, inputs // group, kernel, kernel)
        sizes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "dilations": [1, 1]}
        y = self.op("Conv", [y, weight], pads=pads, group=group, **sizes)
        return self.op("Add", [self.op("Transpose", [y], perm=TO_LAST), self.weight(outputs, scale=0.1)])

    def depthwise(self, x: str, width: int, stride: int = 1) -> str:
        """The kernel is stored HWC1 and brought to C1HW by a Transpose that the converter did not fold."""
        kernel = self.op("Transpose", [self.weight(3, 3, width, 1, scale=0.3)], perm=[2, 3, 0, 1])
        y = self.op("Transpose", [x], perm=TO_FIRST)
        pads = [1, 1, 1, 1] if stride == 1 else [0, 0, 1, 1]
        y = self.op("Conv", [y, kernel], pads=pads, strides=[stride] * 2, group=width, kernel_shape=[3, 3])
        return self.op("Transpose", [y], perm=TO_LAST)

    def norm(self, x: str, width: int) -> str:
        """A BatchNormalization that became a scale and a shift along the last axis."""
        return self.op("Add", [self.op("Mul", [x, self.positive(width)]), self.weight(width, scale=0.2)])

    def relu6(self, x: str) -> str:
        """As a minimum and a maximum with numbers."""
        return self.op("Max", [self.op("Min", [x, self.constant(6.0)]), self.constant(0.0)])

    def mean(self, x: str, keep: int = 0) -> str:
        """GlobalAveragePooling2D."""
        return self.op("ReduceMean", [x], axes=[1, 2], keepdims=keep)

    def dense(self, x: str, inputs: int, outputs: int) -> str:
        """A matrix and a bias."""
        weight = self.constant(self.rng.standard_normal((inputs, outputs)) / inputs**0.5)
        return self.op("Add", [self.op("MatMul", [x, weight]), self.weight(outputs, scale=0.1)])


def keras_residual() -> tuple[onnx.ModelProto, Feeds]:
    """Two residual blocks, the second strided with a projection; a mean; a dense layer."""
    b = Keras()
    x = b.op("Relu", [b.norm(b.conv("input", 3, 12), 12)])
    y = b.op("Relu", [b.norm(b.conv(x, 12, 12), 12)])
    x = b.op("Relu", [b.op("Add", [b.norm(b.conv(y, 12, 12), 12), x])])
    y = b.op("Relu", [b.norm(b.conv(x, 12, 16, 3, 2), 16)])
    x = b.op("Relu", [b.op("Add", [b.conv(x, 12, 16, 1, 2), b.norm(b.conv(y, 16, 16), 16)])])
    return _classified(b, b.dense(b.mean(x), 16, 5), 16)


def keras_mobilenet() -> tuple[onnx.ModelProto, Feeds]:
    """Depthwise blocks with ReLU6, a gate by 1 x 1 convolutions, and a map that is flattened row by row."""
    b = Keras()
    x = b.relu6(b.norm(b.conv("input", 3, 12, 3, 2), 12))
    x = b.relu6(b.norm(b.depthwise(x, 12), 12))
    x = b.relu6(b.norm(b.conv(x, 12, 16, 1), 16))
    gate = b.conv(b.op("Relu", [b.conv(b.mean(x, 1), 16, 6, 1)]), 6, 16, 1)
    x = b.op("Mul", [x, b.op("Sigmoid", [gate])])
    padded = b.op("Pad", [x, b.ints(0, 0, 0, 0, 0, 1, 1, 0)])
    y = b.relu6(b.norm(b.depthwise(padded, 16, 2), 16))
    y = b.op("Concat", [y, b.conv(x, 16, 8, 3, 2)], axis=3)
    flat = b.op("Reshape", [y, b.ints(-1, 4 * 4 * 24)])
    return _classified(b, b.dense(b.op("Relu", [b.dense(flat, 4 * 4 * 24, 16)]), 16, 5), 16)


def keras_unet() -> tuple[onnx.ModelProto, Feeds]:
    """A skip by concatenation, a resize to a size computed from the input's, a transposed convolution, PReLU."""
    b = Keras()
    a = b.op("PRelu", [b.conv("input", 3, 12), b.positive(1, 1, 12)])
    y = b.op("Transpose", [a], perm=TO_FIRST)
    y = b.op("Transpose", [b.op("MaxPool", [y], kernel_shape=[2, 2], strides=[2, 2])], perm=TO_LAST)
    y = b.op("LeakyRelu", [b.norm(b.conv(y, 12, 16), 16)], alpha=0.2)
    shape = b.op("Cast", [b.op("Shape", [y])], to=onnx.TensorProto.INT32)
    size = b.op("Slice", [shape, b.ints(1), b.ints(3), b.ints(0)])
    size = b.op("Cast", [b.op("Mul", [size, b.constant([2, 2], np.int32)])], to=onnx.TensorProto.INT64)
    first = b.op("Transpose", [y], perm=TO_FIRST)
    sizes = b.op("Concat", [b.op("Slice", [b.op("Shape", [first]), b.ints(0), b.ints(2), b.ints(0)]), size], axis=0)
    empty = b.constant([])
    up = b.op("Resize", [first, empty, empty, sizes], mode="linear", coordinate_transformation_mode="half_pixel")
    up = b.op("Transpose", [up], perm=TO_LAST)
    y = b.op("Relu", [b.conv(b.op("Concat", [a, up], axis=-1), 28, 12)])
    y = b.op("Transpose", [y], perm=TO_FIRST)
    y = b.op("ConvTranspose", [y, b.weight(12, 8, 3, 3)], strides=[2, 2], pads=[0, 0, 1, 1], kernel_shape=[3, 3])
    y = b.op("Relu", [b.op("Add", [b.op("Transpose", [y], perm=TO_LAST), b.weight(8, scale=0.1)])])
    return _classified(b, b.conv(y, 8, 2, 1), 8, "Sigmoid")


def _classified(b: Keras, x: str, size: int, op: str = "Softmax") -> tuple[onnx.ModelProto, Feeds]:
    model = b.finish(b.op(op, [x]), {"input": ["unk__1", size, size, 3]}, "tf2onnx")
    return model, {"input": b.rng.standard_normal((2, size, size, 3)).astype(np.float32)}


class Paddle(Writer):
    """Paddle2ONNX at opset 10: every weight is a Constant node, biases are reshaped, hard swish is four nodes."""

    def __init__(self) -> None:
        super().__init__(10, constants=True)

    def conv(self, x: str, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, group: int = 1) -> str:
        weight = self.weight(outputs, inputs // group, kernel, kernel)
        sizes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "dilations": [1, 1]}
        return self.op("Conv", [x, weight], pads=[kernel // 2] * 4, group=group, **sizes)

    def norm(self, x: str, width: int) -> str:
        parameters = [self.positive(width), self.weight(width, scale=0.2), self.weight(width, scale=0.2)]
        return self.op("BatchNormalization", [x, *parameters, self.positive(width)], epsilon=1e-5)

    def biased(self, x: str, inputs: int, outputs: int) -> str:
        bias = self.op("Reshape", [self.weight(outputs, scale=0.1), self.ints(1, outputs, 1, 1)])
        return self.op("Add", [self.conv(x, inputs, outputs, 1), bias])

    def hard_swish(self, x: str) -> str:
        clipped = self.op("Clip", [self.op("Add", [x, self.constant([3.0])])], min=0.0, max=6.0)
        return self.op("Div", [self.op("Mul", [x, clipped]), self.constant([6.0])])

    def entry(self, x: str, start: int, end: int) -> str:
        """Entries of a shape, by way of 32-bit integers."""
        shape = self.op("Cast", [self.op("Shape", [x])], to=onnx.TensorProto.INT32)
        bounds = [self.constant([value], np.int32) for value in (start, end, 0, 1)]
        return self.op("Cast", [self.op("Slice", [shape, *bounds])], to=onnx.TensorProto.INT64)


def paddle_classifier() -> tuple[onnx.ModelProto, Feeds]:
    """MobileNetV3 of PaddleOCR on images of any size: gates, sums, a flattening whose sizes are computed."""
    b = Paddle()
    x = b.hard_swish(b.norm(b.conv("x", 3, 12, 3, 2), 12))
    for _ in range(2):
        y = b.op("Relu", [b.norm(b.conv(x, 12, 24, 1), 24)])
        y = b.op("Relu", [b.norm(b.conv(y, 24, 24, 3, 1, 24), 24)])
        gate = b.op("Relu", [b.biased(b.op("GlobalAveragePool", [y]), 24, 6)])
        gate = b.op("HardSigmoid", [b.biased(gate, 6, 24)], alpha=0.2, beta=0.5)
        x = b.op("Add", [x, b.norm(b.conv(b.op("Mul", [y, gate]), 24, 12, 1), 12)])
    y = b.op("MaxPool", [b.hard_swish(b.norm(b.conv(x, 12, 24, 1), 24))], kernel_shape=[2, 2], strides=[2, 2])
    y = b.op("GlobalAveragePool", [y])
    y = b.op("Reshape", [y, b.op("Concat", [b.entry(y, 0, 1), b.entry(y, 1, 2)], axis=-1)])
    weight = b.constant(b.rng.standard_normal((24, 5)))
    y = b.op("Softmax", [b.op("Add", [b.op("MatMul", [y, weight]), b.weight(5, scale=0.1)])], axis=1)
    model = b.finish(b.op("Identity", [y]), {"x": ["N", 3, "H", "W"]}, "PaddlePaddle", ["N", 5])
    return model, {"x": b.rng.standard_normal((2, 3, 16, 20)).astype(np.float32)}


def mxnet_face() -> tuple[onnx.ModelProto, Feeds]:
    """arXiv 1801.07698 as MXNet writes it: numbers subtracted and multiplied in front, PReLU, pre-norms, and an
    embedding behind a flattened map.
    """
    b = Writer(8)

    def norm(x: str, width: int) -> str:
        parameters = [b.positive(width), b.weight(width, scale=0.2), b.weight(width, scale=0.2), b.positive(width)]
        return b.op("BatchNormalization", [x, *parameters], epsilon=2e-5, momentum=0.9)

    def conv(x: str, inputs: int, outputs: int, kernel: int, stride: int = 1) -> str:
        weight = b.weight(outputs, inputs, kernel, kernel)
        return b.op("Conv", [x, weight], pads=[kernel // 2] * 4, strides=[stride] * 2, kernel_shape=[kernel] * 2)

    x = b.op("Mul", [b.op("Sub", ["data", b.constant([127.5])]), b.constant([0.0078125])])
    x = b.op("PRelu", [norm(conv(x, 3, 12, 3), 12), b.positive(12, 1, 1)])
    y = b.op("PRelu", [norm(conv(norm(x, 12), 12, 16, 3), 16), b.positive(16, 1, 1)])
    x = b.op("Add", [norm(conv(y, 16, 16, 3, 2), 16), norm(conv(x, 12, 16, 1, 2), 16)])
    y = b.op("Flatten", [b.op("Dropout", [norm(x, 16)], ratio=0.4)])
    y = b.op("Gemm", [y, b.weight(24, 16 * 25), b.weight(24, scale=0.1)], transB=1)
    parameters = [b.constant(np.ones(24)), b.weight(24, scale=0.2), b.weight(24, scale=0.2), b.positive(24)]
    model = b.finish(b.op("BatchNormalization", [y, *parameters]), {"data": ["N", 3, 10, 10]}, "mxnet")
    return model, {"data": b.rng.uniform(0, 255, (2, 3, 10, 10)).astype(np.float32)}


def darknet() -> tuple[onnx.ModelProto, Feeds]:
    """arXiv 1804.02767 at opset 9: residual blocks with LeakyRelu, Upsample by constant scales, two heads, strides."""
    b = Writer(9)

    def conv(x: str, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> str:
        y = b.op("Conv", [x, b.weight(outputs, inputs, kernel, kernel)], auto_pad="SAME_LOWER", strides=[stride] * 2)
        parameters = [b.positive(outputs), b.weight(outputs, scale=0.2), b.weight(outputs, scale=0.2)]
        y = b.op("BatchNormalization", [y, *parameters, b.positive(outputs)])
        return b.op("LeakyRelu", [y], alpha=0.1)

    def head(x: str, inputs: int) -> str:
        y = b.op("Conv", [conv(x, inputs, 16), b.weight(18, 16, 1, 1), b.weight(18, scale=0.1)])
        y = b.op("Reshape", [y, b.ints(0, 3, 6, -1)])
        return b.op("Transpose", [y], perm=[0, 1, 3, 2])

    x = conv(conv("x", 3, 8), 8, 16, 3, 2)
    fine = b.op("Add", [conv(conv(x, 16, 8, 1), 8, 16), x])
    coarse = conv(conv(fine, 16, 24, 3, 2), 24, 12, 1)
    up = b.op("Upsample", [conv(coarse, 12, 8, 1), b.constant([1, 1, 2, 2])], mode="nearest")
    boxes = b.op("Concat", [head(coarse, 12), head(b.op("Concat", [up, fine], axis=1), 24)], axis=2)
    model = b.finish(b.op("Sigmoid", [boxes]), {"x": [1, 3, 16, 16]}, "darknet")
    return model, {"x": b.rng.standard_normal((1, 3, 16, 16)).astype(np.float32)}


FAMILIES = (
    Foreign("Keras residual", "tf2onnx", keras_residual),
    Foreign("Keras MobileNet", "tf2onnx", keras_mobilenet),
    Foreign("Keras U-Net", "tf2onnx", keras_unet),
    Foreign("Paddle MobileNet v3", "Paddle2ONNX", paddle_classifier),
    Foreign("MXNet ArcFace", "MXNet", mxnet_face),
    Foreign("YOLOv3", "Darknet", darknet),
)
