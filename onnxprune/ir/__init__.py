"""The model in memory: import and export that lose nothing, queries, shapes, text form. See docs/ir.md."""

from onnxprune.ir.exporter import to_proto
from onnxprune.ir.files import load
from onnxprune.ir.importer import from_proto
from onnxprune.ir.macs import macs, macs_by_weight, node_macs
from onnxprune.ir.model import Model
from onnxprune.ir.objects import Constant, Node, Variable
from onnxprune.ir.order import topological_sort
from onnxprune.ir.query import (
    attribute,
    captured,
    constant,
    consumers,
    domain,
    feed_inputs,
    freeze_initializers,
    has_subgraph,
    initializers,
    node_key,
    parameters,
    producer,
    tensors,
    weight_shapes,
)
from onnxprune.ir.shapes import clear_shapes, infer_shapes, shapes_for
from onnxprune.ir.text import text
from onnxprune.ir.validate import validate
from onnxprune.ir.writer import check_output, save

__all__ = [
    "Constant",
    "Model",
    "Node",
    "Variable",
    "attribute",
    "captured",
    "check_output",
    "clear_shapes",
    "constant",
    "consumers",
    "domain",
    "feed_inputs",
    "freeze_initializers",
    "from_proto",
    "has_subgraph",
    "infer_shapes",
    "initializers",
    "load",
    "macs",
    "macs_by_weight",
    "node_key",
    "node_macs",
    "parameters",
    "producer",
    "save",
    "shapes_for",
    "tensors",
    "text",
    "to_proto",
    "topological_sort",
    "validate",
    "weight_shapes",
]
