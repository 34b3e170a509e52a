"""Text for people: numbers, durations, shell commands, and names that are safe to print."""

from __future__ import annotations

import os
import shlex
import unicodedata
from collections.abc import Iterable

# characters that need quotes in cmd or PowerShell
_SPECIAL_ON_WINDOWS = set(" \t&|<>^()%;,$'`@{}#")
# zero-width joiners, part of words in some languages and of some emoji
_JOINERS = "\u200c\u200d"


def printable(text: str) -> str:
    """Replace control characters and line ends, which could control a terminal, by ``?``.

    Unicode spaces are kept: macOS puts one into the name of each screenshot.

    >>> printable("a\\x1b[31mb\\n")
    'a?[31mb?'
    """
    return "".join(
        character
        if character.isprintable()
        or character in _JOINERS
        or unicodedata.category(character) == "Zs"
        else "?"
        for character in text
    )


def command(words: Iterable[object], system: str = os.name) -> str:
    """Return a command line, quoted as the shells of ``system`` require.

    >>> command(["peewit", "report", "my runs/a"], "posix")
    "peewit report 'my runs/a'"
    >>> command(["peewit", "report", "my runs/a"], "nt")
    'peewit report "my runs/a"'
    """
    typed = [str(word) for word in words]
    if system != "nt":
        return shlex.join(typed)
    return " ".join(f'"{word}"' if set(word) & _SPECIAL_ON_WINDOWS else word for word in typed)


def resuming(path: object) -> str:
    """Return the command that resumes a run.

    >>> resuming("runs/a")
    'peewit train --resume runs/a'
    """
    return command(["peewit", "train", "--resume", path])


def duration(seconds: float) -> str:
    """Return a duration as text.

    >>> duration(0.42), duration(43.2), duration(280.2), duration(7_500)
    ('0.4 s', '43 s', '4 min 40 s', '2 h 5 min')
    """
    whole = round(seconds)
    if whole < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def minutes(number: float) -> str:
    """Return a number of minutes as text, without rounding.

    >>> minutes(1), minutes(0.25), minutes(5.0)
    ('1 minute', '0.25 minutes', '5 minutes')
    """
    return f"{number:g} minute{'' if number == 1 else 's'}"


def rounded(number: float) -> str:
    """Return a number with one decimal, or with none from 10 on.

    >>> rounded(4.87), rounded(0.55), rounded(2.0), rounded(1_234.5)
    ('4.9', '0.6', '2', '1,234')
    """
    return f"{number:,.0f}" if number >= 9.95 else f"{number:.1f}".removesuffix(".0")


def counted(count: float, name: str) -> str:
    """Return a rounded count and its noun, in the plural unless it is 1.

    >>> counted(1, "epoch"), counted(2.31, "epoch"), counted(0, "epoch")
    ('1 epoch', '2.3 epochs', '0 epochs')
    """
    number = rounded(count)
    return f"{number} {name}{'' if number == '1' else 's'}"
