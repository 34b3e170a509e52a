"""Files and folders that are not CIFAR archives: what they are, and what to do instead."""

from __future__ import annotations

import bz2
import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from peewit.data.cifar.archive import BadArchiveError
from peewit.data.cifar.layouts import Layout
from peewit.data.sources import load

Files = Callable[..., dict[str, bytes]]
Form = Callable[..., Layout]
Write = Callable[[Path, dict[str, bytes], str], Path]

PICTURES = {"cat/1.png": b"x", "cat/2.JPG": b"x", "dog/3.png": b"x"}


def refused(path: Path, source: str | None = None) -> str:
    with pytest.raises(BadArchiveError) as caught:
        load(source, data=path) if source else load(str(path))
    message = str(caught.value)
    assert message.isprintable()
    assert "download it again" not in message
    return message


def extracted(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("form_name", ["python", "binary"])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_one_file_of_a_data_set(
    name: str, form_name: str, form: Form, make_files: Files, tmp_path: Path
) -> None:
    layout = form(name, form_name)
    folder = extracted(tmp_path / "folder", make_files(layout))
    alone = tmp_path / "alone"
    alone.mkdir()
    for file in layout.batches:
        assert refused(folder / file) == (
            f"cannot read {folder / file}: it is only one of the {len(layout.files)} files of "
            f"{layout.title}; use its folder, {folder}"
        )
        copy = alone / file
        copy.write_bytes((folder / file).read_bytes())
        message = refused(copy)
        copy.unlink()
        missing = ", ".join(other for other in layout.files if other != file)
        assert message.endswith(
            f"and its folder lacks {missing}; put all of them into one folder and use that folder"
        )


def test_pictures_in_a_folder_or_an_archive(make_archive: Write, tmp_path: Path) -> None:
    folder = extracted(tmp_path / "pets", PICTURES)
    with tarfile.open(tmp_path / "pets.tar", "w") as tar:
        tar.add(folder, "pets")
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for name in PICTURES:
            archive.write(folder / name, f"pets/{name}")
    compressed = make_archive(tmp_path / "pets.tar.gz", PICTURES, "pets")
    for path in (folder, folder / "dog", *tmp_path.glob("pets.*")):
        message = refused(path, "cifar10")
        assert message.startswith(f"{path} does not contain CIFAR-10 or CIFAR-100: it has pictures")
        assert message.endswith(f"use {path} as the source, without the name of another")
    assert "(pets/cat/1.png)" in refused(compressed, "cifar10")


def test_more_pictures_than_a_cifar_archive_has_files_or_bytes(
    make_archive: Write, tmp_path: Path
) -> None:
    many = {f"cat/{number}.png": b"x" for number in range(1100)}
    large = {"cat/1.png": bytes(8_000_000), "cat/2.png": b""}
    for files in (many, large):
        path = make_archive(tmp_path / "a.tar.gz", files, "pets")
        assert "it has pictures" in refused(path, "cifar10")


def test_cifar_in_another_kind_of_archive(form: Form, make_files: Files, tmp_path: Path) -> None:
    files = make_files(form("cifar10"))
    zipped, plain = tmp_path / "cifar.zip", io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive, tarfile.open(fileobj=plain, mode="w") as tar:
        for name, content in files.items():
            archive.writestr(f"cifar-10-batches-py/{name}", content)
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    (tmp_path / "cifar.tar").write_bytes(plain.getvalue())
    (tmp_path / "cifar.tar.bz2").write_bytes(bz2.compress(plain.getvalue()))
    for name, kind in (
        ("cifar.zip", "a zip archive"),
        ("cifar.tar", "an uncompressed tar file"),
        ("cifar.tar.bz2", "compressed with bzip2"),
    ):
        assert refused(tmp_path / name) == (
            f"cannot read {tmp_path / name}: it is {kind}; extract it and use the folder instead"
        )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            gzip.compress(b"hello " * 500),
            "a single compressed file, not a .tar.gz archive; use the",
        ),
        (gzip.compress(b"\x80\x02}" * 500), "a single compressed file, not a .tar.gz archive; use"),
        (
            b"MATLAB 5.0 MAT-file" + bytes(500),
            "a MATLAB file; use the python or the binary version",
        ),
        (b"\x89PNG\r\n\x1a\n", "a picture; use an archive or a folder of CIFAR-10"),
        (b"\x89HDF\r\n", "an HDF5 file; use an archive or a folder of CIFAR-10 or CIFAR-100"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer; fetch the file with"),
        (b"PK\x03\x04" + bytes(100), "damaged or incomplete"),
    ],
)
def test_other_files(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(content)
    assert f": it is {said}" in refused(path)


def test_a_compressed_error_page(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(b"<!doctype html><title>503</title>" * 100))
    with pytest.raises(BadArchiveError, match=r"a compressed web page.*; download it again"):
        load(str(path))


def test_the_matlab_version(make_archive: Write, tmp_path: Path) -> None:
    files = {f"data_batch_{number}.mat": b"MATLAB" for number in (1, 2)}
    archive = make_archive(tmp_path / "a.tar.gz", files, "cifar-10-batches-mat")
    for path in (extracted(tmp_path / "m", files), archive):
        assert "MATLAB files (" in refused(path)
        assert refused(path).endswith("cannot be read; use the python or the binary version")


def test_a_folder_above_the_data(form: Form, make_files: Files, tmp_path: Path) -> None:
    inner = extracted(tmp_path / "a" / "b" / "mine", make_files(form("cifar100")))
    for path in (tmp_path / "a" / "b", tmp_path / "a", tmp_path):
        assert refused(path).endswith(f"there are files of CIFAR-100 further down; use {inner}")
    assert len(load(str(inner)).train) == 20


def test_a_folder_with_a_download(cifar10: Path, tmp_path: Path) -> None:
    assert refused(tmp_path).endswith(f"another archive, {cifar10.name}; use {cifar10}")
    cifar10.rename(tmp_path / "x.tar.gz.crdownload")
    assert refused(tmp_path).endswith(
        "an incomplete download, x.tar.gz.crdownload; finish or repeat that download"
    )


def test_names_cannot_change_the_terminal(make_archive: Write, tmp_path: Path) -> None:
    name = "\x1b]0;title\x07" + "y" * 300 + "\n.png"
    archive = make_archive(tmp_path / "a.tar.gz", {name: b"x"}, "d")
    message = refused(archive, "cifar10")
    assert len(message) < 400 + len(str(tmp_path))


def test_an_empty_folder_and_a_loop_of_links(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "it is empty: it has neither pictures nor their files (batches.meta, " in refused(empty)
    (empty / "loop").symlink_to(tmp_path)
    assert "it has neither pictures nor their files (batches.meta, " in refused(empty)
