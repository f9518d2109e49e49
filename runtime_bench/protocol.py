"""The messages between the compiler and a worker: one JSON object a line, with a version and a request number.

Request:  `{"v": 1, "id": 7, "cmd": "run", ...}`.
Reply:    `{"v": 1, "id": 7, "ok": true, ...}` or `{"v": 1, "id": 7, "ok": false, "kind": "model", "message": "..."}`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

VERSION = 1
"""Raised whenever a message changes its meaning. Both sides refuse any other version."""

MAX_LINE = 64 * 1024 * 1024
"""Longest line in bytes that is read. A longer one is garbage: the largest honest reply is a few hundred kilobytes."""

HOME_PREFIX = "onnxprune-worker-"
"""How the names of the folders begin that workers are started in."""

KINDS = ("model", "data", "shape", "provider", "limit", "protocol")
"""What went wrong: the model, its inputs, an open shape, the provider, memory, or the conversation itself."""


class ProtocolError(ValueError):
    """A line that is no message of this protocol."""


class WorkerFault(Exception):  # noqa: N818 (not an error of the package: it travels as a reply)
    """Raised inside a worker. `kind` is one of KINDS."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def encode(message: Mapping[str, Any]) -> bytes:
    """One message as a line of ASCII bytes, newline included."""
    return json.dumps({"v": VERSION, **message}, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """The message in a line. Raises ProtocolError when it is not a JSON object of this version."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {line[:80]!r}") from error
    if not isinstance(message, dict) or message.get("v") != VERSION:
        raise ProtocolError(f"not a message of protocol version {VERSION}: {line[:80]!r}")
    return message
