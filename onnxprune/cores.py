"""The cores that work may be spread over."""

from __future__ import annotations

import os
from pathlib import Path


def physical_cores() -> int:
    """Cores that this process may use, siblings of one core counted once where the system says so."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        files = Path("/sys/devices/system/cpu").glob("cpu[0-9]*/topology/core_cpus_list")
        return max(1, min(usable, len({path.read_text() for path in files}) or usable))
    except OSError:
        return usable
