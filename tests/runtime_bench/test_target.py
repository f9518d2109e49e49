"""Targets: names, refusals, and silent fallback."""

from __future__ import annotations

import sys
from pathlib import Path

import onnxruntime
import pytest

from onnxprune.errors import ModelError, ProviderError, UsageError
from runtime_bench import target as targets
from runtime_bench.client import Worker
from runtime_bench.target import Target, check


@pytest.mark.parametrize("text", ["cpu", "CPU", "CPUExecutionProvider", "cpuexecutionprovider"])
def test_names_of_a_provider(text: str) -> None:
    assert Target(text).provider == "CPUExecutionProvider"
    assert Target(text).alias == "cpu"


def test_every_provider_of_the_runtime_has_an_alias() -> None:
    assert set(onnxruntime.get_all_providers()) <= set(targets.ALIASES.values())


def test_an_unknown_provider_lists_what_there_is() -> None:
    with pytest.raises(UsageError, match=r"unknown execution provider 'cdua'; available here: .*cpu"):
        Target("cdua")


def test_a_provider_that_is_not_built_in_is_refused() -> None:
    absent = next(a for a, name in targets.ALIASES.items() if name not in onnxruntime.get_available_providers())
    with pytest.raises(ProviderError, match=rf"{absent!r} is not available.*cpu"):
        check(Target(absent))


def test_a_provider_that_takes_no_node_is_refused(conv: Path) -> None:
    """The session is created and says that the provider is first, yet everything runs on the CPU."""
    if "AzureExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("needs a build with the Azure provider, which runs no ordinary node")
    with (
        Worker(Target("azure")) as worker,
        pytest.raises(ProviderError, match="took no node of the model; all of it fell back to CPUExecutionProvider"),
    ):
        worker.load(conv)


def test_a_runtime_that_falls_back_is_refused(conv: Path) -> None:
    """Python's onnxruntime retries on the CPU when a provider cannot start; here it pretends to."""
    program = """
import runtime_bench.worker as w, runtime_bench.session as s
real = s.ort.InferenceSession
def fallen(model, options, providers, provider_options, enable_fallback):
    return real(model, options, providers=["CPUExecutionProvider"])
s.ort.InferenceSession = fallen
s.ort.get_available_providers = lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
w.main()
"""
    with (
        Worker(Target("cuda"), command=[sys.executable, "-c", program]) as worker,
        pytest.raises(ProviderError, match="asked for CUDAExecutionProvider, the runtime fell back to CPU"),
    ):
        worker.load(conv)


def test_a_target_is_a_value() -> None:
    one = Target("cuda", options={"device_id": "1"}, shapes={"x": [1, 3]}, fallbacks=("cpu",))
    two = Target("CUDAExecutionProvider", options=(("device_id", "1"),), shapes=(("x", (1, 3)),), fallbacks=("cpu",))
    assert one == two and hash(one) == hash(two)
    assert one.providers == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert one.with_batch(4).batch == 4 and one.with_batch(4) != one
    assert one.to_json()["shapes"] == {"x": [1, 3]}


def test_impossible_targets() -> None:
    with pytest.raises(UsageError, match="threads"):
        Target("cpu", threads=0)
    with pytest.raises(UsageError, match="batch"):
        Target("cpu", batch=0)
    with pytest.raises(UsageError, match="shapes"):
        Target("cpu", shapes={"x": (1, -1)})


def test_session_options_reach_the_runtime(conv: Path) -> None:
    """A config entry that the runtime refuses proves that entries are handed on."""
    with Worker(Target("cpu", config={"session.set_denormal_as_zero": "1"})) as worker:
        worker.load(conv)
    nonsense = Target("cpu", config={"session.intra_op_thread_affinities": "nonsense"}, threads=2)
    with Worker(nonsense) as worker, pytest.raises(ModelError, match=r"conv\.onnx"):
        worker.load(conv)
