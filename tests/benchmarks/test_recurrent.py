"""Recorded steps of recurrent models are what the models read when they run, one entry a call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from recurrent import VAD_CONTEXT, write


@pytest.mark.zoo
def test_steps_of_a_detector_carry_its_states(zoo: Path, tmp_path: Path) -> None:
    write(zoo, "silero_vad", "model.onnx", tmp_path / "steps.npz", 10_000)
    steps = np.load(tmp_path / "steps.npz")
    assert steps["input"].shape[1:] == (1, 576)
    assert not steps["state"][0].any()
    assert np.array_equal(steps["input"][1, 0, :VAD_CONTEXT], steps["input"][0, 0, -VAD_CONTEXT:])
    session = ort.InferenceSession(str(zoo / "silero_vad" / "model.onnx"), providers=["CPUExecutionProvider"])
    left = session.run(["stateN"], {name: np.asarray(steps[name][0]) for name in steps.files})[0]
    np.testing.assert_allclose(steps["state"][1], left, atol=1e-5)


@pytest.mark.zoo
def test_steps_of_a_part_fit_its_inputs(zoo: Path, tmp_path: Path) -> None:
    write(zoo, "dtln_denoise", "model_2.onnx", tmp_path / "steps.npz", 16)
    steps = np.load(tmp_path / "steps.npz")
    session = ort.InferenceSession(str(zoo / "dtln_denoise" / "model_2.onnx"), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    assert sorted(steps.files) == sorted(names)
    assert [steps[name].shape for name in names] == [(16, 1, 1, 512), (16, 1, 2, 128, 2)]
    assert steps[names[1]][-1].any()
    session.run(None, {name: steps[name][-1] for name in names})
