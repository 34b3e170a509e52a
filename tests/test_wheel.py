"""The wheel and the source archive: what they contain, and that the wheel works on its own."""

from __future__ import annotations

import re
import shutil
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import NamedTuple

import build_wheel
import check_wheel
import pytest

import peewit

ROOT = build_wheel.ROOT
SOURCE = ROOT / "src" / "peewit"
# compiled into the kernels; the wheel does without them
C_SOURCES = {path.relative_to(SOURCE.parent).as_posix() for path in SOURCE.rglob("*.[ch]")}
COMPILED = any(map(shutil.which, check_wheel.COMPILERS))


class Built(NamedTuple):
    """The source archive, the wheel, and their contents relative to ``src``."""

    archive: Path
    wheel: Path
    archived: set[str]
    packed: set[str]
    metadata: Message


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build both from this source tree."""
    archive, wheel = build_wheel.build(ROOT, tmp_path_factory.mktemp("dist"))
    with tarfile.open(archive) as tar:
        archived = {entry.name.partition("/")[2] for entry in tar if entry.isfile()}
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
        (record,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(file.read(record).decode())
    packed = {name for name in names if ".dist-info/" not in name}
    return Built(archive, wheel, archived, packed, metadata)


def package_files() -> set[str]:
    """Return the files of the package as its source tree has them, without anything built."""
    return {
        path.relative_to(SOURCE.parent).as_posix()
        for path in SOURCE.rglob("*")
        if path.is_file()
        and path.suffix not in (".so", ".pyd", ".pyc")
        and not path.name.startswith(".")
    }


def test_the_wheel_has_the_whole_package_and_nothing_else(built: Built) -> None:
    kernels = set(build_wheel.kernels(built.wheel))
    assert built.packed - kernels == package_files() - C_SOURCES
    if COMPILED:
        (library,) = kernels
        assert library.startswith("peewit/kernels/native.")


def test_the_source_archive_has_all_that_a_build_needs(built: Built) -> None:
    assert {name.removeprefix("src/") for name in built.archived} >= package_files()
    assert {name for name in built.archived if "/" not in name} == {
        "LICENSE",
        "PKG-INFO",
        "README.md",
        "pyproject.toml",
        "setup.cfg",  # written by setuptools
        "setup.py",
    }


def test_metadata(built: Built) -> None:
    metadata = built.metadata
    assert metadata["Name"] == "peewit"
    assert metadata["Version"] == peewit.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_every_extra_that_is_named_somewhere_exists(built: Built) -> None:
    named: set[str] = set()
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *SOURCE.rglob("*.py")]
    for path in pages:
        for extras in re.findall(r"(?:peewit|\.)\[([a-z0-9,-]+)\]['\"`]", path.read_text("utf-8")):
            named |= set(extras.split(","))
    assert {"digits", "serve"} <= named
    assert named <= set(built.metadata.get_all("Provides-Extra", []))


def test_the_wheel_trains_predicts_and_serves_in_a_fresh_environment(
    built: Built, tmp_path: Path
) -> None:
    environment = check_wheel.Environment(tmp_path / "environment")
    environment.pip("--no-deps", "--no-index", str(built.wheel))
    # The dependencies are those of the environment that runs the tests. A folder named in a .pth
    # file is searched after the environment's own, and .pth files in it are not read, so that an
    # editable installation of Peewit there is out of reach.
    (packages,) = environment.folder.rglob("site-packages")
    others = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (packages / "dependencies.pth").write_text("\n".join(others))
    workdir = tmp_path / "workdir"
    workdir.mkdir()
    check_wheel.check(environment, workdir, compiled=COMPILED)
