"""The model in memory: import and export that lose nothing, queries, shapes, text form. See docs/ir.md."""

from onnxprune.ir.bodies import all_nodes, bodies, body_names, every_tensor, graphs, reserve_names
from onnxprune.ir.exporter import to_proto
from onnxprune.ir.files import load
from onnxprune.ir.importer import from_proto
from onnxprune.ir.macs import macs, macs_by_weight, node_macs, repeated_nodes
from onnxprune.ir.model import Body, Model
from onnxprune.ir.names import free_name
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
from onnxprune.ir.shapes import assumed_shape, clear_shapes, infer_shapes, shapes_for
from onnxprune.ir.text import text
from onnxprune.ir.validate import validate
from onnxprune.ir.writer import check_output, save

__all__ = [
    "Body",
    "Constant",
    "Model",
    "Node",
    "Variable",
    "all_nodes",
    "assumed_shape",
    "attribute",
    "bodies",
    "body_names",
    "captured",
    "check_output",
    "clear_shapes",
    "constant",
    "consumers",
    "domain",
    "every_tensor",
    "feed_inputs",
    "free_name",
    "freeze_initializers",
    "from_proto",
    "graphs",
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
    "repeated_nodes",
    "reserve_names",
    "save",
    "shapes_for",
    "tensors",
    "text",
    "to_proto",
    "topological_sort",
    "validate",
    "weight_shapes",
]
