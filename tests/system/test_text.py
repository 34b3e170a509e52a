"""Names from anywhere are safe to print."""

from __future__ import annotations

import pytest

from peewit.system.text import printable


def test_control_characters_and_line_ends_are_replaced() -> None:
    assert printable("Käse 猫 \x1b]0;title\x07\r\n") == "Käse 猫 ?]0;title???"
    # also the one-character escape (CSI), Unicode's line ends, and changes of text direction
    assert printable("a\x9b1mb\u2028c\u2029d\u202egnp") == "a?1mb?c?d?gnp"


@pytest.mark.parametrize(
    "text",
    ["Screenshot 3.45\u202fPM.png", "10\xa0km", "全角\u3000空白", "नि\u200cश", "👩\u200d🔬"],
    ids=["macOS", "no break", "ideographic", "Devanagari", "emoji"],
)
def test_legitimate_names_are_unchanged(text: str) -> None:
    assert printable(text) == text
