"""A machine as rows of the benchmarks describe it."""

MACHINE = {
    "cpu": "processor",
    "cpu_model": "1/2/3",
    "cores": 2,
    "memory_gib": 8,
    "onnxruntime": "1.31.1",
    "commit": "",
    "threads": 1,
    "load": 0.1,
    "date": "2026-01-01 00:00 UTC",
}
