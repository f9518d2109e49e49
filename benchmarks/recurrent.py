"""Calibration data of recurrent models of the zoo: the inputs and states of every step while they run on its sounds.

The zoo's own calibration data of such a model starts every sample from a state of zeros, which hardly occurs when the
model runs, or there is none because several models run together. The loops are those of the zoo's `metrics.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

Step = dict[str, np.ndarray]
"""Inputs of one call."""

IN_PARTS = frozenset({"dtln_denoise"})
"""Models of several files that only run together."""

RECORDED = IN_PARTS | {"silero_vad"}

VAD_CHUNK, VAD_CONTEXT, VAD_RATE = 512, 64, 16000
WINDOW, HOP = 512, 128
STATE = (1, 2, 128, 2)


def write(zoo: Path, model: str, file: str, out: Path, samples: int) -> None:
    """Writes `samples` steps, evenly spread over all sounds, as an .npz with one entry a call on axis 0."""
    steps = list(_vad(zoo / model) if model == "silero_vad" else _denoise(zoo / model, file))
    chosen = np.unique(np.linspace(0, len(steps) - 1, num=min(samples, len(steps))).astype(np.int64))
    names = steps[0]
    np.savez(out, **{name: np.stack([steps[index][name] for index in chosen]) for name in names})


def _vad(folder: Path) -> Iterator[Step]:
    """Chunks of speech with the end of the chunk before, and the state that the model left."""
    session = _session(folder / "model.onnx")
    for sound in np.load(folder / "calib.npz")["audio"].astype(np.float32) / 32767:
        state, context = np.zeros((2, 1, 128), np.float32), np.zeros(VAD_CONTEXT, np.float32)
        for chunk in sound.reshape(-1, VAD_CHUNK):
            fed = np.concatenate([context, chunk])[None]
            step = {"input": fed, "state": state, "sr": np.array(VAD_RATE, np.int64)}
            yield step
            _, state = session.run(["output", "stateN"], step)
            context = chunk[-VAD_CONTEXT:]


def _denoise(folder: Path, file: str) -> Iterator[Step]:
    """What one of the two models reads: the first a magnitude spectrum, the second the frame that its mask leaves."""
    sessions = [_session(folder / name) for name in ("model_1.onnx", "model_2.onnx")]
    names = [[value.name for value in session.get_inputs()] for session in sessions]
    part = 0 if file == "model_1.onnx" else 1
    for sound in np.load(folder / "calib.npz")["noisy"] / 32767.0:
        states, window = [np.zeros(STATE, np.float32)] * 2, np.zeros(WINDOW)
        for begin in range(0, len(sound) - WINDOW + HOP - 1, HOP):
            window = np.concatenate([window[HOP:], sound[begin : begin + HOP]])
            spectrum = np.fft.rfft(window)
            size = np.abs(spectrum).reshape(1, 1, -1).astype(np.float32)
            first = dict(zip(names[0], (size, states[0]), strict=True))
            mask, left = sessions[0].run(None, first)
            phase = np.exp(1j * np.angle(spectrum))
            frame = np.fft.irfft(size[0, 0] * mask[0, 0] * phase).reshape(1, 1, -1).astype(np.float32)
            second = dict(zip(names[1], (frame, states[1]), strict=True))
            yield (first, second)[part]
            states = [left, sessions[1].run(None, second)[1]]


def _session(path: Path) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
