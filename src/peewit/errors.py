"""Exceptions whose messages are sentences for the user."""

from __future__ import annotations

from collections.abc import Sequence


class PeewitError(Exception):
    """A failure that the user can understand and fix.

    Parameters
    ----------
    what : str
        What failed, with the name of the file, option or value. No full stop.
    why : str, optional
        The reason, unless it is unknown or clear from ``what``.
    todo : str, optional
        What to do next, in the imperative.

    Examples
    --------
    >>> print(PeewitError("cannot read a.png", "it is empty", "choose another picture"))
    cannot read a.png: it is empty; choose another picture
    """

    exit_code = 1

    def __init__(self, what: str, why: str = "", todo: str = "") -> None:
        self.what, self.why, self.todo = what, why, todo
        super().__init__(what + (f": {why}" if why else "") + (f"; {todo}" if todo else ""))

    def _render_traceback_(self) -> list[str]:
        """Return the lines that IPython shows in a notebook instead of a traceback."""
        return [f"{type(self).__name__}: {self}"]


class UsageError(PeewitError):
    """An invalid option, recipe field or argument.

    Parameters
    ----------
    what, why, todo : str
        See :class:`PeewitError`.
    fields : sequence of str, optional
        Names of the recipe fields that are the subject of the sentence; ``what`` is then only the
        rest of it. The command line replaces the names by those of its flags.

    Examples
    --------
    >>> print(UsageError("are both given", todo="give one of them", fields=["epochs", "minutes"]))
    epochs and minutes are both given; give one of them
    """

    exit_code = 2

    def __init__(
        self, what: str, why: str = "", todo: str = "", *, fields: Sequence[str] = ()
    ) -> None:
        self.fields, self.problem = tuple(fields), what
        super().__init__(f"{' and '.join(fields)} {what}" if fields else what, why, todo)


class Interrupted(PeewitError):  # noqa: N818  (the state of a run, not an error in it)
    """The user stopped the training (Ctrl-C) after everything so far had been saved."""

    exit_code = 130


def reason_of(error: OSError) -> str:
    """Return the operating system's reason for an error, as part of a sentence.

    >>> reason_of(FileNotFoundError(2, "No such file or directory"))
    'no such file or directory'
    """
    return (error.strerror or str(error)).lower()
