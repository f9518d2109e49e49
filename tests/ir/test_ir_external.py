"""External data: mapped when honest, refused when the reference could reach another file."""

from __future__ import annotations

import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune import ir
from onnxprune.errors import ModelError

VALUES = np.arange(64, dtype=np.float32)


def write(folder, make_model, attribute=False, **entries):
    """A model in `folder` whose weight w refers to external data with the given entries."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[64], data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, [64])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [64])
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    if attribute:
        nodes.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
    proto = make_model(nodes, [info], [output], [] if attribute else [tensor])
    folder.mkdir(exist_ok=True)
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.fixture
def folder(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "w.bin").write_bytes(b"\0" * 8 + VALUES.tobytes())
    (tmp_path / "secret.bin").write_bytes(VALUES.tobytes())
    return home


@pytest.mark.parametrize("attribute", [False, True])
def test_honest_data_are_read(folder, make_model, attribute):
    model = ir.load(write(folder, make_model, attribute, location="w.bin", offset=8, length=256))
    assert np.array_equal(ir.constant(ir.tensors(model)["w"]), VALUES)
    assert model.side_files == {folder / "w.bin"}
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_initializers_are_mapped_not_read(folder, make_model):
    model = ir.load(write(folder, make_model, location="w.bin", offset=8))
    raw = ir.initializers(model)["w"]._values.raw
    assert isinstance(raw, np.ndarray) and not raw.flags.owndata and not raw.flags.writeable


REFUSED = {
    "absolute": ({"location": "/etc/passwd"}, "beside the model"),
    "climbs": ({"location": "../secret.bin"}, "leaves"),
    "climbs in the middle": ({"location": "sub/../../secret.bin"}, "leaves"),
    "climbs with backslashes": ({"location": "..\\secret.bin"}, "leaves"),
    "windows drive": ({"location": "C:\\secret.bin"}, "beside the model"),
    "nul": ({"location": "w.bin\0/x", "offset": 8}, "beside the model"),
    "empty": ({"location": ""}, "beside the model"),
    "no location": ({"offset": 8}, "beside the model"),
    "missing": ({"location": "other.bin"}, "missing"),
    "memory address": ({"location": "*/_ORT_MEM_ADDR_/*", "offset": 4096}, "missing"),
    "self": ({"location": "model.onnx"}, "itself"),
    "folder": ({"location": "sub"}, "regular file"),
    "pipe": ({"location": "pipe"}, "regular file"),
    "symlink": ({"location": "link.bin"}, "cp -rL"),
    "symlinked folder": ({"location": "linked/secret.bin"}, "cp -rL"),
    "hard link": ({"location": "hard.bin"}, "hard links"),
    "past the end": ({"location": "w.bin", "offset": 16}, "truncated"),
    "far past the end": ({"location": "w.bin", "offset": 2**50}, "truncated"),
    "negative offset": ({"location": "w.bin", "offset": -8}, "invalid offset"),
    "huge offset": ({"location": "w.bin", "offset": 2**64}, "invalid offset"),
    "not a number": ({"location": "w.bin", "offset": "0x8"}, "invalid offset"),
    "short length": ({"location": "w.bin", "offset": 8, "length": 8}, "cannot have 8 bytes"),
    "long length": ({"location": "w.bin", "length": 264}, "cannot have 264 bytes"),
}


@pytest.mark.parametrize("attribute", [False, True])
@pytest.mark.parametrize("name", REFUSED)
def test_dishonest_references(name, folder, make_model, attribute, tmp_path):
    entries, message = REFUSED[name]
    (folder / "sub").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "linked").symlink_to(tmp_path)
    (folder / "hard.bin").hardlink_to(tmp_path / "secret.bin")
    with pytest.raises(ModelError, match=message) as caught:
        ir.load(write(folder, make_model, attribute, **entries))
    assert "\n" not in str(caught.value) and "\0" not in str(caught.value)


def test_references_inside_subgraphs_are_checked(folder, make_model, vector):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[64], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../secret.bin")
    body = helper.make_graph([helper.make_node("Identity", ["w"], ["t"])], "b", [], [vector("t", 64)], [tensor])
    flag = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    node = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    path = folder / "model.onnx"
    path.write_bytes(make_model([node], [flag], [vector("y", 64)]).SerializeToString())
    with pytest.raises(ModelError, match="leaves"):
        ir.load(path)


def test_a_symlinked_model_reads_its_own_folder(folder, make_model, tmp_path):
    path = write(folder, make_model, location="w.bin", offset=8)
    link = folder / "alias.onnx"
    link.symlink_to(path)
    assert np.array_equal(ir.initializers(ir.load(link))["w"].values, VALUES)
    assert numpy_helper.to_array(ir.to_proto(ir.load(link)).graph.initializer[0]).tolist() == VALUES.tolist()
