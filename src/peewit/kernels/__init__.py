"""What a network's layers share in work, fused in C, with PyTorch's operators as fallback."""

from peewit.kernels.fast_stage import conv_pool_norm_gelu
from peewit.kernels.library import available, multiplies_bfloat16
from peewit.kernels.stage import conv_relu_norm_pool
from peewit.kernels.winograd import conv3x3

__all__ = [
    "available",
    "conv3x3",
    "conv_pool_norm_gelu",
    "conv_relu_norm_pool",
    "multiplies_bfloat16",
]
