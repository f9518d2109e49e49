"""The command line. Nothing heavy is imported here: `onnxprune --help` must answer at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from onnxprune.errors import FileSystemError, LimitError, OnnxpruneError

BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code.

    An error is one line on stderr; with `--debug` its traceback comes before it. What nobody expected goes to
    `sys.excepthook`, which keeps to one line too, and ends the process with exit code 1.
    """
    import click

    from onnxprune.cli import signals
    from onnxprune.cli.root import root

    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    if argv is None:
        signals.install(debug=debug)
    try:
        # not click's own `main`: that has its own mind about interrupts and broken pipes
        with root.make_context("onnxprune", arguments) as context:
            code = root.invoke(context)
        sys.stdout.flush()
        return int(code or 0)
    except click.exceptions.Exit as end:
        return end.exit_code
    except OnnxpruneError as error:
        return fail(str(error), error.exit_code, error if debug else None)
    except click.ClickException as error:
        return fail(error.format_message(), error.exit_code, error if debug else None)
    except BrokenPipeError:
        _discard_stdout()
        return BROKEN_PIPE
    except OSError as error:
        return fail(_os_text(error), FileSystemError.exit_code, error if debug else None)
    except MemoryError:
        return fail("out of memory", LimitError.exit_code)
    except signals.Stopped as stop:
        return fail(stop.reason, stop.exit_code)


def fail(message: str, exit_code: int, shown: BaseException | None = None) -> int:
    """Prints the error, after its traceback where one is to be `shown`, and returns the exit code."""
    from onnxprune.progress import one_line

    if shown is not None:
        import traceback

        sys.stderr.write("".join(traceback.format_exception(shown)))
    sys.stderr.write(f"error: {one_line(message)}\n")
    return exit_code


def _os_text(error: OSError) -> str:
    where = f"{error.filename}: " if isinstance(error.filename, str) else ""
    return f"{where}{error.strerror or error}"


def _discard_stdout() -> None:
    """Points stdout at the null device, so that the interpreter's own flush at exit does not fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
