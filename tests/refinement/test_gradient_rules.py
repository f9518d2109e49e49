"""Every rule against central differences of the onnx package's reference implementation, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnx.parser
import onnx.reference
import pytest

from onnxprune import ir
from passes.refinement.differentiate import differentiate
from passes.refinement.rules import RULES

STEP = 1e-4


@dataclass(frozen=True)
class Case:
    """``text``: nodes that compute y; ``sizes``: shapes of the trained tensors; ``fixed``: other constants."""

    text: str
    sizes: dict[str, tuple[int, ...]]
    fixed: dict[str, np.ndarray]
    opset: int = 18
    positive: bool = False


def case(text: str, opset: int = 18, positive: bool = False, **tensors: object) -> Case:
    sizes = {name: value for name, value in tensors.items() if isinstance(value, tuple)}
    fixed = {name: np.asarray(value) for name, value in tensors.items() if not isinstance(value, tuple)}
    return Case(text, sizes, fixed, opset, positive)


IMAGE = (2, 4, 7, 6)
CASES = [
    case("y = Relu(x)", x=(3, 4)),
    case("y = Clip(x, lo, hi)", x=(3, 4), lo=np.float32(-0.5), hi=np.float32(0.7)),
    case("y = Clip<min=-0.5, max=0.7>(x)", opset=9, x=(3, 4)),
    case("y = PRelu(x, w)", x=(2, 3, 4), w=(3, 1)),
    case("y = LeakyRelu<alpha=0.2>(x)", x=(3, 4)),
    case("y = HardSigmoid(x)", x=(3, 4)),
    case("y = HardSwish(x)", x=(3, 4)),
    case("z = Mul(x, k)\ny = HardSwish(z)", x=(4, 5), k=np.float32(4)),
    *(case(f"y = {op}(x)", x=(3, 4)) for op in ("Sigmoid", "Tanh", "Erf", "Exp", "Neg", "Abs", "Softplus", "Elu")),
    case("y = Gelu(x)", opset=20, x=(3, 4)),
    case('y = Gelu<approximate="tanh">(x)', opset=20, x=(3, 4)),
    *(case(f"y = {op}(x)", x=(3, 4)) for op in ("Selu", "Celu", "Mish", "Softsign", "Sin", "Cos")),
    case("y = Celu<alpha=0.5>(x)", x=(3, 4)),
    *(case(f"y = {op}(x)", positive=True, x=(3, 4)) for op in ("Log", "Sqrt", "Reciprocal")),
    case("y = Pow(x, p)", positive=True, x=(3, 4), p=np.float32(2.5)),
    case("y = Add(x, w)", x=(2, 3, 4), w=(3, 1)),
    case("y = Sum(x, w, v)", x=(2, 3, 4), w=(3, 1), v=(4,)),
    case("y = Sub(w, x)", x=(2, 3, 4), w=(3, 4)),
    case("y = Mul(x, w)", x=(2, 3, 4), w=(1, 4)),
    case("y = Div(x, w)", positive=True, x=(2, 3, 4), w=(1, 4)),
    case("y = Where(c, x, w)", x=(2, 3), w=(3,), c=np.array([[True, False, True], [False, False, True]])),
    case("y = ReduceMean<axes=[-1], keepdims=0>(x)", opset=17, x=(2, 3, 4)),
    case("y = ReduceMean(x, a)", x=(2, 3, 4), a=np.array([0, 2])),
    case("y = ReduceSum(x)", x=(2, 3, 4)),
    case("y = ReduceSumSquare<keepdims=0>(x, a)", x=(2, 3, 4), a=np.array([1])),
    case("y = ReduceL2<axes=[2], keepdims=1>(x)", opset=13, x=(2, 3, 4)),
    case("y = ReduceMax<axes=[1], keepdims=0>(x)", opset=13, x=(2, 3, 4)),
    case("y = ReduceMin(x, a)", x=(2, 3, 4), a=np.array([0, -1])),
    case("y = Max(x, w, k)", x=(2, 3, 4), w=(3, 1), k=np.float32(0.1)),
    case("y = Min(x, w)", x=(2, 3, 4), w=(4,)),
    case("y = Conv<pads=[1, 1, 1, 1]>(x, w, b)", x=IMAGE, w=(5, 4, 3, 3), b=(5,)),
    case("y = Conv<strides=[2, 3], pads=[0, 1, 2, 1], dilations=[2, 1]>(x, w)", x=IMAGE, w=(5, 4, 3, 2)),
    case("y = Conv<group=2, strides=[2, 2]>(x, w, b)", x=IMAGE, w=(6, 2, 3, 3), b=(6,)),
    case('y = Conv<group=4, auto_pad="SAME_UPPER", strides=[2, 2]>(x, w)', x=IMAGE, w=(4, 1, 3, 3)),
    case("y = Conv<group=2, pads=[1, 0, 1, 2], dilations=[1, 2]>(x, w)", x=IMAGE, w=(6, 2, 3, 2)),
    case("y = Conv(x, w, b)", x=IMAGE, w=(5, 4, 1, 1), b=(5,)),
    case("y = Conv<pads=[2, 0, 1, 1]>(x, w)", x=IMAGE, w=(5, 4, 2, 2)),
    case("y = Conv<pads=[2, 0], strides=[2]>(x, w)", x=(2, 3, 9), w=(4, 3, 3)),
    case(
        "y = ConvTranspose<strides=[2, 2], pads=[1, 0, 1, 1], output_padding=[1, 0]>(x, w, b)",
        x=(2, 4, 3, 4),
        w=(4, 3, 3, 3),
        b=(3,),
    ),
    case("y = Gemm<alpha=0.5, beta=2.0>(x, w, b)", x=(3, 4), w=(4, 5), b=(5,)),
    case("y = Gemm<transA=1, transB=1>(x, w, b)", x=(4, 3), w=(5, 4), b=(3, 1)),
    case("y = Gemm<transA=1>(x, w)", x=(4, 3), w=(4, 5)),
    case("y = Gemm<transB=1>(x, w)", x=(3, 4), w=(5, 4)),
    case("y = MatMul(x, w)", x=(2, 3, 4), w=(4, 5)),
    case("y = MatMul(x, w)", x=(2, 3, 4), w=(2, 4, 5)),
    case("y = MatMul(x, w)", x=(3, 4), w=(2, 4, 5)),
    case("y = Transpose<perm=[2, 0, 1]>(x)", x=(2, 3, 4)),
    case("y = Transpose(x)", x=(2, 3, 4)),
    case("y = Reshape(x, s)", x=(2, 3, 4), s=np.array([6, -1])),
    case("y = Flatten(x)", x=(2, 3, 4)),
    case("y = Squeeze(x, a)", x=(2, 1, 4), a=np.array([1])),
    case("y = Unsqueeze(x, a)", x=(2, 4), a=np.array([1])),
    case("y = Identity(x)", x=(2, 4)),
    case("y = Dropout(x)", x=(2, 4)),
    case("y = Cast<to=1>(x)", x=(2, 4)),
    case("y = Expand(x, s)", x=(3, 1), s=np.array([2, 3, 4])),
    case("y = Concat<axis=-1>(x, w)", x=(2, 3), w=(2, 4)),
    case(
        "a, b, c = Split<axis=1>(x, s)\nd = Exp(c)\ne = Mul(a, d)\nz = Add(e, c)\ny = Tanh(z)",
        x=(2, 6),
        s=np.array([2, 2, 2]),
    ),
    case(
        "y = Slice(x, b, e, a, s)",
        x=(5, 6),
        b=np.array([4, 1]),
        e=np.array([-99, 6]),
        a=np.array([0, 1]),
        s=np.array([-2, 2]),
    ),
    case("y = Slice<starts=[1], ends=[-1], axes=[1]>(x)", opset=9, x=(3, 6)),
    case("y = Gather<axis=1>(x, i)", x=(2, 5, 3), i=np.array([[3, 0], [-1, 2]])),
    case("y = Gather<axis=1>(x, i)", x=(2, 5, 3), i=np.int64(2)),
    case("y = Pad(x, p)", x=(2, 3), p=np.array([0, 1, 2, 0])),
    case("y = Pad<pads=[0, 1, 2, 0]>(x)", opset=9, x=(2, 3)),
    case(
        "y = BatchNormalization(x, w, b, m, v)",
        x=IMAGE,
        w=(4,),
        b=(4,),
        m=np.float32([0.1, 0, 1, 2]),
        v=np.float32([1, 2, 0.5, 1]),
    ),
    case("y = LayerNormalization(x, w, b)", x=(2, 3, 5), w=(5,), b=(5,)),
    case("y = LayerNormalization<axis=1>(x, w)", x=(2, 3, 5), w=(3, 5)),
    case("y = InstanceNormalization(x, w, b)", x=IMAGE, w=(4,), b=(4,)),
    case("y = Softmax<axis=-1>(x)", x=(2, 3, 5)),
    case("y = Softmax<axis=1>(x)", x=(2, 3, 5)),
    case("y = Softmax(x)", x=(2, 3, 5)),
    case("y = Softmax(x)", opset=11, x=(2, 5)),
    case("y = LogSoftmax<axis=-1>(x)", x=(2, 5)),
    case("y = GlobalAveragePool(x)", x=IMAGE),
    case("y = GlobalMaxPool(x)", x=IMAGE),
    case("y = DepthToSpace<blocksize=2>(x)", opset=13, x=(2, 8, 2, 3)),
    case('y = DepthToSpace<blocksize=2, mode="CRD">(x)', opset=13, x=(2, 8, 2, 3)),
    case("y = SpaceToDepth<blocksize=2>(x)", opset=13, x=(2, 3, 4, 6)),
    case("y = Tile(x, r)", x=(2, 3, 4), r=np.array([2, 1, 3])),
    case(
        'y = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(x, , s)',
        opset=13,
        x=(2, 3, 4, 5),
        s=np.float32([1, 1, 2, 2]),
    ),
    case('y = Resize<mode="linear">(x, , , n)', opset=13, x=(2, 3, 4, 5), n=np.array([2, 3, 7, 8])),
    case(
        'y = Resize<mode="linear", coordinate_transformation_mode="align_corners">(x, r, s)',
        opset=11,
        x=(2, 3, 4, 5),
        r=np.zeros(0, np.float32),
        s=np.float32([1, 1, 1.5, 0.4]),
    ),
    case('y = Resize<mode="cubic", axes=[2, 3]>(x, , s)', x=(2, 3, 4, 5), s=np.float32([2, 2])),
    case('y = Upsample<mode="nearest">(x, s)', opset=9, x=(2, 3, 4, 5), s=np.float32([1, 1, 2, 3])),
    case("y = AveragePool<kernel_shape=[2, 2], strides=[2, 2]>(x)", x=IMAGE),
    case("y = AveragePool<kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1>(x)", x=IMAGE),
    case("y = MaxPool<kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]>(x)", x=IMAGE),
]


@pytest.mark.parametrize("wanted", CASES, ids=lambda value: f"{value.text.splitlines()[0]} {value.opset}")
def test_gradients_are_central_differences(wanted: Case) -> None:
    values = _values(wanted)
    model = ir.from_proto(_proto(wanted, values))
    gradient = differentiate(model, ["y"], {}, threads=1)
    assert gradient is not None and set(gradient.names) == set(wanted.sizes)
    found = gradient.forward({}, values)
    loss = np.random.default_rng(1).normal(size=found["y"].shape).astype(np.float32)
    slopes = gradient.backward(found, values, {"y": loss})
    for name, direction in _directions(wanted).items():
        expected = _difference(wanted, values, name, direction, loss)
        assert float((slopes[name] * direction).sum()) == pytest.approx(expected, rel=2e-3, abs=2e-3), name
        assert slopes[name].shape == wanted.sizes[name]


def test_gradients_of_grouped_transposed_convolutions_are_differences() -> None:
    # linear in either operand, so a difference of any length is exact; the reference implementation has no groups
    wanted = case("y = ConvTranspose<group=2, strides=[2, 1]>(x, w)", x=(2, 4, 3, 4), w=(4, 3, 2, 2))
    values = _values(wanted)
    gradient = differentiate(ir.from_proto(_proto(wanted, values)), ["y"], {}, threads=1)
    assert gradient is not None
    found = gradient.forward({}, values)
    loss = np.random.default_rng(1).normal(size=found["y"].shape).astype(np.float32)
    slopes = gradient.backward(found, values, {"y": loss})
    for name, direction in _directions(wanted).items():
        moved = values | {name: (values[name] + direction).astype(np.float32)}
        change = gradient.forward({}, moved)["y"] - found["y"]
        assert float((slopes[name] * direction).sum()) == pytest.approx(float((change * loss).sum()), rel=1e-3)


def test_every_rule_has_a_case() -> None:
    assert set(RULES) <= {word.split("(")[0].split("<")[0] for one in CASES for word in one.text.split()}


def _values(wanted: Case) -> dict[str, np.ndarray]:
    """Not near the kinks of piecewise functions, so that a small step crosses none."""
    rng = np.random.default_rng(0)
    drawn = {name: rng.permutation(np.prod(size)) + 0.37 for name, size in wanted.sizes.items()}
    spread = {name: 2.2 * flat / len(flat) - 1.1 for name, flat in drawn.items()}
    if wanted.positive:
        spread = {name: 0.4 + np.abs(flat) for name, flat in spread.items()}
    return {name: flat.reshape(wanted.sizes[name]).astype(np.float32) for name, flat in spread.items()}


def _directions(wanted: Case) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    return {name: rng.normal(size=size) for name, size in wanted.sizes.items()}


def _difference(
    wanted: Case, values: dict[str, np.ndarray], name: str, direction: np.ndarray, loss: np.ndarray
) -> float:
    ends = []
    for sign in (1, -1):
        moved = {key: array.astype(np.float64) for key, array in values.items()}
        moved[name] = moved[name] + sign * STEP * direction
        output = onnx.reference.ReferenceEvaluator(_proto(wanted, moved, double=True)).run(["y"], {})[0]
        ends.append(float((output * loss).sum()))
    return (ends[0] - ends[1]) / (2 * STEP)


def _proto(wanted: Case, values: dict[str, np.ndarray], double: bool = False) -> onnx.ModelProto:
    head = f'<ir_version: 8, opset_import: ["": {wanted.opset}]>\ng () => ({"double" if double else "float"} y) {{'
    model = onnx.parser.parse_model(f"{head}\n{wanted.text}\n}}")
    for name, array in (values | wanted.fixed).items():
        wide = double and array.dtype == np.float32
        model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float64) if wide else array, name))
    return model
