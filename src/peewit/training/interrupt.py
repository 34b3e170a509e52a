"""Ctrl-C once saves and stops, twice stops at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from peewit.errors import Interrupted
from peewit.training.callbacks import Callback

# Windows has no SIGHUP, and SIGBREAK (Ctrl-Break, a closed console) only there
HANGUP = getattr(signal, "SIGHUP", getattr(signal, "SIGBREAK", None))
SIGNALS = tuple(number for number in (signal.SIGINT, signal.SIGTERM, HANGUP) if number is not None)


class StopRequest(Callback):
    """A callback that stops the training on SIGINT (Ctrl-C), SIGTERM or SIGHUP (closed terminal).

    It catches signals while it is entered as a context manager. A second SIGINT or SIGTERM raises
    KeyboardInterrupt at once. Signals that the process was started to ignore (``nohup``, ``&`` in a
    script) stay ignored. Outside the main thread, where Python cannot catch signals, it does
    nothing and ``requested`` stays False.

    Examples
    --------
    >>> with StopRequest() as stop:
    ...     stop.requested
    ...     signal.raise_signal(signal.SIGINT)
    ...     stop.requested
    False
    True
    """

    def __init__(self) -> None:
        self.requested = self._asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                before = signal.getsignal(number)
                # None: a handler that was not installed by Python and could not be restored
                if before not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before.clear()

    def should_stop(self) -> bool:
        """Return whether a signal has arrived."""
        return self.requested

    def check(self, why: str, todo: str) -> None:
        """Raise Interrupted if a signal has arrived: for use before anything has been changed.

        Parameters
        ----------
        why, todo : str
            The state of things, and what to do next.
        """
        if self.requested:
            raise Interrupted("the training was stopped", why, todo)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # nothing is printed here: the signal may have arrived in the middle of a print
        self.requested = True
        if number == HANGUP:
            # a closed terminal sends it twice: once by the kernel, once by the shell
            return
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
