"""Files are written whole, in UTF-8, and what cannot be is a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from peewit.errors import PeewitError, UsageError
from peewit.system.files import check_text, write_text

LATIN = "caf\udce9"  # the byte E9, as Python gives names that are not UTF-8


def test_text_is_written_as_it_is_on_every_system(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "größte\n兔\r\n")
    assert (tmp_path / "a").read_bytes() == "größte\n兔\r\n".encode()


def test_text_with_a_name_that_is_not_utf_8_is_refused_and_the_old_file_stays(
    tmp_path: Path,
) -> None:
    file = tmp_path / "run.json"
    file.write_text("old")
    text = f'{{\n  "much": "{"x" * 99}",\n  "name": "{LATIN}"\n}}\n'
    with pytest.raises(PeewitError) as caught:
        write_text(file, text)
    assert str(caught.value) == (
        f'cannot write {file}: a name in it is not in UTF-8: \'  "name": "caf\\udce9"\'; '
        "give what has that name another"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    assert file.read_text() == "old"


def test_a_name_that_is_not_utf_8_is_refused_in_characters_that_any_terminal_has() -> None:
    for name in ("größte", Path("兔")):
        check_text(name)
    for bad in (LATIN, Path(LATIN)):
        with pytest.raises(UsageError, match=r"^'caf\\udce9' is not in UTF-8: .* another name$"):
            check_text(bad)
