"""Random models composed from steps, and inputs for them."""

from __future__ import annotations

import image_steps
import numpy as np
import onnx
import sequence_steps
from graph_builder import NEWEST_OPSET, Builder, Chooser

OLDEST_OPSET = 9


def random_model(choose: Chooser, most: int = 9, *, symbolic: bool = True) -> onnx.ModelProto:
    """A valid model of 1 to `most` steps between a stem and a head; batch 2, float32, opset 9 to the newest.

    Some declare symbolic sizes, although parts of them work for batch 2 only, unless `symbolic` forbids it.
    """
    b = Builder(choose, choose.integer(OLDEST_OPSET, NEWEST_OPSET))
    image = choose.integer(0, 2) > 0
    module = image_steps if image else sequence_steps
    x = b.input(2, 3, 6, 4) if image else b.input(2, 5, 6)
    stem = image_steps.conv if image else sequence_steps.linear
    b.live.append(stem(b, x))
    for _ in range(choose.integer(1, most)):
        source = b.live[-1] if choose.integer(0, 3) else b.pick(b.live[1:])
        b.live.append(b.pick(module.STEPS)(b, source))
    outputs = [module.head(b, b.live[-1])]
    if choose.integer(0, 3) == 0:
        outputs.append(module.head(b, b.pick(b.live[1:])))
    unique = {o.name: o for o in outputs}
    symbols = b.pick([[], [], ["N"], ["N", "", "H", "W"] if image else ["N", "T"]])
    return b.finish(list(unique.values()), symbols if symbolic else [])


def random_feeds(model: onnx.ModelProto, rng: np.random.Generator) -> list[dict[str, np.ndarray]]:
    """One call with normal values."""
    sizes = {"N": 2, "T": 5, "H": 6, "W": 4}
    shapes = {
        i.name: [sizes.get(d.dim_param, d.dim_value) for d in i.type.tensor_type.shape.dim] for i in model.graph.input
    }
    return [{name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}]
