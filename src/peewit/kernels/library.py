"""Find and load the compiled kernels, if they were built."""

from __future__ import annotations

import ctypes
import importlib.util
import os
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# what the C functions take: addresses, sizes, real numbers, the number of threads
_ADDRESS, _SIZE, _REAL, _INT = ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_double, ctypes.c_int
_IMAGES = [_ADDRESS, *[_SIZE] * 4]  # x, N, H, W, C
_ARGUMENTS = {
    "relu_norm_pool_forward": [*_IMAGES, *[_ADDRESS] * 4, _REAL, _REAL, *[_ADDRESS] * 6, _INT],
    "relu_norm_pool_inference": [*_IMAGES, *[_ADDRESS] * 3, _INT],
    "relu_norm_pool_backward": [*_IMAGES, *[_ADDRESS] * 10, _INT],
    "pool_norm_gelu_forward": [
        *_IMAGES,
        _SIZE,
        *[_ADDRESS] * 4,
        _REAL,
        _REAL,
        *[_ADDRESS] * 6,
        _INT,
    ],
    "pool_norm_gelu_inference": [*_IMAGES, _SIZE, *[_ADDRESS] * 3, _INT],
    "pool_norm_gelu_backward": [*_IMAGES, _SIZE, *[_ADDRESS] * 11, _INT],
    "winograd_filters": [_ADDRESS, *[_SIZE] * 6, _INT, _ADDRESS, _INT],
    "winograd_convolve": [
        _ADDRESS,
        *_IMAGES,
        _ADDRESS,
        _SIZE,
        _INT,
        *[_ADDRESS] * 3,
        _INT,
    ],
    "winograd_filters_gradient": [
        *_IMAGES,
        *[_ADDRESS] * 2,
        _SIZE,
        _INT,
        *[_ADDRESS] * 2,
        _INT,
    ],
}
# those that return how many floats of workspace are needed
_SIZES = {
    "winograd_filters_space": [_SIZE] * 2,
    "winograd_convolve_space": [*[_SIZE] * 4, _INT],
    "winograd_gradient_space": [_SIZE] * 5,
}


@cache
def load() -> ctypes.CDLL | None:
    """Return the compiled kernels, or None.

    There are none where no compiler was at hand when Peewit was installed, or where the
    environment variable ``PEEWIT_KERNELS`` is ``off``.
    """
    # PyTorch comes first: the kernels then share its pool of threads, instead of fighting it
    import torch  # noqa: F401

    if os.environ.get("PEEWIT_KERNELS") == "off":
        return None
    found = importlib.util.find_spec("peewit.kernels.native")
    if found is None or found.origin is None:
        return None
    try:
        library = ctypes.CDLL(found.origin)
        for name, arguments in (_ARGUMENTS | _SIZES).items():
            function = getattr(library, name)
            function.argtypes = arguments
            function.restype = _SIZE if name in _SIZES else None
    except OSError:  # built for another system, or against a library that is gone
        return None
    except AttributeError:  # built from the sources of another version
        return None
    return library


def available() -> bool:
    """Return whether the compiled kernels are used here."""
    import torch

    # PyTorch's passes on several cores beat the kernels' on a single core
    return load() is not None and (parallel() or torch.get_num_threads() == 1)


@cache
def parallel() -> bool:
    """Return whether the compiled kernels can use more than one thread."""
    library = load()
    return library is not None and bool(library.is_parallel())


@cache
def multiplies_bfloat16() -> bool:
    """Return whether the compiled kernels have products of bfloat16 on this processor."""
    library = load()
    return library is not None and bool(library.has_native_bfloat16())


def loaded() -> ctypes.CDLL:
    """Return the compiled kernels, which ``usable`` found before."""
    library = load()
    assert library is not None
    return library


def usable(*tensors: torch.Tensor, bfloat16: bool = False) -> bool:
    """Return whether the compiled kernels are there, take such tensors, and are worth it.

    ``bfloat16`` is whether those that are asked about can also compute in that precision, as
    PyTorch's autocast wants it.
    """
    import torch

    if not available():
        return False
    if torch.is_autocast_enabled("cpu"):
        wanted = torch.get_autocast_dtype("cpu")
        if not (bfloat16 and wanted is torch.bfloat16 and multiplies_bfloat16()):
            return False
    return not any(t.dtype != torch.float32 or t.device.type != "cpu" for t in tensors)
