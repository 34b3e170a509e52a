"""Entry point: run the command line, and turn every failure into one sentence and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, TracebackType

import click

from peewit.errors import PeewitError, reason_of
from peewit.system.startup import BEGAN
from peewit.system.streams import abandon, lossy
from peewit.system.text import printable

OUT_OF_MEMORY = "out of memory; close other programs, or use smaller batches or images"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``peewit`` with ``arguments`` (default: those of the process); return the exit code.

    The exit code is 0 for success, 1 for a failure, 2 for an invalid command line or value, and 130
    after Ctrl-C. A failure is one sentence on stderr that begins with "peewit: ".
    ``PEEWIT_DEBUG=1`` shows the traceback of a bug. If the reader of stdout exits (``| head -1``),
    nothing more is printed, and that is no failure; a closed stderr is ignored.
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
    sys.stderr = lossy(sys.stderr)
    code, sentence = _run(arguments)
    # the next Ctrl-C would print a traceback, even while Python exits and waits for threads
    if arguments is None and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _exit_now)
    if sentence:
        _complain(sentence)
    return code


def _run(arguments: Sequence[str] | None) -> tuple[int, str]:
    """Run the command; return its exit code, and the sentence about its failure if it failed."""
    try:
        from peewit.cli import cli

        # with arguments, some other program calls this function: the command began just now
        began = BEGAN if arguments is None else time.perf_counter()
        code = cli.main(arguments, prog_name="peewit", standalone_mode=False, obj=began)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0, ""
    except (click.Abort, KeyboardInterrupt):
        return 130, "stopped"
    except click.ClickException as error:
        from peewit.cli.usage import usage_sentence

        return error.exit_code, usage_sentence(error)
    except PeewitError as error:
        return error.exit_code, str(error)
    except MemoryError:
        return 1, OUT_OF_MEMORY
    except RuntimeError as error:
        # PyTorch's out of memory: the rest of its message differs on Windows
        if "DefaultCPUAllocator" not in str(error):
            raise
        return 1, OUT_OF_MEMORY
    except (BrokenPipeError, SystemExit) as error:
        # click and rich turn a BrokenPipeError into SystemExit(1), which means nothing else here;
        # click's shell completion exits with 0
        if isinstance(error, SystemExit) and error.code != 1:
            raise
        abandon(sys.stdout)
        return 0, ""
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return 1, f"{where}{reason_of(error)}"


def _complain(sentence: str) -> None:
    """Print the sentence on stderr."""
    # file names in it may contain control characters
    print(f"peewit: {printable(sentence)}", file=sys.stderr)


def _exit_now(number: int, frame: FrameType | None) -> None:
    os._exit(130)


def _report_bug(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):  # Ctrl-C while another failure was handled
        _complain("stopped")
        os._exit(130)
    last = trace
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    where = f" ({last.tb_frame.f_code.co_filename}, line {last.tb_lineno})" if last else ""
    _complain(
        f"this is a bug in Peewit: {kind.__name__}: {' '.join(str(error).split())}{where}; "
        "please report it with the traceback that PEEWIT_DEBUG=1 shows"
    )


if __name__ == "__main__":
    sys.exit(main())
