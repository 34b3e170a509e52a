"""What the system tells of this process's memory, on any system and Python from 3.8 on."""

import sys


def peak_memory():
    """Return the process's peak resident memory in MiB, or None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def page_faults():
    """Return how often the system had to provide a page so far, 0 where it does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def keep_freed_memory():
    """Let glibc keep what is freed, also the largest blocks; elsewhere do nothing."""
    import ctypes
    import platform

    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD: give nothing back
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no block of its own mapping, which would be unmapped
