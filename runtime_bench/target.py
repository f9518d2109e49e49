"""What is measured on: execution provider, its options, threads, batch or shapes, and the interpreter that runs it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from onnxprune.errors import ProviderError, UsageError

ALIASES: Mapping[str, str] = {
    "acl": "ACLExecutionProvider",
    "azure": "AzureExecutionProvider",
    "cann": "CANNExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "dml": "DmlExecutionProvider",
    "dnnl": "DnnlExecutionProvider",
    "js": "JsExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "nnapi": "NnapiExecutionProvider",
    "nvtensorrtrtx": "NvTensorRTRTXExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "rknpu": "RknpuExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "vitisai": "VitisAIExecutionProvider",
    "vsinpu": "VSINPUExecutionProvider",
    "webgpu": "WebGpuExecutionProvider",
    "webnn": "WebNNExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}
"""Short name of every provider that ONNX Runtime knows (`get_all_providers()`), and ROCm of older builds."""

CPU = ALIASES["cpu"]


def provider_name(text: str) -> str:
    """Full name of an EP given by alias or full name, in any case. UsageError lists what is available otherwise."""
    wanted = text.strip().lower()
    for alias, name in ALIASES.items():
        if wanted in (alias, name.lower()):
            return name
    raise UsageError(f"unknown execution provider {text!r}; available here: {', '.join(available())}")


def available() -> list[str]:
    """Aliases of the EPs that the onnxruntime of this interpreter was built with (empty without onnxruntime)."""
    if importlib.util.find_spec("onnxruntime") is None:
        return []
    import onnxruntime

    return aliases(onnxruntime.get_available_providers())


def aliases(names: Sequence[str]) -> list[str]:
    """Short forms of full provider names, sorted."""
    short = {name: alias for alias, name in ALIASES.items()}
    return sorted(short.get(name, name) for name in names)


Value = TypeVar("Value")


def _dict(pairs: Mapping[str, Value] | tuple[tuple[str, Value], ...]) -> dict[str, Value]:
    return dict(pairs.items() if isinstance(pairs, Mapping) else pairs)


@dataclass(frozen=True)
class Target:
    """Where and how a model runs.

    provider: an alias ("cpu", "cuda", "tensorrt", ...) or a full name; UsageError for an unknown one.
    options, shapes, config may be given as dicts and are kept as pairs, so that a target is hashable.
    options: provider options, text to text. threads: intra-op threads, 1 or more.
    batch: size of axis 0 where the model leaves it open. shapes: input name to its whole shape, for any open dimension.
    fallbacks: providers that may take what `provider` has no kernel for, in order (the CPU always comes last).
    config: extra session config entries, the same for every model that is compared.
    interpreter: the Python whose onnxruntime is measured; the running one by default.
    """

    provider: str = "cpu"
    options: Mapping[str, str] | tuple[tuple[str, str], ...] = ()
    threads: int = 1
    batch: int = 1
    shapes: Mapping[str, Sequence[int]] | tuple[tuple[str, Sequence[int]], ...] = ()
    fallbacks: tuple[str, ...] = ()
    config: Mapping[str, str] | tuple[tuple[str, str], ...] = ()
    interpreter: str = field(default=sys.executable)

    def __post_init__(self) -> None:
        for name in ("options", "config"):
            pairs = tuple((str(k), str(v)) for k, v in _dict(getattr(self, name)).items())
            object.__setattr__(self, name, pairs)
        shapes = tuple((name, tuple(map(int, shape))) for name, shape in _dict(self.shapes).items())
        object.__setattr__(self, "shapes", shapes)
        object.__setattr__(self, "provider", provider_name(self.provider))
        object.__setattr__(self, "fallbacks", tuple(provider_name(p) for p in self.fallbacks))
        if self.threads < 1:
            raise UsageError(f"threads must be 1 or more, not {self.threads}")
        if self.batch < 1 or any(d < 1 for shape in self.shape_map.values() for d in shape):
            raise UsageError("batch and input shapes must be 1 or more in every dimension")

    @property
    def shape_map(self) -> dict[str, tuple[int, ...]]:
        """`shapes` by input name."""
        return {name: tuple(shape) for name, shape in _dict(self.shapes).items()}

    @property
    def alias(self) -> str:
        """Short name of the provider, as reports and messages use it."""
        return aliases([self.provider])[0]

    @property
    def providers(self) -> tuple[str, ...]:
        """Everything the session is created with, the CPU last."""
        return tuple(dict.fromkeys((self.provider, *self.fallbacks, CPU)))

    def with_batch(self, batch: int) -> Target:
        """The same target at another batch."""
        return replace(self, batch=batch)

    def to_json(self) -> dict[str, Any]:
        """For reports: everything but the path of the interpreter."""
        return {
            "provider": self.provider,
            "options": _dict(self.options),
            "threads": self.threads,
            "batch": self.batch,
            "shapes": {name: list(shape) for name, shape in self.shape_map.items()},
            "config": _dict(self.config),
        }


def require(target: Target, offered: Sequence[str]) -> None:
    """ProviderError unless the runtime of the target's interpreter offers its provider."""
    if target.provider not in offered:
        raise ProviderError(
            f"execution provider {target.alias!r} is not available in onnxruntime here; "
            f"available: {', '.join(aliases(offered))}"
        )


def check(target: Target) -> dict[str, Any]:
    """Start a worker for the target, see that its provider is there, and return the worker's greeting.

    Raises ProviderError. Takes about half a second: call it before long work.
    """
    from runtime_bench.client import Worker

    with Worker(target) as worker:
        return worker.hello
