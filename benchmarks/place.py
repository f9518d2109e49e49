"""The zoo of trained models as benchmarks use it: calibration data, and the metric of a model that was written."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import recurrent
from cases import Case
from command import Ran, run
from recording import ZOO_VARIABLE, append_line, read_lines

EVALUATION_SECONDS = 1800.0


@dataclass(frozen=True)
class Place:
    """Where the zoo is and where everything goes; nothing that is recorded names either."""

    zoo: Path
    out: Path

    def anonymous(self, text: str) -> str:
        """The text with both folders replaced by what a reader would type."""
        shown = text.replace(str(self.zoo), f"${ZOO_VARIABLE}").replace(f"{self.out}/", "").replace(str(self.out), ".")
        return shown.replace(str(Path.home()), "~")

    def zoo_command(self, *arguments: str) -> Ran:
        """Runs the zoo's own script. SystemExit with its last line where it fails: without it no row means anything."""
        argv = [sys.executable, str(self.zoo / "zoo.py"), *arguments]
        ran = run(argv, cwd=self.out, environment={"PYTHONDONTWRITEBYTECODE": "1"}, timeout=EVALUATION_SECONDS)
        if ran.exit_code:
            raise SystemExit(f"zoo.py {' '.join(arguments)} failed: {last_line(ran.stderr) or ran.exit_code}")
        return ran

    def start(self, case: Case) -> Path:
        """The model file that a case starts from."""
        return self.zoo / case.model / case.file

    def calibration(self, case: Case) -> str | None:
        """Makes the calibration data of a case where it is not there yet; its path within the output folder."""
        if case.samples is None:
            return None
        part_of = f"-{Path(case.file).stem}" if case.model in recurrent.IN_PARTS else ""
        name = f"calib/{case.model}{part_of}-{case.samples}.npz"
        if not (self.out / name).is_file():
            (self.out / "calib").mkdir(parents=True, exist_ok=True)
            part = f"{name}.part.npz"
            if case.model in recurrent.RECORDED:
                recurrent.write(self.zoo, case.model, case.file, self.out / part, case.samples)
            else:
                self.zoo_command("calib", case.model, part, str(case.samples))
            (self.out / part).rename(self.out / name)
        return name

    def before(self, case: Case) -> dict[str, Any]:
        """The zoo's `metric` and `value` of the model that a case starts from; kept, since it never changes."""
        name, kept = f"{case.model}/{case.file}", self.out / "baselines.jsonl"
        if name not in read_lines(kept):
            append_line(kept, {**self.evaluated(case, self.start(case)), "id": name})
        return read_lines(kept)[name]

    def evaluated(self, case: Case, model: Path, others: Mapping[str, Path] | None = None) -> dict[str, Any]:
        """The zoo's `metric` and `value` of a model. `others`: files that take the place of those beside it in the zoo,
        for models that only run together.
        """
        with tempfile.TemporaryDirectory(prefix="onnxprune-eval-") as folder:
            variant = self._evaluable(case, model, others or {}, Path(folder))
            found: dict[str, Any] = json.loads(
                self.zoo_command("eval", case.model, str(variant)).stdout.splitlines()[-1]
            )
        return found

    def _evaluable(self, case: Case, model: Path, others: Mapping[str, Path], folder: Path) -> Path:
        """The model, or, for one of several files that only run together, a folder with it among the others."""
        if case.model not in recurrent.IN_PARTS:
            return model
        for path in (self.zoo / case.model).glob("*.onnx"):
            shutil.copyfile(model if path.name == case.file else others.get(path.name, path), folder / path.name)
        return folder


def last_line(text: str) -> str:
    """The last line that holds anything."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
