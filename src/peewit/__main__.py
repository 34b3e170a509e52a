"""Entry point: run the command line, and turn every failure into one sentence and an exit code."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import click

from peewit.errors import PeewitError, reason_of
from peewit.system.startup import BEGAN
from peewit.system.text import printable

OUT_OF_MEMORY = "out of memory; close other programs, or use smaller batches or images"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``peewit`` with ``arguments`` (default: those of the process); return the exit code.

    The exit code is 0 for success, 1 for a failure, 2 for an invalid command line or value, and 130
    after Ctrl-C. A failure is one sentence on stderr that begins with "peewit: ".
    ``PEEWIT_DEBUG=1`` shows the traceback of a bug.
    """
    if not os.environ.get("PEEWIT_DEBUG"):
        sys.excepthook = _report_bug
    # a stream that was closed when the process started is None
    nowhere = Path(os.devnull)
    sys.stdin = sys.stdin or nowhere.open()
    sys.stdout = sys.stdout or nowhere.open("w")
    sys.stderr = sys.stderr or nowhere.open("w")
    for stream in (sys.stdout, sys.stderr):
        # "?" instead of a crash for a character that the terminal's encoding (a code page) lacks
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        from peewit.cli import cli

        # with arguments, some other program calls this function: the command began just now
        began = BEGAN if arguments is None else time.perf_counter()
        code = cli.main(arguments, prog_name="peewit", standalone_mode=False, obj=began)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (click.Abort, KeyboardInterrupt):
        return _fail("stopped", 130)
    except click.ClickException as error:
        from peewit.cli.usage import usage_sentence

        return _fail(usage_sentence(error), error.exit_code)
    except PeewitError as error:
        return _fail(str(error), error.exit_code)
    except MemoryError:
        return _fail(OUT_OF_MEMORY, 1)
    except RuntimeError as error:
        # PyTorch's out of memory: the rest of its message differs on Windows
        if "DefaultCPUAllocator" not in str(error):
            raise
        return _fail(OUT_OF_MEMORY, 1)
    except BrokenPipeError:
        # the reader of the pipe (head, less) has exited: write nothing more, now or at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{reason_of(error)}", 1)


def _fail(sentence: str, code: int) -> int:
    """Print the sentence on stderr, and return the exit code."""
    # file names in it may contain control characters
    print(f"peewit: {printable(sentence)}", file=sys.stderr)
    return code


def _report_bug(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    last = trace
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    where = f" ({last.tb_frame.f_code.co_filename}, line {last.tb_lineno})" if last else ""
    _fail(
        f"this is a bug in Peewit: {kind.__name__}: {' '.join(str(error).split())}{where}; "
        "please report it with the traceback that PEEWIT_DEBUG=1 shows",
        1,
    )


if __name__ == "__main__":
    sys.exit(main())
