"""Keras 3's ``.keras`` file: a zip of configuration and weights. Nothing of it is unpacked."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from peewit.errors import PeewitError
from peewit.importing import keras_h5
from peewit.importing.keras_config import THIS_MODEL, Layer, broken
from peewit.importing.keras_h5 import Array
from peewit.system.files import cannot_read

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
# what is read of each into memory, whatever it says of itself
LARGEST = {CONFIG: 16 * 2**20, WEIGHTS: 2**30}


def read_archive(path: Path) -> tuple[bytes, bytes]:
    """Return the configuration and the HDF5 file of the weights.

    Raises
    ------
    PeewitError
        It is no such archive, it is damaged, or it would fill the memory.
    """
    try:
        with zipfile.ZipFile(path) as file:
            for name in file.namelist():
                if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name):
                    raise broken(f"it has a member {name!r}, which points outside")
            return _member(file, CONFIG), _member(file, WEIGHTS)
    except OSError as error:
        raise cannot_read(path, error) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        # RuntimeError is zipfile's for members that are encrypted, ValueError for names that are
        # not in the encoding that they say
        raise broken("it is not a whole .keras archive") from error


def _member(file: zipfile.ZipFile, name: str) -> bytes:
    if file.namelist().count(name) != 1:
        raise broken(f"it is a zip archive without one {name}")
    if file.getinfo(name).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise broken(f"its {name} is not packed as Keras does it")
    with file.open(name) as stream:
        content = stream.read(LARGEST[name] + 1)
    if len(content) > LARGEST[name]:
        raise PeewitError(THIS_MODEL, f"its {name} unpacks to more than {LARGEST[name] >> 20} MB")
    return content


def archive_arrays(weights: bytes, layers: Sequence[Layer]) -> list[Array]:
    """Read all weights in Keras's order.

    The groups are named after classes, not after the names of layers: ``layers/conv2d_1/vars/0``
    is the first array of the second Conv2D.
    """
    counts: Counter[str] = Counter()
    found: list[Array] = []
    with keras_h5.opened(weights) as file:
        # Keras 2.12 called it by another name
        top = "layers" if "layers" in file else "_layer_checkpoint_dependencies"
        for layer in layers:
            kind = _snake_case(layer.kind)
            number = counts[kind]
            counts[kind] += 1
            name = f"{top}/{kind}{f'_{number}' if number else ''}"
            for index, shape in enumerate(layer.weights.values()):
                found.append(keras_h5.array(file, f"{name}/vars/{index}", shape))
    return found


def _snake_case(name: str) -> str:
    """Name a class as Keras does.

    >>> [_snake_case(name) for name in ("Conv2D", "BatchNormalization", "MaxPooling2D", "ReLU")]
    ['conv2d', 'batch_normalization', 'max_pooling2d', 're_lu']
    """
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
