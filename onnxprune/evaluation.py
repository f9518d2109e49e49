"""Evaluation of a model by the user's own function, or by labels and a metric: `evaluate(session) -> float`.

Metrics are in percent and higher is better, so that a drop of 1.0 is one point.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.errors import DataError, UsageError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Array = np.ndarray[Any, Any]
Evaluate = Callable[["InferenceSession"], float]

_BATCH = 32
_SCRIPT_ERRORS = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError),
    *(NameError, RuntimeError, TypeError, ValueError),
)


def from_options(options: Mapping[str, str] | None) -> Evaluate | None:
    """Returns the evaluation that the command line asked for: a script and function, or data, labels and metric."""
    if options is None:
        return None
    if "script" in options:
        return from_script(Path(options["script"]), options["function"])
    return from_data(Path(options["data"]), options["labels"], options["metric"])


def from_script(path: Path, function: str) -> Evaluate:
    """Returns the `function` of the Python file `path`; its folder can be imported from, as if it were run."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"evaluation script {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except (SyntaxError, ImportError, OSError) as error:
        raise UsageError(f"evaluation script {path} cannot be loaded: {error}") from error
    found = getattr(module, function, None)
    if not callable(found):
        raise UsageError(f"evaluation script {path} has no function {function!r}")

    def evaluate(session: InferenceSession) -> float:
        try:
            value = found(session)
        except _SCRIPT_ERRORS as error:
            raise UsageError(f"{function} of {path.name} failed: {type(error).__name__}: {error}") from error
        if isinstance(value, bool | str) or not np.isscalar(value) or not np.isfinite(value):
            raise DataError(f"{function} of {path.name} returned {value!r}, which is not a finite number")
        return float(value)  # type: ignore[arg-type]

    evaluate.__name__ = function
    return evaluate


def from_data(path: Path, labels: str, metric: str) -> Evaluate:
    """Returns an evaluation on the `.npz` at `path`: inputs by name, and `labels` with one row a sample."""
    from onnxprune.stats import arrays as stored

    arrays = dict(stored.read(path))
    if labels not in arrays:
        raise DataError(f"evaluation data {path} has no array {labels!r}; it has {', '.join(sorted(arrays))}")
    truth = arrays.pop(labels)
    score = METRICS[metric]

    def evaluate(session: InferenceSession) -> float:
        return score(_outputs(session, arrays, len(truth)), truth)

    evaluate.__name__ = metric
    return evaluate


def _outputs(session: InferenceSession, arrays: Mapping[str, Array], samples: int) -> Array:
    """Returns the first output for every sample, fed in the model's fixed batch where it has one."""
    inputs = session.get_inputs()
    missing = [each.name for each in inputs if each.name not in arrays]
    if missing:
        raise DataError(f"evaluation data has no array for the input {missing[0]!r}")
    fixed = [each.shape[0] for each in inputs if each.shape and isinstance(each.shape[0], int)]
    batch = min(fixed[0] if fixed else _BATCH, samples)
    if any(len(arrays[each.name]) != samples for each in inputs) or (samples % batch and fixed):
        raise DataError(f"evaluation data: inputs and labels must all have {samples} samples, a multiple of {batch}")
    results = []
    for start in range(0, samples, batch):
        feed = {each.name: arrays[each.name][start : start + batch] for each in inputs}
        results.append(np.asarray(session.run(None, feed)[0]))
    return np.concatenate(results)


def _top(k: int, scores: Array, labels: Array) -> float:
    flat = scores.reshape(len(scores), -1)
    if labels.shape != (len(flat),):
        raise DataError(f"labels of shape {labels.shape} are not one class for each of {len(flat)} samples")
    best = np.argsort(-flat, axis=1, kind="stable")[:, :k]
    return 100.0 * float(np.mean(np.any(best == labels[:, None], axis=1)))


def _pearson(values: Array, labels: Array) -> float:
    if values.size != labels.size:
        raise DataError(f"labels of shape {labels.shape} do not match outputs of shape {values.shape}")
    first, second = values.ravel() - values.mean(), labels.ravel() - labels.mean()
    norm = float(np.linalg.norm(first) * np.linalg.norm(second))
    return 100.0 * float(first @ second) / norm if norm > 0 else 0.0


METRICS: Mapping[str, Callable[[Array, Array], float]] = {
    "top1": lambda scores, labels: _top(1, scores, labels),
    "top5": lambda scores, labels: _top(5, scores, labels),
    "pearson": _pearson,
}
