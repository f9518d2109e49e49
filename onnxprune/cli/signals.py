"""Ends of a run that no `except` clause handles: SIGTERM, SIGHUP, and exceptions nobody expected."""

from __future__ import annotations

import signal
import sys
from types import FrameType, TracebackType

from onnxprune.progress import one_line


class Stopped(BaseException):
    """SIGINT, SIGTERM or SIGHUP arrived. Not an Exception, so that only what cleans up on the way out sees it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number
        self.reason = "interrupted" if number == signal.SIGINT else "terminated"


def _unwind(number: int, frame: FrameType | None) -> None:
    """Unwinds the stack once; what cleans up on the way is not to be interrupted by a second signal."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(number)


def install(*, debug: bool) -> None:
    """Makes signals unwind the stack, so that nothing is left behind, and unexpected exceptions one line.

    A SIGHUP that is ignored stays so: `nohup` is to outlive its terminal.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _unwind)
    if not debug:
        sys.excepthook = _one_line_hook


def _one_line_hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    text = one_line(f"{kind.__name__}: {error}")
    sys.stderr.write(f"error: internal error ({text}); run again with --debug for the traceback and report it\n")
