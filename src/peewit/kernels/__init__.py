"""Compiled kernels for the expensive passes of the networks, with PyTorch's operators as fallback.

PyTorch runs each layer as a separate pass over activations that do not fit into the cache. These
kernels fuse the passes, and compute 3x3 convolutions with a quarter of the multiplications. They
are plain C, compiled by ``setup.py`` and called through ctypes. Without them (no compiler at
installation, or ``PEEWIT_KERNELS=off``) everything works, only more slowly.

``relu_norm_pool.py``, ``relu_norm_pool.c``
    The stage of the tutorial's network: convolution by PyTorch, then ReLU, batch normalisation and
    max pooling, fused.
``pool_norm_gelu.py``, ``pool_norm_gelu.c``
    The stage of the fast networks: convolution by ``winograd``, then max pooling, batch
    normalisation and GELU, fused.
``winograd.py``, ``winograd.c``
    3x3 convolution by Winograd's minimal filtering F(4x4, 3x3), tile by tile. Start reading at
    ``winograd_transforms.h``, which explains the algorithm. ``winograd_tiles.c`` transforms whole
    tiles, ``matmul.c`` multiplies the matrices in between; each has a bfloat16 variant.
``inverted_residual.py``, ``inverted_residual.c``
    The block of EfficientNet-Lite, a few channels and rows at a time, forward and backward, in
    float32 and bfloat16. ``inverted_residual_work.h`` is compiled for each type of processor.
``first_convolution.py``, ``first_convolution.c``
    Its first convolution, with ReLU6.
``library.py``, ``native.c``, ``common.h``
    Loading the compiled library; the extension module; what the C files share.

The first five Python files have the same parts: the public function, its readable reference in
PyTorch (``reference``), which the kernel is tested against, the check whether the kernel applies,
and the autograd function that calls the C code.
"""

from peewit.kernels.library import available, multiplies_bfloat16
from peewit.kernels.pool_norm_gelu import conv_pool_norm_gelu
from peewit.kernels.relu_norm_pool import conv_relu_norm_pool
from peewit.kernels.winograd import conv3x3

__all__ = [
    "available",
    "conv3x3",
    "conv_pool_norm_gelu",
    "conv_relu_norm_pool",
    "multiplies_bfloat16",
]
