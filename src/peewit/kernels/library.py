"""Load the compiled kernels, check whether they can be used, and allocate memory for them."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import threading
from functools import cache

# imported before the kernels are loaded, so that both use the same pool of OpenMP threads
import torch

# argument types of the C functions
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
    # shape, x, weights, then outputs and the workspace
    "inverted_residual_forward": [*[_ADDRESS] * 5, *[_INT] * 2],
    "inverted_residual_backward": [*[_ADDRESS] * 7, *[_INT] * 2],
    "first_convolution_forward": [*[_ADDRESS] * 6, *[_INT] * 2],
    "first_convolution_backward": [*[_ADDRESS] * 7, *[_INT] * 2],
}
# functions that return the size of a workspace in floats
_SIZES = {
    "winograd_filters_space": [_SIZE] * 2,
    "winograd_convolve_space": [*[_SIZE] * 4, _INT],
    "winograd_gradient_space": [_SIZE] * 5,
    "inverted_residual_space": [_ADDRESS, *[_INT] * 3],
    "first_convolution_space": [_ADDRESS, _INT],
}


@cache
def load() -> ctypes.CDLL | None:
    """Return the compiled kernels, or None.

    None if there was no compiler when Peewit was installed, or if the environment variable
    ``PEEWIT_KERNELS`` is ``off``.
    """
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
    except OSError:  # built for another system, or a library it was linked with is missing
        return None
    except AttributeError:  # built from the sources of another version
        return None
    return library


def available() -> bool:
    """Return whether the compiled kernels are used on this machine."""
    # without OpenMP the kernels run on one core, which is slower than PyTorch on several
    return load() is not None and (parallel() or torch.get_num_threads() == 1)


@cache
def parallel() -> bool:
    """Return whether the compiled kernels can use several threads."""
    library = load()
    return library is not None and bool(library.is_parallel())


@cache
def multiplies_bfloat16() -> bool:
    """Return whether the compiled kernels and this processor support bfloat16 products."""
    library = load()
    return library is not None and bool(library.has_native_bfloat16())


def loaded() -> ctypes.CDLL:
    """Return the compiled kernels; only after ``usable`` returned True."""
    library = load()
    assert library is not None
    return library


def usable(*tensors: torch.Tensor, bfloat16: bool = False) -> bool:
    """Return whether the compiled kernels can and should be used for these tensors.

    Parameters
    ----------
    *tensors : tensor
        The kernels take float32 on the CPU.
    bfloat16 : bool
        Whether the kernel in question also supports PyTorch's autocast to bfloat16.
    """
    if not available():
        return False
    if torch.is_autocast_enabled("cpu"):
        wanted = torch.get_autocast_dtype("cpu")
        if not (bfloat16 and wanted is torch.bfloat16 and multiplies_bfloat16()):
            return False
    return not any(t.dtype != torch.float32 or t.device.type != "cpu" for t in tensors)


def empty(n: int, channels: int, height: int, width: int) -> torch.Tensor:
    """Return an uninitialised float32 tensor, (n, channels, height, width), channels last."""
    return torch.empty((n, channels, height, width), memory_format=torch.channels_last)


def address(tensor: torch.Tensor | None) -> int | None:
    """Return the address of the tensor's data for the C functions, or None for NULL."""
    return None if tensor is None else tensor.data_ptr()


class _Memory(threading.local):
    """The memory of this thread's workspace; it grows to the largest size requested."""

    floats = torch.empty(0)


_memory = _Memory()


def workspace(floats: int) -> int:
    """Return the address of memory for a C function to work in, valid until the next call."""
    if _memory.floats.numel() < floats:
        _memory.floats = torch.empty(floats)
    return _memory.floats.data_ptr()
