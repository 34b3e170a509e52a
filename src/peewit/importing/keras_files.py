"""Read Keras's ``.h5`` and ``.keras`` files. Links out of a file are not followed.

A ``.keras`` file is a zip archive with the configuration and an HDF5 file of the weights, both read
into memory; nothing is unpacked to disk. Sizes in the files are not trusted.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from peewit.errors import PeewitError
from peewit.importing.architecture import (
    MAX_CONFIG,
    THIS_MODEL,
    Architecture,
    Array,
    Layer,
    Shape,
    damaged,
    read_architecture,
    unsupported,
)
from peewit.system.files import cannot_read

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
MAX_SIZE = {CONFIG: MAX_CONFIG, WEIGHTS: 2**30}


def read_h5(path: Path) -> tuple[Architecture, list[Array]]:
    """Read the architecture and all weights, in Keras's order, of a ``.h5`` file.

    Raises
    ------
    PeewitError
        It is damaged, has weights only, or contains an unsupported layer.
    """
    with _open_hdf5(path) as file:
        architecture = read_architecture(_model_config(file))
        with_weights = [layer for layer in architecture.layers if layer.weights]
        return architecture, [array for layer in with_weights for array in _h5_arrays(file, layer)]


def read_archive(path: Path) -> tuple[Architecture, list[Array]]:
    """Read the architecture and all weights, in Keras's order, of a ``.keras`` file.

    Raises
    ------
    PeewitError
        It is not a valid archive, too large, or contains an unsupported layer.
    """
    config, weights = _archive_members(path)
    architecture = read_architecture(config)
    return architecture, _archive_arrays(weights, architecture.layers)


@contextmanager
def _open_hdf5(source: Path | bytes) -> Iterator[Any]:
    """Open an HDF5 file, or the content of one.

    Raises
    ------
    PeewitError
        It cannot be read, it is not HDF5, or h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise PeewitError(
            "reading a Keras model needs h5py", "", "install it with: pip install 'peewit[keras]'"
        ) from error
    try:
        with h5py.File(source if isinstance(source, Path) else io.BytesIO(source), "r") as file:
            yield file
    except OSError as error:
        # errors of the operating system have a number, those of the HDF5 library have none
        if isinstance(source, Path) and error.errno:
            raise cannot_read(source, error) from error
        raise damaged("it is not a complete HDF5 file") from error
    except (KeyError, ValueError, RuntimeError, TypeError, UnicodeDecodeError) as error:
        raise damaged("its HDF5 structures are damaged") from error


def _model_config(file: Any) -> str:
    """Return the JSON configuration that ``model.save("x.h5")`` stores in an attribute."""
    config = file.attrs.get("model_config")
    if config is None:
        raise PeewitError(
            THIS_MODEL, "the file has weights only", "save the whole model with model.save"
        )
    return config.decode() if isinstance(config, bytes) else str(config)


def _h5_arrays(file: Any, layer: Layer) -> list[Array]:
    """Read a layer's weights as ``model.save("x.h5")`` stores them, in Keras's order."""
    group = _follow(_follow(file, "model_weights"), layer.name)
    # names such as dense/kernel:0, which are paths inside the group
    names = [_decode(name) for name in group.attrs["weight_names"]]
    if [name.rpartition("/")[2].partition(":")[0] for name in names] != list(layer.weights):
        raise damaged(f"its layer {layer.name} has the weights {names}")
    return [
        _array(group, name, shape)
        for name, shape in zip(names, layer.weights.values(), strict=True)
    ]


def _array(group: Any, path: str, shape: Shape) -> Array:
    """Read one array of a known shape.

    Raises
    ------
    PeewitError
        It is missing, has another shape, is not floating-point, or is stored outside the file.
    """
    import h5py

    found = _follow(group, path)
    if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external:
        raise damaged(f"its {path} is not an array in the file")
    if found.shape != shape or found.dtype.kind != "f":
        raise damaged(f"its {path} is {found.dtype} {found.shape}, not floats of shape {shape}")
    values = np.asarray(found[...], np.float32)
    if not np.isfinite(values).all():
        raise damaged(f"its {path} has values that are not finite")
    return values


def _follow(group: Any, path: str) -> Any:
    """Return the object at ``path``; links, which may lead to other files, are refused."""
    import h5py

    for part in path.split("/"):
        if not isinstance(group, h5py.Group) or part not in group:
            raise damaged(f"it has no {path}")
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise damaged(f"its {path} is a soft or external link")
        group = group[part]
    return group


def _decode(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _archive_members(path: Path) -> tuple[bytes, bytes]:
    """Return the configuration and the HDF5 file of the weights in a ``.keras`` file."""
    try:
        with zipfile.ZipFile(path) as file:
            for name in file.namelist():
                if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name):
                    raise damaged(f"its member {name!r} points outside the archive")
            return _member(file, CONFIG), _member(file, WEIGHTS)
    except OSError as error:
        raise cannot_read(path, error) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        # zipfile raises RuntimeError for encrypted members, and ValueError for names that are not
        # in the declared encoding
        raise damaged("it is not a complete .keras archive") from error


def _member(file: zipfile.ZipFile, name: str) -> bytes:
    if file.namelist().count(name) != 1:
        raise damaged(f"it is a zip archive without exactly one {name}")
    if file.getinfo(name).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise damaged(f"its {name} is compressed in a way that Keras does not use")
    with file.open(name) as stream:
        content = stream.read(MAX_SIZE[name] + 1)
    if len(content) > MAX_SIZE[name]:
        raise unsupported(f"its {name} unpacks to more than {MAX_SIZE[name] >> 20} MB")
    return content


def _archive_arrays(weights: bytes, layers: Sequence[Layer]) -> list[Array]:
    """Read all weights of a ``.keras`` file in Keras's order.

    Its groups are named after the layers' classes, not after the layers: ``layers/conv2d_1/vars/0``
    is the first array of the second Conv2D.
    """
    counts: Counter[str] = Counter()
    arrays: list[Array] = []
    with _open_hdf5(weights) as file:
        # the second name is that of Keras 2.12
        top = "layers" if "layers" in file else "_layer_checkpoint_dependencies"
        for layer in layers:
            kind = _snake_case(layer.kind)
            number = counts[kind]
            counts[kind] += 1
            name = f"{top}/{kind}{f'_{number}' if number else ''}"
            for index, shape in enumerate(layer.weights.values()):
                arrays.append(_array(file, f"{name}/vars/{index}", shape))
    return arrays


def _snake_case(name: str) -> str:
    """Convert a class name as Keras does.

    >>> [_snake_case(name) for name in ("Conv2D", "BatchNormalization", "MaxPooling2D", "ReLU")]
    ['conv2d', 'batch_normalization', 'max_pooling2d', 're_lu']
    """
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
