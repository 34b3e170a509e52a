"""What can go wrong, in words for the person in front of the screen."""

from __future__ import annotations


class PeewitError(Exception):
    """A failure that the user can understand and mend.

    Parameters
    ----------
    what : str
        What happened, naming the file, option or value at fault. No full stop.
    why : str, optional
        The reason, where it is known and not plain from ``what``.
    todo : str, optional
        What to do next, as an instruction.

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
        """Return what a notebook shows instead of a traceback: IPython asks for this."""
        return [f"{type(self).__name__}: {self}"]


class UsageError(PeewitError):
    """A value that was given (an option, a recipe field, an argument) makes no sense."""

    exit_code = 2


class Interrupted(PeewitError):  # noqa: N818  (it reads as a state, and is no bug)
    """The user asked to stop (Ctrl-C); everything done so far has been saved."""

    exit_code = 130


def reason_of(error: OSError) -> str:
    """Return why the system refused, for the middle of a sentence.

    >>> reason_of(FileNotFoundError(2, "No such file or directory"))
    'no such file or directory'
    """
    return (error.strerror or str(error)).lower()
