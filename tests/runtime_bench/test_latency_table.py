"""The cache of operator latencies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onnxprune.errors import FileSystemError, ProviderError
from runtime_bench import latency_table
from runtime_bench.latency_table import LatencyTable, OpKey
from runtime_bench.quick import Bench
from runtime_bench.target import Target


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Bench(Target("cpu")) as opened:
        yield opened


def keys(*channels: int) -> list[OpKey]:
    return [OpKey("Conv+Relu", c, c, (3, 3), (1, 1), (16, 16)) for c in channels]


def test_keys_are_readable_and_distinct() -> None:
    key = OpKey("Conv+Relu", 16, 32, (3, 3), (2, 2), (28, 28), groups=4, precision="int8")
    assert str(key) == "Conv+Relu 16->32 k=3x3 s=2x2 i=28x28 g=4 n=1 int8"
    assert str(OpKey("Gemm", 8, 8, extra="T=32")) == "Gemm 8->8 k=- s=- i=- g=1 n=1 fp32 T=32"


def test_what_is_stored_is_not_measured_again(bench: Bench, tmp_path: Path, make_conv: Callable[..., bytes]) -> None:
    built: list[OpKey] = []

    def build(key: OpKey) -> bytes:
        built.append(key)
        return make_conv(key.cin)

    table = LatencyTable(bench, cache_dir=tmp_path)
    first = table.lookup(keys(4, 8, 16, 4), build)
    assert len(first) == 3 == len(built) == table.measured
    assert all(0 < s < 0.1 for s in first.values())
    again = LatencyTable(bench, cache_dir=tmp_path)
    more = again.lookup(keys(4, 8, 32), build)
    assert again.measured == 1 and built[-1].cin == 32
    assert more[keys(4)[0]] == pytest.approx(first[keys(4)[0]], rel=0.5)
    assert len(LatencyTable(bench, cache_dir=tmp_path)) == 4


def test_values_follow_the_speed_of_the_machine(bench: Bench, tmp_path: Path) -> None:
    LatencyTable(bench, cache_dir=tmp_path).file.add(ratios={"a": 2.0})
    table = LatencyTable(bench, cache_dir=tmp_path)
    found = table.lookup(["a"], lambda key: b"")
    assert found == {"a": pytest.approx(2 * table.reference_s)}
    assert 1e-6 < table.reference_s < 0.1
    assert table.file.section.reference_s is None


def test_a_named_file_gives_the_same_seconds_always(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    first = LatencyTable(bench, file=path)
    first.file.add(ratios={"a": 2.0})
    seconds = first.lookup(["a"], lambda key: b"")
    again = LatencyTable(bench, file=path)
    assert again.lookup(["a"], lambda key: pytest.fail("it is stored")) == seconds
    assert again.reference_s == first.reference_s == seconds["a"] / 2


def test_operators_that_do_not_run_are_left_out(bench: Bench, tmp_path: Path, make_conv: Callable[..., bytes]) -> None:
    table = LatencyTable(bench, cache_dir=tmp_path)
    models = {"good": make_conv(4), "bad": b"broken"}
    assert set(table.lookup(models, models.__getitem__)) == {"good"}
    assert table.failed == {"bad"}
    assert table.lookup(["bad"], lambda key: pytest.fail("a failure was tried twice")) == {}


def test_the_cache_goes_where_the_user_wants(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert latency_table.default_cache() == tmp_path / "onnxprune"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/paths/are/invalid")
    assert latency_table.default_cache() == Path.home() / ".cache" / "onnxprune"


def test_a_named_file_remembers_what_does_not_run(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    assert LatencyTable(bench, file=path).lookup(["bad"], lambda key: b"broken") == {}
    again = LatencyTable(bench, file=path)
    assert again.lookup(["bad"], lambda key: pytest.fail("a failure was tried twice")) == {} and again.failed == {"bad"}


def test_the_reference_must_run(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime_bench.latency_table.reference_model", lambda: b"broken")
    with pytest.raises(ProviderError, match="reference operator"):
        LatencyTable(bench, cache_dir=tmp_path).lookup(["a"], lambda key: b"")


def test_a_cache_that_cannot_be_written(bench: Bench, tmp_path: Path, make_conv: Callable[..., bytes]) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.warns(UserWarning, match="cannot write the latency cache"):
        assert LatencyTable(bench, cache_dir=blocked / "below").lookup(["k"], lambda key: make_conv(2))
    with pytest.raises(FileSystemError, match=r"the latency table .* cannot be read"):
        LatencyTable(bench, file=blocked / "below").lookup(["k"], lambda key: make_conv(2))
