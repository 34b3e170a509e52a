"""Pictures decoded once, at the size at which they are used, and cached on disk."""

from peewit.data.packing.sizes import at_size, sized_for

__all__ = ["at_size", "sized_for"]
