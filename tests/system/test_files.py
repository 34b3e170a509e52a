"""Text files are written atomically in UTF-8, and names that are not UTF-8 are rejected."""

from __future__ import annotations

from pathlib import Path

import pytest

from peewit.errors import PeewitError, UsageError
from peewit.system.files import check_text, write_text

LATIN = "caf\udce9"  # the byte E9, as Python decodes file names that are not UTF-8


def test_text_is_written_unchanged_on_every_system(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "größte\n兔\r\n")
    assert (tmp_path / "a").read_bytes() == "größte\n兔\r\n".encode()


def test_text_with_a_name_that_is_not_utf_8_is_rejected_and_the_old_file_stays(
    tmp_path: Path,
) -> None:
    file = tmp_path / "run.json"
    file.write_text("old")
    text = f'{{\n  "much": "{"x" * 99}",\n  "name": "{LATIN}"\n}}\n'
    with pytest.raises(PeewitError) as caught:
        write_text(file, text)
    message = str(caught.value)
    assert message.startswith(f"cannot write {file}: ")
    # the line up to the name, and nothing of the long line before
    assert """ '  "name": "caf\\udce9"'; """ in message
    assert message.isascii()
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    assert file.read_text() == "old"


def test_a_name_that_is_not_utf_8_is_rejected_with_an_ascii_message() -> None:
    for name in ("größte", Path("兔")):
        check_text(name)
    for bad in (LATIN, Path(LATIN)):
        with pytest.raises(UsageError, match=r"^'caf\\udce9' is not in UTF-8: [ -~]*$"):
            check_text(bad)
