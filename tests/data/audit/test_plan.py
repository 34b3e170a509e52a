"""A plan is checked as a whole, and carried out into a new folder as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from peewit.data import listing_of
from peewit.data.audit import check
from peewit.data.audit.plan import apply_plan, read_plan, write_plan
from peewit.data.listing import Listing
from peewit.errors import PeewitError, UsageError


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for part, name, number in (
        ("train", "cat", 1),
        ("train", "cat", 2),
        ("train", "dog", 1),
        ("train", "dog", 5),
        ("test", "cat", 1),
        ("test", "dog", 3),
    ):
        folder = tmp_path / "pets" / part / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (40, 40), 20 * number + len(part)).save(folder / f"{number}.png")
    return tmp_path / "pets"


def listed(folder: Path) -> Listing:
    listing = listing_of(folder)
    assert listing is not None
    return listing


def plan(folder: Path, *lines: str) -> Path:
    path = folder / "plan.csv"
    path.write_text("\n".join(["file,finding,action", *lines, ""]))
    return path


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def test_all_actions(pets: Path, tmp_path: Path) -> None:
    before = {name: (pets / name).read_bytes() for name in files(pets)}
    path = plan(
        tmp_path,
        "train/cat/1.png,identical,relabel dog",
        "train/cat/2.png,dark,rename second.png",
        "test/cat/1.png,tiny,remove",
        "train/cat/2.png,dark,keep",
    )
    listing = listed(pets)
    assert apply_plan(read_plan(path, listing), listing, tmp_path / "out") == 5
    assert files(tmp_path / "out") == [
        "test/dog/3.png",
        "train/cat/second.png",
        "train/dog/1-2.png",  # 1.png is there already
        "train/dog/1.png",
        "train/dog/5.png",
    ]
    assert (tmp_path / "out/train/cat/second.png").read_bytes() == before["train/cat/2.png"]
    assert {name: (pets / name).read_bytes() for name in files(pets)} == before


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["train/cat/9.png,x,remove"], "no such picture"),
        (["train/cat/1.png,x,delete"], "it must be keep, remove"),
        (["train/cat/1.png,x,relabel ../../up"], "it must be keep, remove"),
        (["train/cat/1.png,x,rename a/b.png"], "it must be keep, remove"),
        (["train/cat/1.png,x,relabel"], "it must be keep, remove"),
        (["train/cat/1.png,x,relabel dog", "train/cat/1.png,x,relabel cat"], "contradicts"),
    ],
)
def test_a_wrong_line_is_named(pets: Path, tmp_path: Path, lines: list[str], said: str) -> None:
    path = plan(tmp_path, *lines)
    with pytest.raises(PeewitError, match=said) as caught:
        read_plan(path, listed(pets))
    assert f"line {len(lines) + 1} of" in str(caught.value)


def test_other_files_are_no_plans(pets: Path, tmp_path: Path) -> None:
    for content in (b"", b"a,b\n1,2\n", b"\xff\xfe\x00"):
        (tmp_path / "x.csv").write_bytes(content)
        with pytest.raises(PeewitError, match="is not"):
            read_plan(tmp_path / "x.csv", listed(pets))


def test_nothing_is_overwritten_or_half_written(pets: Path, tmp_path: Path) -> None:
    listing = listed(pets)
    changes = read_plan(plan(tmp_path), listing)
    with pytest.raises(UsageError, match="is taken"):
        apply_plan(changes, listing, pets)
    (pets / "test/dog/3.png").unlink()
    with pytest.raises(PeewitError, match="no such file"):
        apply_plan(changes, listing, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pets", "plan.csv"]


def test_the_proposed_plan_leaves_nothing_identical(pets: Path, tmp_path: Path) -> None:
    copy = Image.open(pets / "train/cat/1.png")
    copy.save(pets / "train/cat/3.png")
    copy.save(pets / "test/dog/4.png")
    listing = listed(pets)
    write_plan(check(listing), tmp_path / "plan.csv")
    apply_plan(read_plan(tmp_path / "plan.csv", listing), listing, tmp_path / "out")
    counts = check(listed(tmp_path / "out")).counts
    assert not [kind for kind in counts if kind.startswith("identical")]
