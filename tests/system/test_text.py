"""What is said of names that anybody may have chosen."""

from __future__ import annotations

import pytest

from peewit.system.text import printable


def test_what_steers_a_terminal_or_ends_a_line_is_made_visible() -> None:
    assert printable("Käse 猫 \x1b]0;title\x07\r\n") == "Käse 猫 ?]0;title???"
    # the one character that begins a sequence too, Unicode's ends of lines, and turned directions
    assert printable("a\x9b1mb\u2028c\u2029d\u202egnp") == "a?1mb?c?d?gnp"


@pytest.mark.parametrize(
    "text",
    ["Screenshot 3.45\u202fPM.png", "10\xa0km", "全角\u3000空白", "नि\u200cश", "👩\u200d🔬"],
    ids=["macOS", "no break", "ideographic", "Devanagari", "emoji"],
)
def test_legitimate_names_stay_as_they_are(text: str) -> None:
    assert printable(text) == text
