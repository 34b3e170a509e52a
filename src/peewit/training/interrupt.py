"""Ctrl-C once saves and stops, twice stops at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from peewit.errors import Interrupted
from peewit.training.callbacks import Callback


class StopRequest(Callback):
    """A callback that stops the training on the first SIGINT (Ctrl-C) or SIGTERM.

    It catches signals while it is entered as a context manager. A second signal raises
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
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
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
        if self.requested:
            raise KeyboardInterrupt
        # nothing is printed here: the signal may have arrived in the middle of a print
        self.requested = True
