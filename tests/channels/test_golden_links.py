"""Every rule says in one line what it links: `golden_links.txt` holds cases `opset op(operands) attributes => links`.

Operands: `x[2,8,N]` an activation, `x#[2]` an integer one, `x[?]` one of unknown rank, `w![4,3]` a weight, `s!{1,-1}` a
vector of integers, `s!7` a scalar, `_` one that is left out. Behind the attributes `-> 2` asks for two outputs, and
`-> [2,N]` says shapes that inference does not know. ONNXPRUNE_UPDATE_GOLDENS=1 rewrites the links of all cases.
"""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune import channels, ir

TABLE = Path(__file__).with_name("golden_links.txt")
CASES = [line for line in TABLE.read_text().splitlines() if line and not line.startswith("#")]
HEAD = re.compile(
    r"(?P<opset>\d+) (?P<op>[\w.]+)\((?P<operands>.*?)\)(?P<attributes>(?:'[^']*'|[^>'])*?)(?:-> (?P<outputs>.*))?$"
)


def _operand(text: str) -> tuple[str, object]:
    if "!" in text:
        name, value = text.split("!")
        if value.startswith("["):
            return name, numpy_helper.from_array(np.ones(ast.literal_eval(value), np.float32), name)
        ints = ast.literal_eval(value.replace("{", "[").replace("}", "]"))
        return name, numpy_helper.from_array(np.array(ints, np.int64), name)
    name, dims = text.rstrip("]").split("[")
    kind = TensorProto.INT64 if name.endswith("#") else TensorProto.FLOAT
    name = name.rstrip("#")
    shape = None if dims == "?" else [int(d) if d.lstrip("-").isdigit() else d for d in dims.split(",") if d]
    return name, helper.make_tensor_value_info(name, kind, shape)


def links_of_case(case: str) -> str:
    match = HEAD.match(case.split(" => ")[0].strip())
    assert match, case
    operands = [t.strip() for t in re.split(r",\s+", match["operands"]) if t.strip()]
    parsed = [("", None) if text == "_" else _operand(text) for text in operands]
    attributes = {}
    for text in re.findall(r"(\w+)=(\[[^\]]*\]|'[^']*'|\S+)", match["attributes"]):
        attributes[text[0]] = ast.literal_eval(text[1])
    outputs = match["outputs"] or "1"
    shapes = [_operand(f"y{i}{s}")[1] for i, s in enumerate(re.findall(r"\[[^\]]*\]", outputs))]
    names = [f"y{i}" for i in range(len(shapes) or int(outputs))]
    domain, _, op = match["op"].rpartition(".")
    node = helper.make_node(op, [name for name, _ in parsed], names, domain=domain, **attributes)
    values = list(dict(parsed).values())
    graph = helper.make_graph(
        [node],
        "case",
        [v for v in values if isinstance(v, onnx.ValueInfoProto)],
        shapes or [onnx.ValueInfoProto(name=name) for name in names],
        [v for v in values if isinstance(v, onnx.TensorProto)],
    )
    opset = int(match["opset"])
    imports = [helper.make_opsetid("", opset if not domain else 17)]
    imports += [helper.make_opsetid(domain, opset)] if domain else []
    proto = helper.make_model(graph, opset_imports=imports, ir_version=8)
    if not shapes:
        proto = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    model = ir.from_proto(proto)
    return str(channels.links_of(model.graph.nodes[0], opset))


@pytest.mark.skipif("ONNXPRUNE_UPDATE_GOLDENS" in os.environ, reason="the table is being rewritten")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.split(" => ")[0][:80])
def test_links(case: str) -> None:
    assert links_of_case(case) == case.split(" => ")[1].strip()


def test_no_case_is_malformed() -> None:
    assert not [case for case in CASES if "malformed" in case]


def test_every_op_with_a_rule_has_a_case() -> None:
    seen = {match["op"].rpartition(".")[2] for case in CASES if (match := HEAD.match(case.split(" => ")[0].strip()))}
    assert {op for _, op in channels.known_ops()} <= seen


@pytest.mark.skipif("ONNXPRUNE_UPDATE_GOLDENS" not in os.environ, reason="set ONNXPRUNE_UPDATE_GOLDENS to rewrite")
def test_rewrite_table() -> None:
    lines = []
    for line in TABLE.read_text().splitlines():
        is_case = line and not line.startswith("#")
        lines.append(f"{line.split(' => ')[0].strip()} => {links_of_case(line)}" if is_case else line)
    TABLE.write_text("\n".join(lines) + "\n")
