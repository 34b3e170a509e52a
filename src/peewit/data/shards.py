"""Data sets as tar archives in WebDataset's layout [1]_: writing them, and listing their pictures.

The files of an example have the same name up to the first dot: ``00000007.jpg`` is the picture,
``00000007.cls`` its class as a number or a name, and ``00000007.json`` other facts. The names of
the classes are in ``shards.json`` beside the archives.

References
----------
.. [1] https://github.com/webdataset/webdataset
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from peewit.data.archives import LARGEST, clean_name, tar_entries
from peewit.data.cifar.archive import BadArchiveError
from peewit.data.dataset import Dataset
from peewit.data.labels import PARTS, LeftOut, class_name, make_listing
from peewit.data.listing import TEST, TRAIN, UNKNOWN, VALIDATION, Listing
from peewit.data.members import DAMAGE, Member, MemberFiles
from peewit.errors import PeewitError, UsageError, reason_of
from peewit.system.files import read_limited
from peewit.system.text import counted

if TYPE_CHECKING:
    from peewit.data.sources import Splits

INDEX = "shards.json"
_LONGEST = 1_000  # bytes of a class name
_LARGEST_INDEX = 1 << 24
_NAMES = {TRAIN: "train", VALIDATION: "validation", TEST: "test"}
# Bytes of a tar archive besides pictures: of the three members of an example, each with a header
# and padding, and of its end
_EXAMPLE, _END = 3 * 1_024, 10_240


@dataclass
class ShardFiles:
    """The pictures of several tar archives.

    Parameters
    ----------
    archives : sequence of MemberFiles
    places : int64 array, shape (N, 2)
        The number of the archive, and that of the picture in it.
    """

    archives: Sequence[MemberFiles]
    places: npt.NDArray[np.int64]

    sequential: ClassVar[bool] = False

    def read(self, number: int) -> bytes:
        """Return the content of a picture; raise PeewitError if it cannot be read."""
        archive, row = map(int, self.places[number])
        return self.archives[archive].read(row)


def tar_files(folder: Path) -> list[Path]:
    """Return the uncompressed tar archives in a folder."""
    return sorted(path for path in folder.glob("*.tar") if path.is_file())


def list_shards(folder: Path, paths: Sequence[Path]) -> Listing:
    """List the pictures of the tar archives in a folder.

    The class of a picture is in its ``.cls`` member, or else the name of its folder in the archive.
    The part is the first folder, or else the beginning of the archive's name: ``train-0001.tar``.

    Raises
    ------
    PeewitError
        An archive is damaged, or the pictures have no classes.
    """
    known = _class_names(folder)
    archives: list[MemberFiles] = []
    names: list[str] = []
    classes: list[str] = []
    places: list[tuple[int, int]] = []
    stamps: list[tuple[int, int]] = []
    parts: list[int] = []
    left_out = LeftOut()
    for path in paths:
        pictures, labels, version = _members(path, left_out)
        kept: list[Member] = []
        for name, member in pictures.items():
            key = _key(name)
            label = labels.get(key) or name.rpartition("/")[0].rpartition("/")[2]
            if not label:
                left_out.add("picture", "without a class", f"{path.name}/{name}")
                continue
            if label.isdecimal() and int(label) < len(known):
                label = known[int(label)]
            names.append(f"{path.name}/{name}")
            classes.append(class_name(label))
            places.append((len(archives), len(kept)))
            stamps.append((member.size, version[1]))
            parts.append(_part(path, name))
            kept.append(member)
        table = np.array(kept, np.int64).reshape(-1, 5)
        own = names[len(names) - len(kept) :]
        archives.append(MemberFiles(path, own, table, version, zipped=False))
    if not names:
        raise PeewitError(
            f"{folder} has no labelled pictures",
            f"its {counted(len(paths), 'tar archive')} have no pictures with a .cls file or in a "
            "folder of their class",
            "see the page Data sources of the documentation",
        )
    return make_listing(
        place=folder,
        names=names,
        classes=classes,
        parts=np.array(parts, np.uint8),
        files=ShardFiles(archives, np.array(places, np.int64)),
        stamps=np.array(stamps, np.int64),
        notes=left_out.notes(),
    )


class Written(NamedTuple):
    """How many shards and pictures were written."""

    shards: int
    pictures: int


def write_shards(
    splits: Splits, out: Path, size: int, advance: Callable[[], None], seed: int = 0
) -> Written:
    """Write the pictures of a source to tar archives in the new folder ``out``.

    They are shuffled, so that every archive is a sample of the whole. Picture files are copied as
    they are; images in arrays become PNG files. The same source gives the same bytes.

    Parameters
    ----------
    splits : Splits
        As ``load`` returns them.
    out : Path
        A folder that does not exist yet: it has all shards, or it is not there.
    size : int
        The most bytes in an archive, unless a single picture is larger.
    advance : callable
        Called after each picture.
    seed : int
        Of the shuffling.

    Raises
    ------
    UsageError
        ``out`` exists.
    PeewitError
        A picture cannot be read, or a file cannot be written.
    """
    if out.exists():
        raise UsageError(f"{out} exists already", todo="choose another folder")
    classes = splits.train.class_names
    rows = _rows(splits)
    np.random.default_rng(seed).shuffle(rows)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as made:
            folder = Path(made, "shards")
            folder.mkdir()
            index: list[dict[str, object]] = []
            tar: tarfile.TarFile | None = None
            count = 0
            for number, (part, dataset, row) in enumerate(rows):
                name, suffix, content = _picture(dataset, row)
                if tar is None or tar.offset + len(content) + _EXAMPLE + _END > size:
                    _close(tar, index, count)
                    tar, count = tarfile.open(folder / f"{len(index):06}.tar", "w"), 0  # noqa: SIM115
                label = int(dataset.labels[row])
                key = f"{_NAMES[part]}/{number:08}"
                _add(tar, f"{key}{suffix}", content)
                _add(tar, f"{key}.cls", str(label).encode())
                facts = {"name": name, "class": classes[label]}
                _add(tar, f"{key}.json", json.dumps(facts, ensure_ascii=False).encode())
                count += 1
                advance()
            _close(tar, index, count)
            known = {"classes": list(classes), "shards": index}
            text = json.dumps(known, indent=1, ensure_ascii=False)
            (folder / INDEX).write_text(text + "\n", encoding="utf-8")
            folder.rename(out)
    except OSError as error:
        raise PeewitError(
            f"cannot write {out}", reason_of(error), "free some space, or choose another folder"
        ) from error
    return Written(len(index), len(rows))


def _rows(splits: Splits) -> list[tuple[int, Dataset, int]]:
    """Return part, data set and number of each picture."""
    rows = []
    for part, dataset in ((TRAIN, splits.train), (TEST, splits.test)):
        if dataset is None:
            continue
        held = dataset.validation
        for row in range(len(dataset)):
            validation = held is not None and bool(held[row])
            rows.append((VALIDATION if validation else part, dataset, row))
    return rows


def _picture(dataset: Dataset, row: int) -> tuple[str, str, bytes]:
    """Return the name, the suffix and the content of a picture."""
    from peewit.data.pictures import files_of

    files = files_of(dataset.images)
    if files is not None:
        listing, number = files[0].listing, int(files[1][row])
        name = str(listing.names[number])
        return name, Path(name).suffix.lower() or ".img", listing.files.read(number)
    from PIL import Image

    pixels = np.asarray(dataset.images[row])
    file = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG")
    return str(row), ".png", file.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _close(tar: tarfile.TarFile | None, index: list[dict[str, object]], count: int) -> None:
    """Close a shard, and add it to the index."""
    if tar is None:
        return
    tar.close()
    path = Path(os.fsdecode(tar.name or ""))
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    index.append({"file": path.name, "pictures": count, "sha256": checksum})


def _class_names(folder: Path) -> list[str]:
    """Return the class names in ``shards.json``; none without that file."""
    path = folder / INDEX
    if not path.is_file():
        return []
    try:
        names = json.loads(read_limited(path, _LARGEST_INDEX))["classes"]
        if not all(isinstance(name, str) for name in names):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadArchiveError(f"cannot read {path}", "it is damaged", "write it again") from error
    return list(names)


def _members(
    path: Path, left_out: LeftOut
) -> tuple[dict[str, Member], dict[str, str], tuple[int, int]]:
    """Return the pictures of an archive, the classes by key, and its size and time."""
    from peewit.images.reader import SUFFIXES  # Pillow, which `peewit --help` does without

    pictures: dict[str, Member] = {}
    labels: dict[str, str] = {}
    try:
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            for entry in tar_entries(path, file, "r:"):
                name = clean_name(path, entry.name)
                if entry.kind != "file":
                    continue
                if name.endswith(".cls"):
                    labels[_key(name)] = entry.start(_LONGEST).decode("utf-8", "replace").strip()
                elif Path(name).suffix.lower() in (*SUFFIXES, ".img"):
                    if entry.member.size > LARGEST:
                        left_out.add("picture", f"of more than {LARGEST:,} bytes", name)
                    else:
                        pictures[name] = entry.member
    except (*DAMAGE, tarfile.TarError) as error:
        reason = reason_of(error) if isinstance(error, OSError) and error.strerror else ""
        raise BadArchiveError(
            f"cannot read {path}", reason or "it is damaged", "download or copy it again"
        ) from error
    return pictures, labels, (state.st_size, state.st_mtime_ns)


def _key(name: str) -> str:
    """Return what the members of an example have in common.

    >>> _key("train/0007.seg.png")
    'train/0007'
    """
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _part(path: Path, name: str) -> int:
    """Return the part that a picture belongs to, by its folder or by the name of its archive."""
    first = name.partition("/")[0].lower()
    return PARTS.get(first, PARTS.get(re.split(r"[-_.]", path.name)[0].lower(), UNKNOWN))
