"""One command's run: paths checked first, the work done by a child, outputs moved into place at a good end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from onnxprune import progress
from onnxprune.cli import tables
from onnxprune.cli.paths import check_extended, check_input, check_outputs
from onnxprune.cli.staging import Staging
from onnxprune.errors import AccuracyError, TargetNotMetError, UsageError
from onnxprune.report_text import result_rows

_EXCLUSIVE = ("quiet", "verbose")


class Job:
    """Holds the options that a command was `given` and runs `task`. A context manager around the run itself."""

    def __init__(self, task: str, given: dict[str, Any]) -> None:
        self._task = task
        self._given = given
        self._reads: dict[str, Path | None] = {}
        self._writes: dict[str, Path | None] = {}
        self._front: list[Path] = []
        self._staging = Staging(overwrite=given.get("overwrite", False))
        if all(given[name] for name in _EXCLUSIVE):
            raise UsageError("--quiet and --verbose exclude each other; give one of them")
        self._progress = progress.choose(quiet=given["quiet"], verbose=given["verbose"])

    def reads(self, **paths: Path | None) -> None:
        """Checks the files that the run reads, by what they are."""
        self._reads = paths
        for what, path in paths.items():
            if path is not None:
                check_input(path, what.replace("_", " "), folder=what == "calibration")

    def writes(self, **paths: Path | None) -> None:
        """Checks the files that the run writes, by what they are; the model is named `output`."""
        self._writes = paths
        check_outputs(paths, inputs=self._reads.values(), overwrite=self._given.get("overwrite", False))

    def writes_front(self, paths: Sequence[Path]) -> None:
        """Checks the files of the models of a front, of which the run may write fewer."""
        self._front = list(paths)
        known = {what: path for what, path in self._writes.items() if path is not None}
        models: dict[str, Path | None] = {f"model {number}": path for number, path in enumerate(paths, 1)}
        check_outputs({**known, **models}, inputs=self._reads.values(), overwrite=self._given.get("overwrite", False))
        for path in paths:
            self.staged(path)

    def extends(self, **paths: Path | None) -> None:
        """Checks the files that the run reads and adds to, by what they are, after those it reads and writes."""
        for what, path in paths.items():
            if path is not None:
                others = (*self._reads.values(), *self._writes.values(), *self._front)
                check_extended(path, what.replace("_", " "), others=others)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._progress.close(failed=error is not None)
        self._staging.discard()

    def staged(self, path: Path | None) -> str | None:
        """Returns the temporary path that stands for an output while the work runs."""
        return None if path is None else str(self._staging.path(path))

    def shared_options(self) -> dict[str, Any]:
        """Returns the keyword arguments that commands share, for the options this command has."""
        given = self._given
        options: dict[str, Any] = {}
        for name in ("threads", "batch", "seed", "freeze", "granularity", "freeze_initializers", "keep_batchnorm"):
            if name in given:
                options[name] = given[name]
        if "calib_data" in given:
            options["calib_data"] = None if given["calib_data"] is None else str(given["calib_data"])
        if "report" in given:
            options["report"] = self.staged(given["report"])
        if "eps" in given:
            options["eps"] = list(given["eps"]) or ["cpu"]
            options["ep_options"] = dict(given["ep_options"])
            options["input_shapes"] = {name: list(shape) for name, shape in given["input_shapes"]}
        return options

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Runs the work and moves its outputs into place; returns its result.

        Where the target or the accuracy was not met, what the work chose to write (the report) is kept too.
        """
        from onnxprune.cli import supervise  # heavy, and --help needs none of it

        memory = self._given["max_memory"] or supervise.default_memory(*self._reads.values())
        try:
            result = supervise.run(
                f"onnxprune.cli.tasks:{self._task}",
                request,
                progress=self._progress,
                limits=supervise.Limits(memory, self._given["timeout"]),
                scratch=self._staging.scratch(),
                debug=self._given["debug"],
            )
        except (TargetNotMetError, AccuracyError):
            self._commit()
            raise
        self._commit()
        return result

    def _commit(self) -> None:
        output, report = self._writes.get("output"), self._writes.get("report")
        if report is not None and (output is not None or self._front):
            _name_outputs(Path(self.staged(report) or ""), output, self._front)
        others = [path for what, path in self._writes.items() if what != "output"]
        self._staging.commit(*others, *self._front, output)

    def show_result(self, report: dict[str, Any]) -> None:
        """Prints the before and after of a compression on stdout."""
        if not self._given["quiet"]:
            tables.show(result_rows(report))
            front: list[Path | None] = [*self._front[: len(report.get("front", ()))]]
            for line in tables.result_lines(report, front or [self._writes.get("output")]):
                tables.say(line)


def _name_outputs(report: Path, output: Path | None, front: Sequence[Path]) -> None:
    """Puts the names that models will have into the report; they were written under temporary ones."""
    if not report.exists():
        return
    content = json.loads(report.read_text(encoding="utf-8"))
    found: list[tuple[Any, Path | None]] = [(content.get("output"), output)]
    found += [(each["output"], path) for each, path in zip(content.get("front", ()), front, strict=False)]
    for facts, path in found:
        if facts and path is not None:
            facts["path"] = str(path)
    report.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
