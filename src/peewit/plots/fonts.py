"""Fonts for names in any script: which installed fonts have the characters, and what if none has.

matplotlib includes DejaVu Sans, which has Latin, Greek, Cyrillic, Arabic and Hebrew letters, but no
Chinese, Japanese, Korean, Indic or Thai characters and few emoji.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from matplotlib import font_manager, ft2font

from peewit.system.text import printable

# The font that matplotlib includes, so that every machine draws the same picture
DEFAULT = "DejaVu Sans"
# Since 3.11 matplotlib orders right-to-left text and joins letters (with the library raqm)
SHAPES_TEXT = hasattr(ft2font, "__libraqm_version__")
# Fonts of boxes or blanks for every character, and of colours, which matplotlib cannot draw
UNUSABLE = ("LastResort", "Last Resort", "Blank", "Color")
# First words of the Unicode names of characters that the fonts for Chinese have, too
CJK = frozenset({"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC", "FULLWIDTH"})
# Names in an advice
SHOWN = 3


def legible(names: Sequence[str], kind: str = "class") -> list[str]:
    """Return ``names`` as they are drawn.

    A name of which no installed font has all characters becomes its number, counted from 0. Letters
    and accents are combined, because fonts lack most of the separate accents (file names on macOS).

    >>> legible(["$x$", "cafe\\u0301", "a\\nb"])
    ['$x$', 'café', 'a?b']
    """
    return [
        _clean(name) if _is_drawable(name) else f"{kind} {number}"
        for number, name in enumerate(names)
    ]


def title(text: str) -> str:
    """Return ``text`` with ``?`` for characters that no installed font has.

    For titles, which may contain paths.
    """
    missing = _missing(text)
    return "".join("?" if one in missing else one for one in _clean(text))


def families(texts: Iterable[str]) -> list[str]:
    """Return the font families that have the characters of ``texts``, the default first.

    >>> families(["cat", "Bär"])
    ['DejaVu Sans']
    """
    return [DEFAULT, *_fallbacks(_unusual("".join(texts)))[0]]


def advice(names: Sequence[str], kind: str = "class") -> str:
    """Return a sentence about the names that cannot be drawn: which, and which font to install.

    Empty if there are none.
    """
    without = [name for name in names if not _is_drawable(name)]
    if not without:
        return ""
    listed = ", ".join(map(printable, without[:SHOWN]))
    if len(without) > SHOWN:
        listed += f" and {len(without) - SHOWN} more"
    fonts = sorted({_font_for(one) for name in without for one in _missing(name)})
    todo = f"install {', '.join(fonts)}" if fonts else "upgrade matplotlib to 3.11 or later"
    return (
        f"matplotlib cannot draw the {kind} names {listed} with the installed fonts, so the "
        f"pictures show their numbers, counted from 0 ({todo})"
    )


def _is_drawable(name: str) -> bool:
    return not _missing(name) and (SHAPES_TEXT or not any(map(_needs_shaping, name)))


def _missing(name: str) -> frozenset[str]:
    """Return the characters that no installed font has."""
    return _fallbacks(_unusual(_clean(name)))[1]


def _clean(text: str) -> str:
    # without variation selectors, which choose between forms that the fonts do not have
    kept = (one for one in unicodedata.normalize("NFC", text) if not "\ufe00" <= one <= "\ufe0f")
    return printable("".join(kept))


def _unusual(text: str) -> frozenset[str]:
    """Return the characters that the default font lacks."""
    font = font_manager.get_font(font_manager.findfont(DEFAULT))
    return frozenset(
        one
        for one in set(text)
        # line ends, joiners and other format characters are invisible
        if unicodedata.category(one) not in ("Cc", "Cf") and not font.get_char_index(ord(one))
    )


@lru_cache(maxsize=256)
def _fallbacks(characters: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return families that have ``characters``, and the characters that none has."""
    chosen: list[str] = []
    missing = characters
    if not missing:
        return (), missing
    for path, family in _candidates():
        try:
            font = font_manager.get_font(path)
            usable = font.scalable  # bitmaps have fixed sizes
        except (OSError, RuntimeError):  # a damaged font
            continue
        found = {one for one in missing if font.get_char_index(ord(one))} if usable else set()
        if found:
            chosen.append(family)
            missing -= found
        if not missing:
            break
    return tuple(chosen), missing


@lru_cache(maxsize=1)
def _candidates() -> list[tuple[str, str]]:
    """Return paths and families of the installed upright fonts, sans serif first."""
    manager = font_manager.fontManager
    # matplotlib keeps its list in a file, which lacks fonts that were installed since
    known = {Path(entry.fname) for entry in manager.ttflist}
    for path in map(Path, font_manager.findSystemFonts()):
        if path not in known and not any(word in path.name for word in UNUSABLE):
            try:
                manager.addfont(path)
            except (OSError, RuntimeError, ValueError):  # a damaged font
                continue
    entries = [
        (str(entry.fname), entry.name)
        for entry in manager.ttflist
        if entry.style == "normal"
        and entry.weight in (400, "normal", "regular", "book")
        and not any(word in entry.name for word in UNUSABLE)
    ]
    # SC: the Chinese variant of a family that has one for each country
    return sorted(
        set(entries),
        key=lambda one: ("Serif" in one[1], "Mono" in one[1], not one[1].endswith(" SC"), one[1]),
    )


def _needs_shaping(character: str) -> bool:
    """Return whether a character is written right to left, or joined with others."""
    return (
        unicodedata.bidirectional(character) in ("R", "AL")
        or 0x0900 <= ord(character) < 0x0E00  # the Indic scripts
    )


def _font_for(character: str) -> str:
    """Return the name of a font that has the character.

    >>> [_font_for(one) for one in "猫かकไ🐈"]  # doctest: +NORMALIZE_WHITESPACE
    ['Noto Sans CJK', 'Noto Sans CJK', 'Noto Sans Devanagari', 'Noto Sans Thai', 'Noto Emoji']
    """
    script = unicodedata.name(character, "").replace("-", " ").split(" ")[0]
    if script in CJK:
        return "Noto Sans CJK"
    if unicodedata.category(character) == "So":
        return "Noto Emoji"
    return f"Noto Sans {script.title()}".rstrip()
