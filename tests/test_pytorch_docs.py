"""The example of docs/pytorch.md, run as it stands."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]  # what the exporter warns about is not ours


def test_the_cut_in_pytorch_is_that_of_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```(python|sh)\n(.*?)^```$", (ROOT / "docs/pytorch.md").read_text(), re.M | re.S)
    names: dict[str, Any] = {"__name__": "example"}
    for language, text in blocks:
        if language == "python":
            exec(compile(text, "docs/pytorch.md", "exec"), names)
        else:
            command = [sys.executable, "-P", "-m", *shlex.split(text)]
            subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
    assert [language for language, _ in blocks] == ["python", "sh", "python", "python", "sh", "python"]
    widths = {g["name"]: g["width_after"] for g in json.loads(Path("report.json").read_text())["groups"]}
    assert widths == {
        "stem.weight:0": 6,
        "block.conv1.weight:0": 8,
        "up.weight.T:1": 12,
        "down.weight.T:1": 4,
        "hidden.weight:0": 16,
    }
    np.testing.assert_allclose(names["found"], names["expected"], atol=1e-5)
    (refitted,) = names["onnxruntime"].InferenceSession("refitted.onnx").run(None, {"image": names["example"].numpy()})
    found = names["refitted"](names["example"]).detach().numpy()
    np.testing.assert_allclose(found, refitted, atol=1e-5)
    assert np.abs(refitted - names["expected"]).max() > 1e-3  # the weights were re-fitted indeed
