"""Writing: all or nothing, never over the input, weights in a side file when they are too large."""

from __future__ import annotations

import os
import stat

import numpy as np
import onnx
import pytest

from onnxprune import ir
from onnxprune.errors import FileSystemError, UsageError
from onnxprune.ir import writer


@pytest.fixture
def model(small_cnn, tmp_path):
    path = tmp_path / "in.onnx"
    path.write_bytes(small_cnn.SerializeToString())
    return ir.load(path)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_saved_model_is_what_to_proto_gives(model, tmp_path):
    ir.save(model, tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == ir.to_proto(model).SerializeToString()
    assert names(tmp_path) == ["in.onnx", "out.onnx"]


def test_mode_follows_the_umask(model, tmp_path):
    before = os.umask(0o027)
    try:
        ir.save(model, tmp_path / "out.onnx")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out.onnx").stat().st_mode) == 0o640


def test_existing_output_needs_overwrite(model, tmp_path):
    target = tmp_path / "out.onnx"
    target.write_bytes(b"precious")
    with pytest.raises(UsageError, match="--overwrite"):
        ir.save(model, target)
    assert target.read_bytes() == b"precious"
    ir.save(model, target, overwrite=True)
    onnx.checker.check_model(target)


@pytest.mark.parametrize("alias", ["in.onnx", "./in.onnx", "link.onnx", "hard.onnx"])
def test_the_input_is_never_written(model, tmp_path, alias):
    (tmp_path / "link.onnx").symlink_to(model.path)
    (tmp_path / "hard.onnx").hardlink_to(model.path)
    before = model.path.read_bytes()
    with pytest.raises(UsageError, match="input"):
        ir.save(model, tmp_path / alias, overwrite=True)
    assert model.path.read_bytes() == before


def test_bad_targets(model, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for target in (tmp_path, tmp_path / "missing" / "out.onnx", tmp_path / "file" / "out.onnx", tmp_path / ("x" * 300)):
        with pytest.raises((UsageError, FileSystemError)):
            ir.save(model, target)
    with pytest.raises(UsageError):
        ir.save(model, "out\0.onnx")
    with pytest.raises(UsageError, match="regular"):
        ir.save(model, "/dev/full", overwrite=True)


def test_a_dangling_link_is_not_followed(model, tmp_path):
    (tmp_path / "out.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(UsageError, match="exists"):
        ir.save(model, tmp_path / "out.onnx")


def test_nothing_is_left_when_the_disk_fails(model, tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer.os, "fsync", fail)
    with pytest.raises(FileSystemError, match="No space left"):
        ir.save(model, tmp_path / "out.onnx")
    monkeypatch.setattr(writer, "INLINE_LIMIT", 0)
    with pytest.raises(FileSystemError, match="No space left"):
        ir.save(model, tmp_path / "out.onnx")
    assert names(tmp_path) == ["in.onnx"]


@pytest.fixture
def large(model, monkeypatch):
    """The model with every weight above the (lowered) limits for what stays inside the file."""
    monkeypatch.setattr(writer, "INLINE_LIMIT", 0)
    monkeypatch.setattr(writer, "_SMALLEST_EXTERNAL", 64)
    return model


def test_large_models_get_a_side_file(large, small_cnn, tmp_path):
    ir.save(large, tmp_path / "out.onnx")
    (side,) = (name for name in names(tmp_path) if name.endswith(".data"))
    assert side.startswith("out.onnx.") and len(side) == len("out.onnx.") + 12 + len(".data")
    stored = onnx.load(tmp_path / "out.onnx", load_external_data=False)
    places = {t.name: {e.key: e.value for e in t.external_data} for t in stored.graph.initializer if t.external_data}
    assert set(places) == {"w1", "w2"}
    assert all(entry["location"] == side and int(entry["offset"]) % 4096 == 0 for entry in places.values())
    onnx.checker.check_model(tmp_path / "out.onnx", full_check=True)
    again = ir.load(tmp_path / "out.onnx")
    assert ir.text(again) == ir.text(large)
    assert sorted(ir.to_proto(again).graph.initializer, key=str) == sorted(small_cnn.graph.initializer, key=str)


def test_large_models_with_changed_and_small_types(large, tmp_path):
    import ml_dtypes

    weight = ir.initializers(large)["w1"]
    weight.values = weight.values[:, :2]
    extra = ir.Constant("quantized", np.arange(-8, 8).repeat(16).astype(ml_dtypes.int4))
    text = ir.Constant("words", np.array(["a" * 100, "b"], dtype=object))
    large.loose.update({"quantized": extra, "words": text})
    ir.save(large, tmp_path / "out.onnx")
    again = ir.initializers(ir.load(tmp_path / "out.onnx"))
    assert np.array_equal(again["w1"].values, weight.values)
    assert np.array_equal(again["quantized"].values.astype(int), np.arange(-8, 8).repeat(16))
    assert again["words"].values.tolist() == ["a" * 100, "b"]


def test_side_files_are_superseded_and_never_the_input(large, tmp_path):
    ir.save(large, tmp_path / "out.onnx")
    first = [name for name in names(tmp_path) if name.endswith(".data")]
    loaded = ir.load(tmp_path / "out.onnx")
    with pytest.raises(UsageError, match="input"):
        ir.save(loaded, tmp_path / first[0], overwrite=True)
    weight = ir.initializers(large)["w1"]
    weight.values = weight.values * 2
    ir.save(large, tmp_path / "out.onnx", overwrite=True)
    second = [name for name in names(tmp_path) if name.endswith(".data")]
    assert len(second) == 1 and second != first
    assert np.array_equal(ir.initializers(ir.load(tmp_path / "out.onnx"))["w1"].values, weight.values)


def test_same_model_same_bytes(large, tmp_path):
    for name in ("a.onnx", "b.onnx"):
        ir.save(large.copy(), tmp_path / name)
    hashes = {name.split(".")[2] for name in names(tmp_path) if name.endswith(".data")}
    assert len(hashes) == 1
