"""Steps of random graphs over feature maps (N, C, H, W): each reads live tensors and adds one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from graph_builder import Builder, Value
from indexing_steps import counted, group_normalization, indexed, sampled

Step = Callable[[Builder, Value], Value]
WIDTHS = (4, 6, 8, 12)


def conv(b: Builder, x: Value) -> Value:
    n, c, h, w = x.shape
    group = b.pick([g for g in (1, 1, 1, 2, 4) if c % g == 0])
    out = b.pick([v for v in WIDTHS if v % group == 0])
    k = b.pick([1, 3])
    weight = b.weight(out, c // group, k, k, fan_in=c // group * k * k)
    bias = [b.weight(out)] if b.flag() else []
    shape = (n, out, h, w)
    if b.flag():
        return b.op("Conv", [x, weight, *bias], shape, group=group, auto_pad="SAME_UPPER", kernel_shape=[k, k])
    return b.op("Conv", [x, weight, *bias], shape, group=group, pads=[k // 2] * 4, kernel_shape=[k, k])


def depthwise(b: Builder, x: Value) -> Value:
    n, c, h, w = x.shape
    times = b.pick([1, 1, 2]) if c <= 8 else 1
    inputs = [x, b.weight(c * times, 1, 3, 3, fan_in=9), *([b.weight(c * times)] if b.flag() else [])]
    return b.op("Conv", inputs, (n, c * times, h, w), group=c, pads=[1] * 4)


def conv_transpose(b: Builder, x: Value) -> Value:
    n, c, h, w = x.shape
    group = b.pick([g for g in (1, 2, c) if c % g == 0])
    per_group = b.pick([1, 2, 3])
    weight = b.weight(c, per_group, 2, 2, fan_in=c // group)
    bias = [b.weight(per_group * group)] if b.flag() else []
    return b.op("ConvTranspose", [x, weight, *bias], (n, per_group * group, h + 1, w + 1), group=group)


def shared_conv(b: Builder, x: Value) -> Value:
    """The same weight twice in a row, or on two tensors."""
    _n, c, _h, _w = x.shape
    weight = b.weight(c, c, 1, 1, fan_in=c)
    first = b.op("Relu", [b.op("Conv", [x, weight], x.shape)], x.shape)
    other = b.op("Conv", [first if b.flag() else x, weight, b.weight(c)], x.shape)
    return b.binary("Add", first, other, x.shape)


def batch_norm(b: Builder, x: Value) -> Value:
    c = x.shape[1]
    inputs = [x, b.weight(c), b.weight(c), b.weight(c), b.weight(c, offset=0.5)]
    return b.op("BatchNormalization", inputs, x.shape)


def activation(b: Builder, x: Value) -> Value:
    ops = [
        "Relu",
        "Sigmoid",
        "Tanh",
        "LeakyRelu",
        "Elu",
        "HardSigmoid",
        "Softplus",
        "Softsign",
        "Neg",
        "Abs",
        "Selu",
        "Erf",
    ]
    ops += ["HardSwish"] * (b.opset >= 14) + ["Mish"] * (b.opset >= 18)
    ops += ["Gelu"] * (b.opset >= 20) + ["Celu"] * (b.opset >= 12)
    return b.unary(b.pick(ops), x)


def prelu(b: Builder, x: Value) -> Value:
    c = x.shape[1]
    return b.op("PRelu", [x, b.weight(*b.pick([(c, 1, 1), (1,), (1, c, 1, 1)]))], x.shape)


def clip(b: Builder, x: Value) -> Value:
    return b.clip(x, *b.pick([(0.0, 6.0), (0.5, 2.0), (-1.0, 1.0)]))


def constant_operand(b: Builder, x: Value) -> Value:
    _, c, h, w = x.shape
    shape = b.pick([(c, 1, 1), (1, c, 1, 1), (1,), (), (c, h, w), (1, 1, 1, w)])
    op = b.pick(["Add", "Mul", "Sub", "Div"])
    operands: list[Value | str] = [x, b.weight(*shape, offset=0.5)]
    if op != "Div" and b.flag():
        operands.reverse()
    return b.binary(op, operands[0], operands[1], x.shape)


def pool(b: Builder, x: Value) -> Value:
    n, c, h, w = x.shape
    op = b.pick(["MaxPool", "AveragePool", "LpPool"])
    if op == "AveragePool" and b.flag():
        return b.op(op, [x], x.shape, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=b.choose.integer(0, 1))
    if op == "MaxPool" and b.opset >= 10 and h > 2 and w > 2 and b.flag():
        shape = (n, c, -(-(h - 2) // 2) + 1, -(-(w - 2) // 2) + 1)
        return b.op(op, [x], shape, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    return b.op(op, [x], x.shape, kernel_shape=[3, 3], pads=[1] * 4)


def residual(b: Builder, x: Value) -> Value:
    """Joins two live tensors of one shape; makes the second one where there is none."""
    others = [v for v in b.live if v.shape == x.shape and v.name != x.name]
    if not others or b.flag():
        _, c, _, _ = x.shape
        other = b.op("Conv", [x, b.weight(c, c, 1, 1, fan_in=c), b.weight(c)], x.shape)
    else:
        other = b.pick(others)
    op = b.pick(["Add", "Add", "Mul", "Sub", "Max", "Sum"])
    return b.binary(op, *((x, other) if b.flag() else (other, x)), x.shape)


def concat(b: Builder, x: Value) -> Value:
    others = [v for v in b.live if len(v.shape) == 4 and v.shape[2:] == x.shape[2:] and v.shape[1] + x.shape[1] <= 24]
    if not others:
        return conv(b, x)
    other = b.pick(others)
    shape = (x.shape[0], x.shape[1] + other.shape[1], *x.shape[2:])
    return b.op("Concat", [x, other], shape, axis=b.pick([1, -3]))


def split(b: Builder, x: Value) -> Value:
    c = x.shape[1]
    parts = b.pick([p for p in (2, 3) if c % p == 0] or [1])
    if parts == 1:
        return conv(b, x)
    explicit = b.flag()
    sizes = [c // parts] * parts if not explicit or c < 4 or b.flag() else [c // 2 - 1, c - c // 2 + 1]
    pieces = b.split(x, sizes, b.pick([1, -3]), explicit=explicit)
    b.live += pieces[1:]
    return pieces[0]


def split_swap(b: Builder, x: Value) -> Value:
    """Splits, works on one half, joins in the other order (ShuffleNet V2, C2f)."""
    _n, c, _h, _w = x.shape
    if c % 2:
        return conv(b, x)
    first, second = b.split(x, [c // 2] * 2, 1, explicit=b.flag())
    second = b.op("Conv", [second, b.weight(c // 2, c // 2, 1, 1, fan_in=c // 2)], second.shape)
    order = [first, second] if b.flag() else [second, first]
    return b.op("Concat", order, x.shape, axis=1)


def channel_slice(b: Builder, x: Value) -> Value:
    c = x.shape[1]
    if c < 4:
        return conv(b, x)
    bounds = b.pick([(0, c // 2, 1), (1, c, 1), (-3, 2**31, 1), (1, -1, 1)])
    if b.opset >= 10 and b.flag():
        bounds = b.pick([(0, c, 2), (1, c, 2), (c - 1, -c - 1, -1), (-1, -(2**31), -2)])
    return b.slice(x, b.pick([1, -3]), *bounds)


def channel_gather(b: Builder, x: Value) -> Value:
    n, c, h, w = x.shape
    if c < 4:
        return conv(b, x)
    count = b.choose.integer(2, c)
    indices = b.rng.permutation(c)[:count]
    if b.flag():
        indices = indices - c * b.rng.integers(0, 2, count) * (b.opset >= 11)
    return b.op("Gather", [x, b.ints(indices.tolist())], (n, count, h, w), axis=b.pick([1, -3]))


def channel_pad(b: Builder, x: Value) -> Value:
    """The parameter-free shortcut of CIFAR ResNets: more channels that hold a constant."""
    before, after = b.pick([(1, 1), (0, 2), (2, 0), (2, 2)])
    padded = b.pad(x, 1, before, after, b.pick([0.0, 0.0, 0.5]))
    c = padded.shape[1]
    branch = b.op("Conv", [x, b.weight(c, x.shape[1], 1, 1, fan_in=x.shape[1])], padded.shape)
    return b.binary("Add", padded, branch, padded.shape)


def shuffle(b: Builder, x: Value) -> Value:
    n, c, h, w = x.shape
    groups = b.pick([g for g in (2, 3, 4) if c % g == 0] or [1])
    wide = (n, groups, c // groups, h, w)
    target = b.pick([wide, (0, groups, -1, h, w), (n, groups, c // groups, h, -1)])
    five = b.reshape(x, target, wide)
    turned = b.op("Transpose", [five], (n, c // groups, groups, h, w), perm=[0, 2, 1, 3, 4])
    return b.reshape(turned, b.pick([x.shape, (n, -1, h, w), (0, c, h, w)]), x.shape)


def gate(b: Builder, x: Value) -> Value:
    """Squeeze and excitation, by pooling or mean, broadcast or expanded."""
    n, c, h, w = x.shape
    small = (n, c, 1, 1)
    q = b.op("GlobalAveragePool", [x], small) if b.flag() else b.reduce("ReduceMean", x, [2, 3])
    middle = b.pick([2, 4])
    q = b.op("Conv", [q, b.weight(middle, c, 1, 1, fan_in=c), b.weight(middle)], (n, middle, 1, 1))
    q = b.op("Conv", [b.unary("Relu", q), b.weight(c, middle, 1, 1), b.weight(c)], small)
    q = b.unary("Sigmoid", q)
    if b.flag():
        q = b.op("Expand", [q, b.ints([n, c, h, w] if b.flag() else [1, 1, h, w])], x.shape)
    elif b.flag():
        q = b.op("Tile", [q, b.ints([1, 1, h, w])], x.shape)
    return b.binary("Mul", x, q, x.shape)


def dense_gate(b: Builder, x: Value) -> Value:
    """A gate through matrices: pool, flatten, Gemm, unsqueeze."""
    n, c, _h, _w = x.shape
    q = b.op("GlobalAveragePool", [x], (n, c, 1, 1))
    axes = b.pick([[2, 3], [-1, -2]]) if b.opset >= 11 else [2, 3]
    q = b.op("Flatten", [q], (n, c)) if b.flag() else b.squeeze("Squeeze", q, axes, (n, c))
    transposed = b.choose.integer(0, 1)
    q = b.op("Gemm", [q, b.weight(c, c, fan_in=c), b.weight(c)], (n, c), transB=transposed, alpha=0.5, beta=2.0)
    q = b.squeeze("Unsqueeze", b.unary("Sigmoid", q), [2, 3], (n, c, 1, 1))
    return b.binary("Mul", x, q, x.shape)


def depth_to_space(b: Builder, x: Value) -> Value:
    n, c, h, w = x.shape
    if c % 4 or h > 8:
        return conv(b, x)
    mode = {"mode": b.pick(["DCR", "CRD"])} if b.opset >= 11 else {}
    return b.op("DepthToSpace", [x], (n, c // 4, h * 2, w * 2), blocksize=2, **mode)


def space_to_depth(b: Builder, x: Value) -> Value:
    n, c, h, w = x.shape
    if h % 2 or w % 2 or c > 6:
        return pool(b, x)
    return b.op("SpaceToDepth", [x], (n, c * 4, h // 2, w // 2), blocksize=2)


def upsample(b: Builder, x: Value) -> Value:
    return b.upsample(x) if x.shape[2] <= 6 else pool(b, x)


def channel_reduction(b: Builder, x: Value) -> Value:
    """Statistics over channels: the formula holds their count."""
    op = b.pick(["ReduceMean", "ReduceMax", "ReduceSum", "ReduceL2", "ReduceMin", "ReduceLogSumExp", "ReduceL1"])
    return b.binary(b.pick(["Sub", "Mul"]), x, b.reduce(op, x, [b.pick([1, -3])]), x.shape)


def channel_softmax(b: Builder, x: Value) -> Value:
    _n, _c, _h, _w = x.shape
    op = b.pick(["Softmax", "Softmax", "LogSoftmax"])
    if b.opset >= 13 or b.flag():
        return b.unary(op, x, axis=b.pick([1, -3] if b.opset >= 11 else [1]))
    return b.unary(op, x, axis=2)


def instance_norm(b: Builder, x: Value) -> Value:
    c = x.shape[1]
    return b.op("InstanceNormalization", [x, b.weight(c), b.weight(c)], x.shape)


def group_norm(b: Builder, x: Value) -> Value:
    """As an operator where the opset has it, otherwise as exporters write it."""
    n, c, h, w = x.shape
    groups = b.pick([g for g in (1, 2, 4) if c % g == 0])
    if b.opset >= 21 and b.flag():
        return b.op("GroupNormalization", [x, b.weight(c), b.weight(c)], x.shape, num_groups=groups)
    folded = b.reshape(x, (0, groups, -1), (n, groups, c // groups * h * w))
    ones = [b.constant(v) for v in (np.ones(groups, np.float32), np.zeros(groups, np.float32))]
    normed = b.op("InstanceNormalization", [folded, *ones], folded.shape)
    back = b.reshape(normed, x.shape, x.shape)
    return b.binary("Mul", back, b.weight(c, 1, 1), x.shape)


def channels_last(b: Builder, x: Value) -> Value:
    """Transposes to NHWC, does something over the last axis, and (mostly) back."""
    n, c, h, w = x.shape
    last = (n, h, w, c)
    y = b.op("Transpose", [x], last, perm=[0, 2, 3, 1])
    kind = b.pick(["matmul", "norm", "bias", "manual norm"])
    if kind == "matmul":
        out = b.pick([4, 6, 8])
        y = b.op("MatMul", [y, b.weight(c, out, fan_in=c)], (n, h, w, out))
        y = b.binary("Add", y, b.weight(out), y.shape)
    elif kind == "norm" and b.opset >= 17:
        y = b.op("LayerNormalization", [y, b.weight(c), b.weight(c)], last, axis=b.pick([-1, 3]))
    elif kind == "manual norm":
        centred = b.binary("Sub", y, b.reduce("ReduceMean", y, [-1]), last)
        squared = b.op("Mul", [centred, centred], last)
        variance = b.binary("Add", b.reduce("ReduceMean", squared, [-1]), b.weight(1, offset=0.5), (n, h, w, 1))
        y = b.binary("Div", centred, b.unary("Sqrt", variance), last)
        y = b.binary("Mul", y, b.weight(c), last)
    else:
        y = b.binary("Add", y, b.weight(*b.pick([(c,), (1, 1, 1, c), (w, c)])), last)
    return b.op("Transpose", [y], (n, y.shape[3], h, w), perm=[0, 3, 1, 2])


def where(b: Builder, x: Value) -> Value:
    c = x.shape[1]
    mask = b.constant(b.rng.random(b.pick([(c, 1, 1), (1,), x.shape[2:]])) < 0.7)
    other = b.weight(*b.pick([(c, 1, 1), (1,)]))
    return b.op("Where", [mask, x, other] if b.flag() else [mask, other, x], x.shape)


def compare(b: Builder, x: Value) -> Value:
    """A mask computed from the channels themselves."""
    positive = b.op("Greater", [x, b.weight(x.shape[1], 1, 1)], x.shape)
    return b.op("Mul", [x, b.op("Cast", [positive], x.shape, to=1)], x.shape)


def barrier(b: Builder, x: Value) -> Value:
    """Operators that mix channels in ways that no rule may look through."""
    n, c, h, w = x.shape
    kind = b.pick(["LRN", "CumSum", "reshape", "Einsum", "batch"])
    if kind == "LRN":
        return b.unary("LRN", x, size=3)
    if kind == "CumSum" and b.opset >= 11:
        return b.op("CumSum", [x, b.constant(np.asarray(1, np.int32))], x.shape)
    if kind == "Einsum" and b.opset >= 12:
        return b.op("Einsum", [x, b.weight(c, c, fan_in=c)], x.shape, equation="nchw,cd->ndhw")
    if kind == "batch":
        return b.op("Transpose", [b.op("Transpose", [x], (c, n, h, w), perm=[1, 0, 2, 3])], x.shape, perm=[1, 0, 2, 3])
    odd = b.reshape(x, (n, h, c, w), (n, h, c, w))
    return b.reshape(b.unary("Relu", odd), x.shape, x.shape)


STEPS: tuple[Step, ...] = (
    conv, conv, conv, depthwise, conv_transpose, shared_conv, batch_norm, activation, activation, prelu, clip,
    constant_operand, pool, residual, residual, concat, split, split_swap, channel_slice, channel_gather, channel_pad,
    shuffle, gate, dense_gate, depth_to_space, space_to_depth, upsample, channel_reduction, channel_softmax,
    instance_norm, group_norm, channels_last, where, compare, group_normalization, counted, indexed, sampled, barrier,
)  # fmt: skip


def head(b: Builder, x: Value) -> Value:
    """A classifier, or a dense map."""
    n, c, h, w = x.shape
    kind = b.pick(["gap", "flatten", "reshape", "mean", "conv", "gemm-a", "as is"])
    if kind == "conv":
        return b.op("Conv", [x, b.weight(3, c, 1, 1, fan_in=c)], (n, 3, h, w))
    if kind == "as is":
        return x
    if kind == "gap":
        x = b.op(b.pick(["GlobalAveragePool", "GlobalMaxPool"]), [x], (n, c, 1, 1))
    if kind == "mean":
        flat = b.reduce("ReduceMean", x, b.pick([[2, 3], [-1, -2]]), keepdims=False)
    elif kind == "reshape":
        flat = b.reshape(x, b.pick([(n, -1), (0, c * h * w), (-1, c * h * w)]), (n, c * h * w))
    else:
        size = x.shape[1] * x.shape[2] * x.shape[3]
        flat = b.op("Flatten", [x], (n, size), axis=1)
    size = flat.shape[1]
    if kind == "gemm-a":  # (C, N) against its own transpose flag
        turned = b.op("Transpose", [flat], (size, n), perm=[1, 0])
        return b.op("Gemm", [turned, b.weight(size, 5, fan_in=size), b.weight(5)], (n, 5), transA=1)
    if b.flag():
        return b.op("MatMul", [flat, b.weight(size, 5, fan_in=size)], (n, 5))
    hidden = b.op("Gemm", [flat, b.weight(8, size, fan_in=size), b.weight(8)], (n, 8), transB=1)
    return b.op("Gemm", [b.unary("Relu", hidden), b.weight(8, 5, fan_in=8), b.weight(1, 5)], (n, 5))
