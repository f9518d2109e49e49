"""The oracle against models that are pruned by hand: right ones pass, every kind of wrong one is caught."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxprune import ir
from onnxprune.errors import ModelError, OnnxpruneError
from onnxprune.pipeline import PassContext
from passes.verify_masking import VerifyMasking, verify

Removed = Mapping[tuple[str, int], Sequence[int]]
N = helper.make_node


def model(nodes, weights, inputs, outputs, opset=17):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, 1, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, 1, s) for n, s in outputs.items()],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def pruned(original: onnx.ModelProto, removed: Removed, **attributes: int) -> onnx.ModelProto:
    """Deletes slices of initializers; `attributes` sets integer attributes of the node whose output it names."""
    twin = onnx.ModelProto()
    twin.CopyFrom(original)
    for tensor in twin.graph.initializer:
        values = numpy_helper.to_array(tensor)
        for (name, axis), gone in removed.items():
            values = np.delete(values, gone, axis) if name == tensor.name else values
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for node in twin.graph.node:
        for attribute in node.attribute:
            if attribute.name == "group" and node.output[0] in attributes:
                attribute.i = attributes[node.output[0]]
    return twin


def weight(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(t for t in model.graph.initializer if t.name == name)


def set_weight(model: onnx.ModelProto, name: str, values: np.ndarray) -> None:
    weight(model, name).CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))


def draw(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def conv_bn(rng, between=(), opset=17, extra=None):
    """conv, BN, sigmoid (f(0) != 0), whatever is between, conv, mean, Gemm."""
    weights = {
        "w1": draw(rng, 8, 3, 3, 3), "b1": draw(rng, 8), "g": draw(rng, 8), "be": draw(rng, 8), "m": draw(rng, 8),
        "v": np.abs(draw(rng, 8)) + 0.5, "w2": draw(rng, 6, 8, 3, 3), "w3": draw(rng, 6, 4), **(extra or {}),
    }  # fmt: skip
    nodes = [
        N("Conv", ["x", "w1", "b1"], ["c"], pads=[1, 1, 1, 1]),
        N("BatchNormalization", ["c", "g", "be", "m", "v"], ["n"]),
        N("Sigmoid", ["n"], ["a"]),
        *(between or [N("Identity", ["a"], ["z"])]),
        N("Conv", ["z", "w2"], ["c2"], pads=[1, 1, 1, 1]),
        N("GlobalAveragePool", ["c2"], ["p"]),
        N("Flatten", ["p"], ["f"]),
        N("Gemm" if opset >= 11 else "MatMul", ["f", "w3"], ["y"]),
    ]
    return model(nodes, weights, {"x": [2, 3, 6, 6]}, {"y": [2, 4]}, opset)


GONE = [1, 4, 6]
PRODUCERS = {(name, 0): GONE for name in ("w1", "b1", "g", "be", "m", "v")}
ACTIVATIONS = {(name, 1): GONE for name in ("c", "n", "a", "z")}
PLAN = {**PRODUCERS, **ACTIVATIONS, ("w2", 1): GONE}


@pytest.fixture
def calls(rng):
    return [{"x": draw(rng, 2, 3, 6, 6)}, {"x": draw(rng, 2, 3, 6, 6)}]


@pytest.mark.parametrize(
    ("opset", "float64"),
    [(7, False), (9, False), (13, False), (17, False), (21, False), (9, True), (21, True)],
)
def test_conv_bn_sigmoid_conv(rng, calls, opset, float64):
    original = conv_bn(rng, opset=opset)
    verdict = verify(original, pruned(original, PLAN), PLAN, calls, float64=float64)
    assert verdict.ok, verdict
    assert verdict.error < 1


def test_weights_alone_name_the_plan(rng, calls):
    original = conv_bn(rng)
    rows = [{"tensor": t, "axis": a, "indices": list(i)} for (t, a), i in PLAN.items() if (t, a) not in ACTIVATIONS]
    assert verify(original, pruned(original, PLAN), rows, calls).ok


def test_a_different_channel_left_the_consumer(rng, calls):
    original = conv_bn(rng)
    wrong = pruned(original, {**PRODUCERS, ("w2", 1): [1, 4, 7]})
    verdict = verify(original, wrong, PLAN, calls)
    assert not verdict.ok
    assert verdict.where == "c2"
    assert verdict.error > 1


def test_a_different_channel_left_the_producer(rng, calls):
    original = conv_bn(rng)
    wrong = pruned(original, {**PLAN, ("b1", 0): [1, 4, 5]})
    verdict = verify(original, wrong, PLAN, calls)
    assert not verdict.ok
    assert verdict.where == "c"


def test_a_contraction_that_the_plan_forgot_interferes(rng, calls):
    """Both sides agree on zeroed weights, but the plan names more producers than its contractions hide."""
    original = conv_bn(rng)
    values = numpy_helper.to_array(weight(original, "w2")).copy()
    plan = {**PLAN, ("w1", 0): [1, 4, 5, 6]}
    compressed = pruned(original, {})
    values[:, GONE] = 0
    set_weight(compressed, "w2", values)
    assert verify(original, compressed, {k: v for k, v in PLAN.items() if k[0] != "w1"}, calls).ok
    verdict = verify(original, compressed, plan, calls)
    assert not verdict.ok
    assert verdict.proof == "non-interference"


def test_plan_outside_of_the_axis(rng, calls):
    original = conv_bn(rng)
    verdict = verify(original, pruned(original, PLAN), {**PLAN, ("w2", 1): [8]}, calls)
    assert not verdict.ok
    assert "w2:1" in verdict.reason
    with pytest.raises(ModelError, match="negative"):
        verify(original, original, {("w2", -1): [0]}, calls)


def test_no_feed_is_an_error(rng):
    original = conv_bn(rng)
    with pytest.raises(ModelError, match="at least one input"):
        verify(original, original, {}, [])


def test_model_that_does_not_run_is_an_error(rng, calls):
    original = conv_bn(rng)
    with pytest.raises(ModelError, match="cannot run"):
        verify(original, pruned(original, {("w2", 1): GONE}), PLAN, calls)


def test_depthwise_and_shared_consumer(rng, calls):
    between = [
        N("Conv", ["a", "dw", "db"], ["d"], group=8, pads=[1, 1, 1, 1]),
        N("GlobalAveragePool", ["d"], ["q"]),
        N("Conv", ["q", "se", "sb"], ["q1"]),
        N("HardSigmoid", ["q1"], ["q2"]),
        N("Mul", ["d", "q2"], ["z"]),
    ]
    extra = {"dw": draw(rng, 8, 1, 3, 3), "db": draw(rng, 8), "se": draw(rng, 8, 8, 1, 1), "sb": draw(rng, 8)}
    original = conv_bn(rng, between, extra=extra)
    plan = {**PLAN, **{(n, 0): GONE for n in ("dw", "db", "se", "sb")}, ("se", 1): GONE}
    plan |= {(n, 1): GONE for n in ("d", "q", "q1", "q2")}
    assert verify(original, pruned(original, plan, d=5), plan, calls).ok
    unzeroed = {k: v for k, v in plan.items() if k not in {("se", 1), ("q", 1)}}
    assert not verify(original, pruned(original, plan, d=5), unzeroed, calls).ok


def reduce_mean(x, y, opset, axis=1):
    return N("ReduceMean", [x, "axis"], [y]) if opset >= 18 else N("ReduceMean", [x], [y], axes=[axis])


FORMULAS = {
    "Softmax": lambda o: [N("Softmax", ["a"], ["z"], axis=1)],
    "LogSoftmax": lambda o: [N("LogSoftmax", ["a"], ["z"], axis=1)],
    "ReduceMean": lambda o: [reduce_mean("a", "mu", o), N("Sub", ["a", "mu"], ["z"])],
    "ReduceMax": lambda o: [N("ReduceMax", ["a"], ["mu"], axes=[-3]), N("Sub", ["a", "mu"], ["z"])],
    "ReduceL2": lambda o: [N("ReduceL2", ["a"], ["l"], axes=[1]), N("Div", ["a", "l"], ["z"])],
    "LogSumExp": lambda o: [N("ReduceLogSumExp", ["a"], ["l"], axes=[1]), N("Sub", ["a", "l"], ["z"])],
    "LpNormalization": lambda o: [N("LpNormalization", ["a"], ["z"], axis=1)],
    "MeanVarianceNormalization": lambda o: [N("MeanVarianceNormalization", ["a"], ["z"], axes=[1, 2, 3])],
}


@pytest.mark.parametrize(
    ("name", "opset"),
    [(n, o) for n in FORMULAS for o in (11, 13, 17)] + [("Softmax", 21), ("ReduceMean", 18), ("ReduceMean", 21)],
)
def test_formula_that_holds_the_channel_count(rng, calls, name, opset):
    original = conv_bn(rng, FORMULAS[name](opset), opset, {"axis": np.array([1], np.int64)})
    verdict = verify(original, pruned(original, PLAN), PLAN, calls)
    assert verdict.ok, verdict
    blind = {k: v for k, v in PLAN.items() if k != ("a", 1)}
    assert not verify(original, pruned(original, PLAN), blind, calls).ok


@pytest.mark.parametrize("op", ["LayerNormalization", "RMSNormalization"])
def test_layer_normalization(rng, calls, op):
    between = [
        N("Transpose", ["a"], ["t"], perm=[0, 2, 3, 1]),
        N(op, ["t", "lg", *(["lb"] if op[0] == "L" else [])], ["t1"], axis=-1, epsilon=1e-3),
        N("Transpose", ["t1"], ["z"], perm=[0, 3, 1, 2]),
    ]
    original = conv_bn(rng, between, 23, {"lg": draw(rng, 8), "lb": draw(rng, 8)})
    plan = {**PLAN, ("lg", 0): GONE, ("lb", 0): GONE, ("t", 3): GONE, ("t1", 3): GONE}
    verdict = verify(original, pruned(original, plan), plan, calls)
    assert verdict.ok, verdict


@pytest.mark.parametrize("opset", [18, 21])
def test_group_normalization_same_offset(rng, calls, opset):
    gone = [1, 5]
    size = 2 if opset == 18 else 8
    between = [N("GroupNormalization", ["a", "gs", "gb"], ["z"], num_groups=2)]
    original = conv_bn(rng, between, opset, {"gs": draw(rng, size), "gb": draw(rng, size)})
    plan = dict.fromkeys(PLAN, gone) | ({("gs", 0): gone, ("gb", 0): gone} if opset == 21 else {})
    verdict = verify(original, pruned(original, plan), plan, calls)
    assert verdict.ok, verdict


def test_infinite_values_in_a_removed_channel(rng, calls):
    original = conv_bn(rng, [N("Log", ["lo"], ["inf"]), N("Mul", ["a", "inf"], ["z"])], extra={
        "lo": np.where(np.isin(np.arange(8), GONE), 0, 2).astype(np.float32).reshape(8, 1, 1)})  # fmt: skip
    plan = {**PLAN, ("lo", 0): GONE, ("inf", 0): GONE}
    assert verify(original, pruned(original, plan), plan, calls).ok


def attention(rng, opset=17):
    """Two heads of 4 dimensions over 5 tokens with 6 features; no bias behind the output projection."""
    names = {n: draw(rng, 6, 8) for n in ("wq", "wk", "wv")} | {"wo": draw(rng, 8, 6)}
    shape = np.array([0, 0, 2, 4], np.int64)
    nodes = []
    for n in "qkv":
        nodes.append(N("MatMul", ["x", f"w{n}"], [n]))
        nodes.append(N("Reshape", [n, "heads"], [f"{n}4"]))
        nodes.append(N("Transpose", [f"{n}4"], [f"{n}t"], perm=[0, 2, 3, 1] if n == "k" else [0, 2, 1, 3]))
    nodes += [
        N("MatMul", ["qt", "kt"], ["s"]),
        N("Softmax", ["s"], ["p"], axis=-1),
        N("MatMul", ["p", "vt"], ["o"]),
        N("Transpose", ["o"], ["ot"], perm=[0, 2, 1, 3]),
        N("Reshape", ["ot", "flat"], ["of"]),
        N("MatMul", ["of", "wo"], ["y"]),
    ]
    weights = names | {"heads": shape, "flat": np.array([0, 0, -1], np.int64)}
    return model(nodes, weights, {"x": [3, 5, 6]}, {"y": [3, 5, 6]}, opset)


def test_attention_head_and_head_dimension(rng):
    original, calls = attention(rng), [{"x": draw(rng, 3, 5, 6)}]
    head = {(f"w{n}", 1): [0, 1, 2, 3] for n in "qkv"} | {("wo", 0): [0, 1, 2, 3]}
    small = pruned(original, head)
    set_weight_int(small, "heads", [0, 0, 1, 4])
    assert verify(original, small, head, calls).ok

    dims = {(f"w{n}", 1): [1, 5] for n in "qk"} | {("qt", 3): [1], ("kt", 2): [1], ("q4", 3): [1], ("k4", 3): [1]}
    small = pruned(original, dims)
    small.graph.initializer.append(numpy_helper.from_array(np.array([0, 0, 2, 3], np.int64), "heads3"))
    for node in small.graph.node:
        if node.output[0] in ("q4", "k4"):
            node.input[1] = "heads3"
    assert verify(original, small, dims, calls).ok
    # Without the activations in the plan nothing says that the score sums a removed dimension away.
    assert not verify(original, small, {k: v for k, v in dims.items() if k[0][0] == "w"}, calls).ok


def set_weight_int(model: onnx.ModelProto, name: str, values: Sequence[int]) -> None:
    weight(model, name).CopyFrom(numpy_helper.from_array(np.array(values, np.int64), name))


def test_recurrent_hidden_units(rng):
    hidden, gone = 4, [0, 2]
    rows = [g * hidden + j for g in range(4) for j in gone]
    weights = {"w": draw(rng, 1, 16, 3), "r": draw(rng, 1, 16, 4), "b": draw(rng, 1, 32), "wo": draw(rng, 4, 2)}
    weights["axis"] = np.array([1], np.int64)
    nodes = [
        N("LSTM", ["x", "w", "r", "b"], ["h"], hidden_size=hidden),
        N("Squeeze", ["h", "axis"], ["hs"]),
        N("MatMul", ["hs", "wo"], ["y"]),
    ]
    original = model(nodes, weights, {"x": [5, 2, 3]}, {"y": [5, 2, 2]})
    plan = {("w", 1): rows, ("r", 1): rows, ("r", 2): gone, ("b", 1): rows + [16 + r for r in rows], ("wo", 0): gone}
    small = pruned(original, plan)
    small.graph.node[0].attribute[0].i = 2
    assert verify(original, small, plan, [{"x": draw(rng, 5, 2, 3)}]).ok


def residual(rng):
    weights = {n: draw(rng, 4, 4, 1, 1) for n in ("w1", "w2", "w3")}
    nodes = [
        N("Conv", ["x", "w1"], ["c1"]),
        N("Relu", ["c1"], ["r1"]),
        N("Conv", ["r1", "w2"], ["branch"]),
        N("Add", ["r1", "branch"], ["s"]),
        N("Conv", ["s", "w3"], ["y"]),
    ]
    return model(nodes, weights, {"x": [2, 4, 3, 3]}, {"y": [2, 4, 3, 3]})


def test_dropped_branch(rng):
    original, calls = residual(rng), [{"x": draw(rng, 2, 4, 3, 3)}]
    small = onnx.ModelProto()
    small.CopyFrom(original)
    del small.graph.node[2:4]
    small.graph.node[2].input[0] = "r1"
    assert verify(original, small, {}, calls, dropped=["branch"]).ok
    assert not verify(original, small, {}, calls).ok
    plan = {("w1", 0): [2], ("w2", 0): [2], ("w2", 1): [2], ("w3", 1): [2]}
    assert verify(original, pruned(small, plan), plan, calls, dropped=["branch"]).ok


def test_final_weights_with_created_bias(rng, calls):
    original = conv_bn(rng)
    small = pruned(original, PLAN)
    set_weight(small, "w2", draw(rng, 6, 5, 3, 3))
    next(n for n in small.graph.node if n.output[0] == "c2").input.append("new_bias")
    small.graph.initializer.append(numpy_helper.from_array(draw(rng, 6), "new_bias"))
    gemm = next(n for n in small.graph.node if n.op_type == "Gemm")
    gemm.input.append("new_c")
    small.graph.initializer.append(numpy_helper.from_array(draw(rng, 4), "new_c"))
    verdict = verify(original, small, PLAN, calls, weights="final")
    assert verdict.ok, verdict
    assert not verify(original, small, PLAN, calls).ok


@pytest.mark.parametrize("renames", [True, False])
def test_final_weights_with_a_sum_behind_matmul(rng, renames):
    original, calls = attention(rng), [{"x": draw(rng, 3, 5, 6)}]
    head = {(f"w{n}", 1): [0, 1, 2, 3] for n in "qkv"} | {("wo", 0): [0, 1, 2, 3], ("v", 2): [0, 1, 2, 3]}
    small = pruned(original, head)
    set_weight_int(small, "heads", [0, 0, 1, 4])
    set_weight(small, "wo", draw(rng, 4, 6))
    small.graph.initializer.append(numpy_helper.from_array(draw(rng, 4), "shift"))
    at = next(i for i, n in enumerate(small.graph.node) if n.output[0] == "v")
    if renames:
        small.graph.node[at].output[0] = "v_raw"
        small.graph.node.insert(at + 1, N("Add", ["v_raw", "shift"], ["v"]))
    else:
        small.graph.node.insert(at + 1, N("Add", ["v", "shift"], ["v_shifted"]))
        small.graph.node[at + 2].input[0] = "v_shifted"
    verdict = verify(original, small, head, calls, weights="final")
    assert verdict.ok, verdict


def test_final_weights_of_a_wrong_shape(rng, calls):
    original = conv_bn(rng)
    verdict = verify(original, conv_bn(rng), PLAN, calls, weights="final")
    assert not verdict.ok
    assert "the plan leaves" in verdict.reason


def test_pass_raises_on_a_wrong_model(rng, calls):
    original = conv_bn(rng)
    right, wrong = pruned(original, PLAN), pruned(original, {**PLAN, ("b1", 0): [1, 4, 5]})
    check = VerifyMasking(ir.from_proto(original), PLAN, calls=tuple(calls))
    assert check.run(ir.from_proto(right), PassContext()).modified is False
    with pytest.raises(OnnxpruneError, match="output y differs"):
        check.run(ir.from_proto(wrong), PassContext())


def test_other_output_shape_is_caught(rng, calls):
    original = conv_bn(rng)
    small = pruned(original, {("w3", 1): [0]})
    verdict = verify(original, small, {}, calls)
    assert not verdict.ok
    assert verdict.error == float("inf")
