"""The host as far as it decides what pays: which instructions multiply, how many cores there are, which EPs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from onnxprune.advice.facts import Host
from passes.quantization.host import flags, saturates
from runtime_bench.host import host
from runtime_bench.target import available

_CPUINFO = Path("/proc/cpuinfo")
_NAMES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "VNNI",
    "avx512_vnni": "VNNI",
    "amx_int8": "AMX",
    "asimd": "NEON",
    "asimddp": "DOTPROD",
    "i8mm": "I8MM",
}
"""What flags of the processor are called here; those of Linux on x86 and on ARM."""


def read(eps: Sequence[str], threads: int, *, given: bool, cpuinfo: Path = _CPUINFO) -> Host:
    """This machine, asked for these EPs and intra-op threads (`given`: by the user)."""
    facts = host()
    return Host(
        cpu=str(facts["cpu"]),
        cores=int(facts["usable_cores"]),
        memory_gib=facts["memory_limit_gib"] or facts["memory_gib"],
        threads=threads,
        threads_given=given,
        eps=tuple(eps),
        available=tuple(available()),
        instructions=instructions(cpuinfo),
        saturates=saturates(cpuinfo=cpuinfo),
    )


def instructions(cpuinfo: Path = _CPUINFO) -> tuple[str, ...]:
    """Vector and matrix instructions of the first processor that decide how fast it multiplies; empty where the system
    does not say.
    """
    found = flags(cpuinfo) or frozenset()
    return tuple(dict.fromkeys(name for flag, name in _NAMES.items() if flag in found))
