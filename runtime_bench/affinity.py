"""Keeps the models of one block on the same core.

Cores differ: one shares its caches or its power budget with a busy neighbour, another is of a smaller kind. A worker
tends to stay on its core, so without this the difference between cores shows up as a difference between models. The
first model of a block runs where the scheduler puts it (which avoids busy cores) and the others follow it there.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

HERE = -1
"""Ask for the core that the scheduler has chosen."""


def _find_sched_getcpu() -> Callable[[], int] | None:
    if not hasattr(os, "sched_setaffinity"):
        return None
    try:
        return ctypes.CDLL(None).sched_getcpu
    except (OSError, AttributeError):
        return None


_sched_getcpu = _find_sched_getcpu()


def current() -> int | None:
    """Core that this thread runs on; None where the system does not tell."""
    core = _sched_getcpu() if _sched_getcpu else HERE
    return core if core >= 0 else None


@contextmanager
def pinned(core: int | None) -> Iterator[int | None]:
    """Keep this thread on `core` (HERE: where it is) meanwhile, where the system allows; yields the core, else None."""
    wanted = current() if core == HERE else core
    if wanted is None or _sched_getcpu is None:
        yield None
        return
    before = os.sched_getaffinity(0)
    if wanted not in before:
        yield None
        return
    os.sched_setaffinity(0, {wanted})
    try:
        yield wanted
    finally:
        os.sched_setaffinity(0, before)
