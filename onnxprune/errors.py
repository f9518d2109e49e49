"""Errors that users see: one line each, and the exit code that the command line returns for it."""

from __future__ import annotations


class OnnxpruneError(Exception):
    """Base of every error that onnxprune raises on purpose. Its text is one line that tells the user what to do."""

    exit_code = 1


class UsageError(OnnxpruneError):
    """The command or call cannot be carried out as given: a missing path, an existing output, a misspelt EP."""

    exit_code = 2


class ModelError(OnnxpruneError):
    """The model is malformed, hostile, or uses something that is not supported."""

    exit_code = 3


class DataError(OnnxpruneError):
    """Calibration or evaluation data that does not fit the model (names, shapes, dtypes, values)."""

    exit_code = 3


class TargetNotMetError(OnnxpruneError):
    """The latency target or a speedup could not be reached, or there is nothing to prune."""

    exit_code = 4


class AccuracyError(OnnxpruneError):
    """The compressed model fails the accuracy gate (drift or metric)."""

    exit_code = 5


class ProviderError(OnnxpruneError):
    """An execution provider is unavailable, crashed, or silently fell back to another one."""

    exit_code = 6


class LimitError(OnnxpruneError):
    """A memory, time or size limit was reached."""

    exit_code = 7


class FileSystemError(OnnxpruneError):
    """The disk is full, the folder is read-only, or a file could not be written."""

    exit_code = 8
