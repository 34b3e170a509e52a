"""Memory measurements of this process, on any system with Python 3.8 or newer."""

import sys


def peak_memory():
    """Return the process's peak resident memory in MiB, or None if unknown."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def page_faults():
    """Return the number of minor page faults so far, or 0 if unknown."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def keep_freed_memory():
    """Make glibc keep all freed memory, large blocks included; do nothing elsewhere."""
    import ctypes
    import platform

    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD: return nothing to the system
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no separate mappings, which free() would unmap
