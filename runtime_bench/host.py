"""What machine this is, as far as it matters for latencies, and which versions run on it."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("onnxprune", "onnx", "onnxruntime", "onnxruntime-gpu", "onnx-graphsurgeon", "onnxscript", "numpy", "scipy")


def host(runtime: str = "") -> dict[str, Any]:
    """Processor, cores, memory, limits of the container, `runtime` (version of onnxruntime) and a digest of them
    all."""
    facts = {**_machine(), "onnxruntime": runtime or _version("onnxruntime") or ""}
    return {**facts, "fingerprint": _digest(facts)}


def fingerprint(runtime: str = "") -> str:
    """Digest that changes when latencies measured before are no longer comparable. 16 hexadecimal digits."""
    return str(host(runtime)["fingerprint"])


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that take part."""
    found = {name: _version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **{name: v for name, v in found.items() if v}}


def _digest(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@functools.cache
def _machine() -> dict[str, Any]:
    info = _cpuinfo(_read("/proc/cpuinfo"))
    flags = sorted((info.get("flags") or info.get("Features") or "").split())
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu": info.get("model name") or platform.processor() or platform.machine(),
        "cpu_model": "/".join(info.get(k, "") for k in ("cpu family", "model", "stepping")),
        "flags": hashlib.sha256(" ".join(flags).encode()).hexdigest()[:12],
        "cores": os.cpu_count() or 1,
        "usable_cores": _usable_cores(),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or None,
        "memory_gib": _memory_gib(_read("/proc/meminfo")),
        "cpu_limit": _cpu_limit(),
        "memory_limit_gib": _memory_limit_gib(),
    }


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _cpuinfo(text: str) -> dict[str, str]:
    """The fields of the first processor."""
    fields: dict[str, str] = {}
    for line in text.split("\n\n", 1)[0].splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    return fields


def _usable_cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _memory_gib(meminfo: str) -> int | None:
    for line in meminfo.splitlines():
        if line.startswith("MemTotal:"):
            return round(int(line.split()[1]) / 2**20)
    return None


def _cpu_limit() -> float | None:
    """Cores that the container may use (cgroup v2, then v1); None without a limit."""
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").strip().partition(" ")
    if not period:
        quota = _read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").strip()
        period = _read("/sys/fs/cgroup/cpu/cpu.cfs_period_us").strip()
    if not quota.isdigit() or not period.isdigit() or not int(period):
        return None
    return round(int(quota) / int(period), 2)


def _memory_limit_gib() -> int | None:
    text = (_read("/sys/fs/cgroup/memory.max") or _read("/sys/fs/cgroup/memory/memory.limit_in_bytes")).strip()
    if not text.isdigit() or int(text) >= 2**60:
        return None
    return round(int(text) / 2**30)
