"""Streams whose reader has exited."""

from __future__ import annotations

import errno
import io
import os
import sys
from pathlib import Path

import pytest

from peewit.system import terminal
from peewit.system.streams import lossy, reader_may_leave
from peewit.training.progress import Lines, LiveLine


class Failing(io.StringIO):
    """A stream that writes a number of times, then fails like a pipe, a terminal or a disk."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code

    def write(self, text: str) -> int:
        raise OSError(self.code, os.strerror(self.code))

    def flush(self) -> None:
        self.write("")

    def isatty(self) -> bool:
        return True


CODES = (errno.EPIPE, errno.EIO, errno.ENOSPC)


@pytest.mark.parametrize("code", CODES)
def test_what_cannot_be_written_is_dropped(code: int) -> None:
    stream = lossy(Failing(code))
    assert lossy(stream) is stream
    assert stream.write("text") == 4
    stream.writelines(["a", "b"])
    stream.flush()
    print("note: a", file=stream)


@pytest.mark.parametrize("kind", [Lines, LiveLine])
@pytest.mark.parametrize("code", CODES)
def test_progress_needs_no_reader(
    kind: type[Lines], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peewit.training.callbacks import TrainInfo
    from peewit.training.state import TrainState

    monkeypatch.setattr(sys, "stderr", Failing(code))
    progress = kind()
    assert progress.console.is_terminal
    state = TrainState(images=4, step=1)
    progress.on_train_begin(TrainInfo(2, 8, 4), state)
    progress.on_note("a note")
    progress.show(state)
    progress.close()


def test_only_an_absent_reader_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    for code in (errno.EPIPE, errno.EIO):
        monkeypatch.setattr(sys, "stdout", Failing(code))
        with reader_may_leave():
            print("result")
    monkeypatch.setattr(sys, "stdout", Failing(errno.ENOSPC))
    with pytest.raises(OSError, match="space"), reader_may_leave():
        print("result")


def test_a_closed_pipe_is_replaced_by_the_null_device(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        print("lost", file=lossy(stream), flush=True)
        # Python flushes its buffers again at exit: this must not fail
        stream.flush()
        stream.write("more")
        stream.flush()


def test_what_can_be_written_is_written() -> None:
    stream = io.StringIO()
    assert lossy(stream).write("猫") == 1
    assert stream.getvalue() == "猫"
    assert lossy(stream).getvalue() == "猫"  # type: ignore[attr-defined]
    assert terminal.console_err().encoding == sys.stderr.encoding
