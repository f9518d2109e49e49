"""Following the first model of a block to its core."""

from __future__ import annotations

import os

import pytest

from runtime_bench import affinity

pytestmark = pytest.mark.skipif(affinity.current() is None, reason="this system does not tell cores")


def test_here_pins_and_is_undone() -> None:
    before = os.sched_getaffinity(0)
    with affinity.pinned(affinity.HERE) as core:
        assert core in before
        assert os.sched_getaffinity(0) == {core}
        assert affinity.current() == core
    assert os.sched_getaffinity(0) == before


def test_a_named_core() -> None:
    core = max(os.sched_getaffinity(0))
    with affinity.pinned(core) as pinned:
        assert pinned == core == affinity.current()


@pytest.mark.parametrize("core", [None, 10_000])
def test_no_such_core_changes_nothing(core: int | None) -> None:
    before = os.sched_getaffinity(0)
    with affinity.pinned(core) as pinned:
        assert pinned is None and os.sched_getaffinity(0) == before


def test_a_system_without_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(affinity, "_sched_getcpu", None)
    with affinity.pinned(affinity.HERE) as core:
        assert core is None
