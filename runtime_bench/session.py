"""One ONNX Runtime session inside a worker, created alike for every model of a comparison, and its placement.

Runs in workers: imports only numpy, onnxruntime and the protocol.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from runtime_bench.protocol import WorkerFault

CPU = "CPUExecutionProvider"

CONFIG: Mapping[str, str] = {
    "session.set_denormal_as_zero": "0",  # as users run: a graph slowed down by denormals is slow
    "session.intra_op.allow_spinning": "1",
    "session.inter_op.allow_spinning": "0",
    "session.force_spinning_stop": "1",  # spin within a run as users do, never between runs, where another worker runs
    "session.record_ep_graph_assignment_info": "1",
}
"""Session config entries of every session."""

_MODEL_FAULTS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoModel,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


def session_options(threads: int, config: Mapping[str, str]) -> ort.SessionOptions:
    """ENABLE_ALL, sequential, inter-op 1, `threads` intra-op threads, and CONFIG with `config` over it."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    for key, value in {**CONFIG, **config}.items():
        options.add_session_config_entry(key, value)
    return options


@contextmanager
def faults(provider: str) -> Iterator[None]:
    """Turn what onnxruntime raises into a WorkerFault. RuntimeException and Fail also carry errors of devices."""
    try:
        yield
    except ort_errors.EPFail as error:
        raise WorkerFault("provider", _one_line(error)) from error
    except MemoryError as error:
        raise WorkerFault("limit", "out of memory") from error
    except _MODEL_FAULTS as error:
        text = _one_line(error)
        if "Failed to allocate memory" in text or "bad_alloc" in text:
            raise WorkerFault("limit", text) from error
        device = provider != CPU and isinstance(error, (ort_errors.Fail, ort_errors.RuntimeException))
        raise WorkerFault("provider" if device else "model", text) from error
    except (ValueError, TypeError, UnicodeDecodeError, RuntimeError) as error:
        raise WorkerFault("model", _one_line(error)) from error


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return "".join(c if c.isprintable() else "?" for c in text)[:300] or type(error).__name__


class Session:
    """A model loaded on the providers asked for; refuses any other. `call(n)` runs it on the inputs of number n."""

    def __init__(self, model: str, request: Mapping[str, Any]) -> None:
        """`request` holds providers, options, threads and config. Raises WorkerFault."""
        self.providers: Sequence[str] = request["providers"]
        self.wanted = self.providers[0]
        settings = [request["options"] if name == self.wanted else {} for name in self.providers]
        options = session_options(request["threads"], request["config"])
        optimized = request.get("optimized")
        if optimized:
            options.optimized_model_filepath = optimized
        with faults(self.wanted):
            # enable_fallback=0: by default Python retries on the CPU after printing a line
            self._session = ort.InferenceSession(
                model, options, providers=list(self.providers), provider_options=settings, enable_fallback=0
            )
        self._session.disable_fallback()
        self.placement = self._placement()
        self._refuse_fallback()
        self.calls: list[dict[str, Any]] = [{}]

    def _placement(self) -> dict[str, int] | None:
        """Nodes on each provider; None where this build of the runtime does not tell."""
        ask = getattr(self._session, "get_provider_graph_assignment_info", None)
        if ask is None:
            return None
        counts: Counter[str] = Counter()
        for part in ask():
            counts[part.ep_name] += len(part.get_nodes())
        return dict(counts)

    def _refuse_fallback(self) -> None:
        first = self._session.get_providers()[0]
        if first != self.wanted:
            raise WorkerFault("provider", f"asked for {self.wanted}, the runtime fell back to {first}")
        if self.placement and not self.placement.get(self.wanted):
            others = ", ".join(sorted(self.placement))
            raise WorkerFault("provider", f"{self.wanted} took no node of the model; all of it fell back to {others}")

    def describe(self) -> dict[str, Any]:
        """Inputs and outputs (name, type, shape), providers and placement."""
        with faults(self.wanted):
            return {
                "inputs": [_describe(v) for v in self._session.get_inputs()],
                "outputs": [_describe(v) for v in self._session.get_outputs()],
                "providers": self._session.get_providers(),
                "placement": self.placement,
            }

    def feed(self, calls: Sequence[dict[str, Any]]) -> None:
        """The inputs to cycle through, tried once: a model that cannot run on them raises WorkerFault here."""
        self.calls = list(calls)
        with faults(self.wanted):
            self.run(0)

    def run(self, number: int) -> None:
        """One run on the inputs of that number; outputs are dropped."""
        self._session.run(None, self.calls[number % len(self.calls)])


def _describe(value: Any) -> dict[str, Any]:
    shape = [d if isinstance(d, (int, str)) else None for d in value.shape]
    return {"name": value.name, "type": value.type, "shape": shape}


def optimized_copy(model: str, request: Mapping[str, Any], path: str) -> bool:
    """Write the graph as the runtime optimised it to `path`. False where the provider cannot write it."""
    try:
        Session(model, {**request, "optimized": path})
    except WorkerFault:
        return False
    return Path(path).is_file()
