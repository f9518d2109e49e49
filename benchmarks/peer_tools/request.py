"""What every tool is asked for: a model, calibration data, a file to write, and its own settings, as one line of JSON.

These scripts run in an interpreter of their own, which has the tools and need not have onnxprune.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

Call = dict[str, np.ndarray]


@dataclass(frozen=True)
class Request:
    """model, out: ONNX files. data: an .npz with samples on axis 0, or, with one axis more than the input, one entry a
    call. samples: how many of them at most. settings: of the tool.
    """

    model: Path
    data: Path
    out: Path
    samples: int
    settings: dict[str, Any]

    def calls(self) -> list[Call]:
        """Inputs of single calls, at batch 1 where samples are on axis 0."""
        ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in onnx.load(self.model).graph.input}
        arrays = dict(np.load(self.data))
        count = min(self.samples, *(len(array) for array in arrays.values()))
        return [
            {
                name: np.asarray(array[index] if array.ndim > ranks[name] else array[index : index + 1])
                for name, array in arrays.items()
            }
            for index in range(count)
        ]


def asked() -> Request:
    """The request on the command line."""
    told = json.loads(sys.argv[1])
    return Request(Path(told["model"]), Path(told["data"]), Path(told["out"]), told["samples"], told["settings"])
