"""CIFAR archives: layouts, verification, decoding, cache."""
