"""Files of latencies: sections, damage, and several writers."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from onnxprune.errors import DataError, FileSystemError
from runtime_bench.table_file import TableFile, locked, read

ONE: dict[str, Any] = {"provider": "CPUExecutionProvider", "options": {}, "threads": 1, "config": {}}
TWO = {**ONE, "threads": 2}
HERE, THERE = {"host": "here", "onnxruntime": "1"}, {"host": "there", "onnxruntime": "1"}


def named(path: Path, target: dict[str, Any] = ONE, origin: dict[str, str] = HERE) -> TableFile:
    return TableFile(path, target, origin, named=True)


def cache(path: Path, origin: dict[str, str] = HERE) -> TableFile:
    return TableFile(path, ONE, origin, named=False)


def test_a_file_holds_a_section_for_every_target(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    one, two = named(path), named(path, TWO)
    one.add(reference_s=1e-4, ratios={"a": 2.0, "broken": None})
    two.add(reference_s=2e-4, ratios={"a": 3.0}, looks={"quick x": {"ratio": 0.1 + 0.2, "upper95": float("inf")}})
    again, other = named(path).section, named(path, TWO).section
    assert (again.reference_s, again.ratios, again.looks) == (1e-4, {"a": 2.0, "broken": None}, {})
    assert (other.reference_s, other.ratios) == (2e-4, {"a": 3.0})
    assert other.looks == {"quick x": {"ratio": 0.1 + 0.2, "upper95": float("inf")}}  # to the last bit


def test_what_is_written_first_stays(tmp_path: Path) -> None:
    """Two processes that measure one thing act on one figure: the file's."""
    first, second = named(tmp_path / "t.json"), named(tmp_path / "t.json")
    first.add(reference_s=1.0, ratios={"a": 2.0}, looks={"k": {"ratio": 0.5}})
    second.add(reference_s=3.0, ratios={"a": 4.0, "b": 5.0}, looks={"k": {"ratio": 0.7}})
    for file in (second, named(tmp_path / "t.json")):
        assert file.section.reference_s == 1.0 and file.section.ratios == {"a": 2.0, "b": 5.0}
        assert file.section.looks == {"k": {"ratio": 0.5}}


def test_a_named_file_of_another_host_is_taken_and_says_so(tmp_path: Path) -> None:
    named(tmp_path / "t.json", origin=THERE).add(ratios={"a": 2.0})
    here = named(tmp_path / "t.json")
    assert here.section.ratios == {"a": 2.0} and here.foreign == ("host there, onnxruntime 1",)
    here.add(ratios={"b": 1.0})
    assert named(tmp_path / "t.json", origin=THERE).foreign == ("host here, onnxruntime 1",)


def test_a_cache_of_another_host_is_ignored_and_replaced(tmp_path: Path) -> None:
    cache(tmp_path / "c.json", THERE).add(ratios={"a": 2.0})
    with pytest.warns(UserWarning, match="another host or runtime"):
        here = cache(tmp_path / "c.json")
    assert here.section.ratios == {}
    here.add(ratios={"b": 1.0})
    assert cache(tmp_path / "c.json").section.ratios == {"b": 1.0}


SECTION = {"target": ONE, "measured_on": [HERE], "reference_s": None, "ratios": {}, "looks": {}}


def _section(**changed: Any) -> bytes:
    return json.dumps({"schema": 2, "sections": [{**SECTION, **changed}]}).encode()


DAMAGED = [
    (b"", "Expecting value"),
    (b"\xff\xfe\x00", "codec"),
    (b"[" * 200_000, ""),
    (b"[]", "not a latency table of version"),
    (b'{"schema": 1, "scope": {}, "ratios": {}}', "not a latency table of version"),
    (b'{"schema": 2, "sections": {}}', "not a latency table of version"),
    (b'{"schema": 2, "sections": [7]}', "mapping"),
    (_section(measured_on="here"), "where it was measured"),
    (_section(ratios=[]), "mapping"),
    (_section(ratios={"a": "fast"}), "a is 'fast'"),
    (_section(ratios={"a": -1}), "a is -1"),
    (_section(reference_s=0), "reference_s is 0"),
    (_section(looks={"k": {"ratio": True}}), "k is True"),
    (_section(looks={"k": 0.5}), "mapping"),
]


@pytest.mark.parametrize(("content", "reason"), DAMAGED)
def test_a_damaged_cache_is_ignored_with_a_warning(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "cache.json"
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=f"is ignored: .*{reason}"):
        file = cache(path)
    file.add(ratios={"a": 1.5})
    assert cache(path).section.ratios == {"a": 1.5}


@pytest.mark.parametrize(("content", "reason"), DAMAGED)
def test_a_damaged_named_file_is_refused_and_kept(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"is no latency table: .*{reason}") as caught:
        named(path)
    assert "\n" not in str(caught.value) and path.read_bytes() == content


def test_a_named_file_that_turns_into_something_else_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    file = named(path)
    path.write_text("dear diary")
    with pytest.raises(DataError):
        file.add(ratios={"a": 1.0})
    assert path.read_text() == "dear diary"
    assert [found.name for found in tmp_path.iterdir()] == ["t.json"]


def test_a_named_place_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FileSystemError, match="cannot be read"):
        named(tmp_path / "file" / "t.json")
    with pytest.raises(FileSystemError, match="cannot be read"):
        named(tmp_path)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_bytes(_section())
    (tmp_path / "link.json").symlink_to("real.json")
    named(tmp_path / "link.json").add(ratios={"a": 1.0})
    assert (tmp_path / "link.json").is_symlink() and read(tmp_path / "real.json")[0].ratios == {"a": 1.0}


def _add_twenty(path: Path, writer: int) -> None:
    file = named(path, TWO if writer % 2 else ONE)
    for k in range(20):
        file.add(ratios={f"{writer}/{k}": 1.0 + k, "shared": 1.0 + writer}, looks={f"{writer}/{k}": {"ratio": 0.5}})
    if file.section.ratios["shared"] != named(path, TWO if writer % 2 else ONE).section.ratios["shared"]:
        raise AssertionError("a process acts on another figure than the file's")


def test_concurrent_runs_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "table.json"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_add_twenty, args=(path, n)) for n in range(3)]
    for process in writers:
        process.start()
    for process in writers:
        process.join(60)
        assert process.exitcode == 0
    assert [len(section.ratios) for section in read(path)] == [41, 21]
    assert [len(section.looks) for section in read(path)] == [40, 20]
    assert [found.name for found in path.parent.iterdir()] == ["table.json"]


def test_a_lock_file_that_a_dead_process_left_locks_nobody_out(tmp_path: Path) -> None:
    (tmp_path / "t.json.lock").write_text("")
    with locked(tmp_path / "t.json"):
        pass
    assert list(tmp_path.iterdir()) == []
