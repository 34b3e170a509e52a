"""The way in from a shell: whatever goes wrong becomes one sentence and an exit code."""

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

NO_MEMORY = "the memory is not enough; close other programs or use smaller batches or images"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``peewit`` with ``arguments`` (default: those of the process); return the exit code.

    The code is 0 when all went well, 1 for a failure, 2 for a command line or a value that makes
    no sense, and 130 after Ctrl-C. Failures are one sentence on stderr, which begins "peewit: ".
    ``PEEWIT_DEBUG=1`` shows the traceback of what should not have happened.
    """
    if not os.environ.get("PEEWIT_DEBUG"):
        sys.excepthook = _bug
    # a program that was started with a stream closed has None there
    nowhere = Path(os.devnull)
    sys.stdin = sys.stdin or nowhere.open()
    sys.stdout = sys.stdout or nowhere.open("w")
    sys.stderr = sys.stderr or nowhere.open("w")
    for stream in (sys.stdout, sys.stderr):
        # a terminal that knows few characters (an old code page) gets "?" and not a crash
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        from peewit.cli import cli

        # this process is the command, unless somebody in it calls this function with arguments
        began = BEGAN if arguments is None else time.perf_counter()
        code = cli.main(arguments, prog_name="peewit", standalone_mode=False, obj=began)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (click.Abort, KeyboardInterrupt):
        return _say("stopped", 130)
    except click.ClickException as error:
        from peewit.cli.usage import usage_sentence

        return _say(usage_sentence(error), error.exit_code)
    except PeewitError as error:
        return _say(str(error), error.exit_code)
    except MemoryError:
        return _say(NO_MEMORY, 1)
    except RuntimeError as error:
        # what PyTorch raises in its place, with other words on Windows
        if "DefaultCPUAllocator" not in str(error):
            raise
        return _say(NO_MEMORY, 1)
    except BrokenPipeError:
        # the reader of a pipe (head, less) has left: nothing more to say to it, now or at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _say(f"{where}{reason_of(error)}", 1)


def _say(sentence: str, code: int) -> int:
    # it may name files, which may have any name
    print(f"peewit: {printable(sentence)}", file=sys.stderr)
    return code


def _bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    last = trace
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    where = f" ({last.tb_frame.f_code.co_filename}, line {last.tb_lineno})" if last else ""
    _say(
        f"this is a bug in Peewit: {kind.__name__}: {' '.join(str(error).split())}{where}; "
        "please report it with what PEEWIT_DEBUG=1 shows",
        1,
    )


if __name__ == "__main__":
    sys.exit(main())
