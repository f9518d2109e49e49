"""What the processor's 8-bit arithmetic can do."""

from __future__ import annotations

import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def saturates(machine: str = "", cpuinfo: Path = _CPUINFO) -> bool:
    """Whether sums of u8 x s8 products may saturate at 16 bits, so that `Scheme.reduce_range` is needed: an x86
    processor without VNNI. Where the flags cannot be read (not Linux), False.

    `machine`: as `platform.machine()` says, the default. `cpuinfo`: the file with the flags.
    """
    if (machine or platform.machine()).lower() not in ("x86_64", "amd64", "i686"):
        return False
    found = flags(cpuinfo)
    return found is not None and not {"avx512_vnni", "avx_vnni"} & found


def flags(cpuinfo: Path = _CPUINFO) -> frozenset[str] | None:
    """What the first processor says of itself, in the names of Linux; None where that cannot be read."""
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        return None
    named = (line for line in lines if line.startswith(("flags", "Features")) and ":" in line)
    return next((frozenset(line.split(":", 1)[1].split()) for line in named), None)
