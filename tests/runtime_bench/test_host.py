"""The fingerprint of the machine."""

from __future__ import annotations

import pytest

from runtime_bench import host as hosts


@pytest.fixture(autouse=True)
def fresh() -> None:
    hosts._machine.cache_clear()


def test_facts_and_fingerprint() -> None:
    facts = hosts.host("1.31.1")
    assert facts["cores"] >= facts["usable_cores"] >= 1
    assert facts["cpu"] and len(facts["fingerprint"]) == 16
    assert hosts.fingerprint("1.31.1") == facts["fingerprint"] != hosts.fingerprint("1.30.0")


@pytest.mark.parametrize(
    ("path", "text", "field", "expected"),
    [
        ("/sys/fs/cgroup/cpu.max", "150000 100000\n", "cpu_limit", 1.5),
        ("/sys/fs/cgroup/cpu.max", "max 100000\n", "cpu_limit", None),
        ("/sys/fs/cgroup/memory.max", f"{4 * 2**30}\n", "memory_limit_gib", 4),
        ("/sys/fs/cgroup/memory.max", "max\n", "memory_limit_gib", None),
        ("/proc/meminfo", "MemFree: 5 kB\nMemTotal:       16384000 kB\n", "memory_gib", 16),
        ("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n", "governor", "powersave"),
        ("/proc/cpuinfo", "model name\t: Thing 9\nflags\t: b a\n\nmodel name\t: Other\n", "cpu", "Thing 9"),
    ],
)
def test_limits_are_read(monkeypatch: pytest.MonkeyPatch, path: str, text: str, field: str, expected: object) -> None:
    monkeypatch.setattr(hosts, "_read", lambda asked: text if asked == path else "")
    assert hosts.host("x")[field] == expected


def test_flags_are_compared_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = []
    for flags in ("avx2 avx512_vnni", "avx512_vnni avx2", "avx2"):
        hosts._machine.cache_clear()
        monkeypatch.setattr(hosts, "_read", lambda asked, f=flags: f"flags : {f}\n" if "cpuinfo" in asked else "")
        digests.append(hosts.fingerprint("x"))
    assert digests[0] == digests[1] != digests[2]


def test_versions() -> None:
    found = hosts.versions()
    assert {"python", "numpy", "onnx", "onnxruntime", "onnxprune"} <= set(found)
    assert all(found.values())
