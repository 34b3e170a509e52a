"""The passes between a network's convolutions, fused in C, with PyTorch's operators as fallback."""

from peewit.kernels.library import available
from peewit.kernels.stage import conv_relu_norm_pool

__all__ = ["available", "conv_relu_norm_pool"]
