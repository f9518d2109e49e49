"""Node, Variable and Constant: graphsurgeon's objects with identity semantics and nothing lost.

graphsurgeon compares nodes by structure and tensors by name, which makes list removal slow and, among equal nodes,
wrong. These subclasses compare and hash by identity. They also carry what graphsurgeon has no place for: the node's
extra fields, the tensor's ValueInfoProto, and the stored form of an initializer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.ir.tensor import LazyValues

from onnxprune.ir.stored import Stored


class Node(gs.Node):  # type: ignore[misc]
    """A gs.Node. `extras` is a NodeProto holding only the fields that gs.Node lacks, or None."""

    extras: onnx.NodeProto | None = None

    __eq__ = object.__eq__
    __hash__ = object.__hash__


class Variable(gs.Variable):  # type: ignore[misc]
    """A gs.Variable. `info` is the ValueInfoProto it was read from, or None."""

    info: onnx.ValueInfoProto | None = None

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def to_constant(self, values: np.ndarray, data_location: Any = None, export_dtype: Any = None) -> Constant:
        """Turns this tensor into a Constant in place."""
        del self.dtype
        del self.shape
        self.__class__ = Constant
        self._values = values
        self.data_location = data_location
        self._export_dtype = export_dtype
        return self


class Constant(gs.Constant):  # type: ignore[misc]
    """A gs.Constant whose stored form survives reading: `values` decodes it, assigning to `values` replaces it.

    `info` is the ValueInfoProto of an initializer that is also a graph input (or has a value_info), or None.
    `overridable`: it is a graph input with a default value (IR 4 and later); neither values nor shape may be relied on.
    """

    info: onnx.ValueInfoProto | None = None
    overridable: bool = False

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def values(self) -> np.ndarray:
        """The array, read-only where it is a view of the file. Assign a new array; never write in place."""
        payload = self._values
        if isinstance(payload, Stored):
            return payload.load()
        return np.asarray(payload.load()) if isinstance(payload, LazyValues) else payload

    @values.setter
    def values(self, values: np.ndarray) -> None:
        self._values = values

    def to_variable(self, dtype: Any = None, shape: Any = None) -> Variable:
        """Turns this tensor into a Variable in place, of the same dtype unless another is given."""
        elem = self.export_dtype if dtype is None else dtype
        del self._values
        del self._export_dtype
        self.__class__ = Variable
        self.dtype = elem
        self.shape = shape
        return self
