"""The arrays in Keras's HDF5 files. Nothing outside the file is followed, no size is believed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from peewit.errors import PeewitError
from peewit.importing.keras_config import THIS_MODEL, Layer, Shape, broken
from peewit.system.files import cannot_read

Array = npt.NDArray[np.float32]


@contextmanager
def opened(source: Path | bytes) -> Iterator[Any]:
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
            "reading a Keras model needs h5py", "", "pip install 'peewit[keras]'"
        ) from error
    try:
        with h5py.File(source if isinstance(source, Path) else io.BytesIO(source), "r") as file:
            yield file
    except OSError as error:
        # the system's reasons have a number, those of the HDF5 library have none
        if isinstance(source, Path) and error.errno:
            raise cannot_read(source, error) from error
        raise broken("it is not a whole HDF5 file") from error
    except (KeyError, ValueError, RuntimeError, TypeError, UnicodeDecodeError) as error:
        raise broken("its HDF5 structures are damaged") from error


def model_config(file: Any) -> str:
    """Return the JSON configuration that ``model.save("x.h5")`` leaves in an attribute."""
    config = file.attrs.get("model_config")
    if config is None:
        raise PeewitError(
            THIS_MODEL,
            "the file has weights only",
            "save the whole model, with model.save",
        )
    return config.decode() if isinstance(config, bytes) else str(config)


def legacy_arrays(file: Any, layer: Layer) -> list[Array]:
    """Read a layer's weights as ``model.save("x.h5")`` lays them out, in Keras's order."""
    group = _inside(_inside(file, "model_weights"), layer.name)
    # names such as dense/kernel:0, which are paths inside the group
    names = [_text(name) for name in group.attrs["weight_names"]]
    if [name.rpartition("/")[2].partition(":")[0] for name in names] != list(layer.weights):
        raise broken(f"its layer {layer.name} has the weights {names}")
    return [
        array(group, name, shape) for name, shape in zip(names, layer.weights.values(), strict=True)
    ]


def array(group: Any, path: str, shape: Shape) -> Array:
    """Read one array of a known shape.

    Raises
    ------
    PeewitError
        It is missing, has another shape or no numbers, or lies outside the file.
    """
    import h5py

    found = _inside(group, path)
    if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external:
        raise broken(f"its {path} is not an array in the file")
    if found.shape != shape or found.dtype.kind != "f":
        raise broken(f"its {path} is {found.dtype} {found.shape}, not floats of shape {shape}")
    values = np.asarray(found[...], np.float32)
    if not np.isfinite(values).all():
        raise broken(f"its {path} has values that are not finite")
    return values


def _inside(group: Any, path: str) -> Any:
    """Follow ``path`` without leaving the file: links to other files are not followed."""
    import h5py

    for part in path.split("/"):
        if not isinstance(group, h5py.Group) or part not in group:
            raise broken(f"it has no {path}")
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise broken(f"its {path} is a link to somewhere else")
        group = group[part]
    return group


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
