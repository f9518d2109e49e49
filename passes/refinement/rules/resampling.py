"""Operators that resample or rearrange space."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper, numpy_helper

from onnxprune import ir
from onnxprune.errors import ModelError
from onnxprune.stats.arrays import Array
from onnxprune.stats.runner import RUNTIME_ERRORS, session
from passes.refinement.tape import Gradients, NoRuleError, Rule, Tape, given

_IR_VERSION = 8
_ERRORS: tuple[type[Exception], ...] = (ModelError, *RUNTIME_ERRORS)


def resize(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    """Every mode treats the axes one by one and is linear, so it is a matrix an axis: the gradient meets its
    transpose.
    """
    before, after = tape.shape(node.inputs[0]), tape.shape(node.outputs[0])
    gradient = dy
    for axis, (size, found) in enumerate(zip(before, after, strict=True)):
        matrix = _matrix(node, axis, before, tape.opset)
        if matrix.shape != (size, found):
            raise NoRuleError("an axis of another size")
        if size != found or not np.array_equal(matrix, np.eye(size)):
            gradient = _along(tape, gradient, (*before[:axis], *after[axis:]), axis, matrix)
    return {0: gradient}


def _along(tape: Tape, dy: str, shape: Sequence[int], axis: int, matrix: Array) -> str:
    """``dy`` of ``shape`` with an axis of another size: the matrix (sizes before, after) times it."""
    outer, inner = int(np.prod(shape[:axis])), int(np.prod(shape[axis + 1 :]))
    rows = tape.reshape(dy, (outer, shape[axis], inner))
    product = tape.op("MatMul", tape.constant(matrix), rows)
    return tape.reshape(product, (*shape[:axis], len(matrix), *shape[axis + 1 :]))


def _matrix(node: gs.Node, axis: int, shape: Sequence[int], opset: int) -> Array:
    """What the operator makes of each unit vector along one axis, (size before, size after), by running it."""
    size, sizes = shape[axis], given(node, "sizes", 3)
    scales = given(node, "scales", 1 if len(node.inputs) == 2 else 2)
    attributes = {name: value for name, value in node.attrs.items() if name not in ("axes", "scales")}
    if ir.attribute(node, "coordinate_transformation_mode") in ("tf_crop_and_resize", b"tf_crop_and_resize"):
        raise NoRuleError("a region of interest")
    if ir.attribute(node, "keep_aspect_ratio_policy", "stretch") not in ("stretch", b"stretch"):
        raise NoRuleError("sizes that follow from each other")
    axes = [place % len(shape) for place in ir.attribute(node, "axes") or range(len(shape))]
    if axis not in axes:
        return np.eye(size, dtype=np.float32)
    place = axes.index(axis)
    constants = {"roi": np.zeros(0, np.float32), "scales": np.zeros(0, np.float32)}
    if sizes is not None:
        constants["sizes"] = np.array([1, 1, size, sizes[place]], np.int64)
        same = sizes[place] == size
    elif scales is not None and len(scales):
        constants["scales"] = np.array([1, 1, 1, scales[place]], np.float32)
        same = scales[place] == 1
    else:
        raise NoRuleError("neither sizes nor scales")
    if same:  # as batch and channels nearly always are
        return np.eye(size, dtype=np.float32)
    if node.op == "Upsample" or opset < 11:
        del constants["roi"]
    return _run(helper.make_node(node.op, ["x", *constants], ["y"], **attributes), constants, size, opset)


def _run(node: onnx.NodeProto, constants: dict[str, Array], size: int, opset: int) -> Array:
    floats = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        "axis",
        [helper.make_tensor_value_info("x", floats, [1, 1, size, size])],
        [helper.make_tensor_value_info("y", floats, None)],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=_IR_VERSION)
    try:
        found = session(model, 1).run(None, {"x": np.eye(size, dtype=np.float32)[None, None]})[0]
    except _ERRORS:
        raise NoRuleError("the operator does not run alone") from None
    rows: Array = np.asarray(found, np.float32)[0, 0]
    return rows


def depth_to_space(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    """Reshape, Transpose, Reshape, backwards; blocks come before channels unless the mode is CRD."""
    b, c, h, w = tape.shape(node.inputs[0])
    block = int(node.attrs["blocksize"])
    few = c // block**2
    if ir.attribute(node, "mode", "DCR") in ("CRD", b"CRD"):
        return {0: _unfolded(tape, dy, (b, few, block, block, h, w), (0, 1, 4, 2, 5, 3), (b, c, h, w))}
    return {0: _unfolded(tape, dy, (b, block, block, few, h, w), (0, 3, 4, 1, 5, 2), (b, c, h, w))}


def space_to_depth(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    b, c, h, w = tape.shape(node.inputs[0])
    block = int(node.attrs["blocksize"])
    split = (b, c, h // block, block, w // block, block)
    return {0: _unfolded(tape, dy, split, (0, 3, 5, 1, 2, 4), (b, c, h, w))}


def _unfolded(tape: Tape, dy: str, split: Sequence[int], order: Sequence[int], shape: Sequence[int]) -> str:
    moved = tape.reshape(dy, [split[axis] for axis in order])
    return tape.reshape(tape.transpose(moved, np.argsort(order).tolist()), shape)


def tile(tape: Tape, node: gs.Node, dy: str) -> Gradients:
    """The copies of each axis, summed."""
    repeats, shape = given(node, "repeats", 1), tape.shape(node.inputs[0])
    if repeats is None:
        raise NoRuleError("repeats that are absent")
    split = [size for pair in zip(repeats.tolist(), shape, strict=True) for size in pair]
    return {0: tape.sum(tape.reshape(dy, split), range(0, 2 * len(shape), 2))}


RULES: dict[str, Rule] = {
    "DepthToSpace": depth_to_space,
    "Resize": resize,
    "SpaceToDepth": space_to_depth,
    "Tile": tile,
    "Upsample": resize,
}
