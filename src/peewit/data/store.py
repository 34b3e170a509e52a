"""What holds the pixels of a data set: an array, a memory map, or files decoded on demand."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

SMALL = 16_000_000  # bytes

Facts = npt.NDArray[np.void]
"""What is known about each image without reading its pixels; see `facts_type`."""


def facts_type(channels: int) -> np.dtype[np.void]:
    """Return the type of the facts about an image.

    ``readable``, whether the picture could be decoded; ``hash``, the first 8 bytes of the SHA-256
    of its pixels; ``sums`` and ``squares`` of the pixels of each channel.
    """
    return np.dtype(
        [
            ("hash", "<u8"),
            ("sums", "<u8", (channels,)),
            ("squares", "<u8", (channels,)),
            ("readable", "?"),
        ]
    )


class Images(Protocol):
    """Images that can be indexed like a uint8 array of shape (N, H, W, C)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of images, height, width and channels."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Always uint8."""

    @property
    def ndim(self) -> int:
        """Always 4."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any:
        """Return the images at ``rows``, as an array: an integer, a slice, or an index array."""


class Selection(np.lib.mixins.NDArrayOperatorsMixin):
    """Some images of a store, in any order, without copying them.

    Arithmetic, such as ``images / 255``, reads all of them and returns an array.

    Parameters
    ----------
    store : Images
    rows : int64 array, shape (n,)
        Indices into ``store``.

    Examples
    --------
    >>> pixels = np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1)
    >>> some = Selection(pixels, np.array([2, 0]))
    >>> some.shape, some[0, 0, 0].tolist(), some[[1, 0]].shape, int(np.asarray(some).sum())
    ((2, 2, 2, 1), [8], (2, 2, 2, 1), 44)
    >>> (some / 2)[1].ravel().tolist()
    [0.0, 0.5, 1.0, 1.5]
    """

    def __init__(self, store: Images, rows: npt.NDArray[np.int64]) -> None:
        self.store: Images = store
        self.rows = rows

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of images, height, width and channels."""
        return (len(self.rows), *self.store.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Always uint8."""
        return self.store.dtype

    @property
    def ndim(self) -> int:
        """Always 4."""
        return 4

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any, /) -> Any:
        if isinstance(rows, tuple):
            return part_of(self, rows)
        return self.store[self.rows[rows]]

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        arrays = [np.asarray(one) if isinstance(one, Selection) else one for one in inputs]
        return getattr(ufunc, method)(*arrays, **options)

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        return np.asarray(self.store[self.rows], dtype)


class Concatenation:
    """The images of two stores of the same shape, one after the other, without copying them.

    Parameters
    ----------
    first, second : Images

    Examples
    --------
    >>> pixels = np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1)
    >>> both = Concatenation(pixels, pixels[:1])
    >>> both.shape, both[2:4].shape, both[3, 0, 1].tolist()
    ((4, 2, 2, 1), (2, 2, 2, 1), [1])
    """

    def __init__(self, first: Images, second: Images) -> None:
        self.first, self.second = first, second

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of images, height, width and channels."""
        return (len(self), *self.first.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Always uint8."""
        return self.first.dtype

    @property
    def ndim(self) -> int:
        """Always 4."""
        return 4

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def __getitem__(self, rows: Any, /) -> Any:
        if isinstance(rows, tuple):
            return self[rows[0]][rows[1:]]
        numbers = np.arange(len(self))[rows]
        if numbers.ndim == 0:
            return self[numbers[None]][0]
        out = np.empty((len(numbers), *self.shape[1:]), np.uint8)
        late = numbers >= len(self.first)
        out[~late] = self.first[numbers[~late]]
        out[late] = self.second[numbers[late] - len(self.first)]
        return out


def select(store: Images, rows: npt.NDArray[np.int64]) -> Images:
    """Return the images at ``rows`` of a store that may itself be a selection.

    The result is a plain array, which has more methods, if that is a view or a small copy.
    """
    if isinstance(store, np.ndarray):
        if store.nbytes <= SMALL:
            return store[rows]
        if len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
            return store[rows[0] : rows[0] + len(rows)]
    if isinstance(store, Selection):
        return Selection(store.store, store.rows[rows])
    return Selection(store, rows)


class Recorded:
    """Images about which some facts are known without reading their pixels.

    Parameters
    ----------
    images : Images
    facts : structured array, shape (N,)
        See `facts_type`.
    """

    def __init__(self, images: Images, facts: Facts) -> None:
        self.images: Images = images
        self.facts = facts

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of images, height, width and channels."""
        return self.images.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Always uint8."""
        return self.images.dtype

    @property
    def ndim(self) -> int:
        """Always 4."""
        return 4

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Any, /) -> Any:
        return self.images[rows]

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        return np.asarray(self.images[:], dtype)


def recorded(images: Images, fact: str) -> npt.NDArray[Any] | None:
    """Return what is recorded about images, shape (N, ...); None if nothing is.

    ``fact`` is one of the fields of `facts_type`.
    """
    if isinstance(images, Selection):
        values = recorded(images.store, fact)
        return None if values is None else values[images.rows]
    return images.facts[fact] if isinstance(images, Recorded) else None


def part_of(images: Images, index: tuple[Any, ...]) -> Any:
    """Return what an index of several axes selects.

    >>> part_of(np.arange(16).reshape(2, 2, 2, 2), ([1, 0, 1], slice(None), 0)).shape
    (3, 2, 2)
    """
    first, *rest = index
    chosen = images[first]
    return chosen[tuple(rest)] if chosen.ndim == 3 else chosen[(slice(None), *rest)]


def prefetch(images: Images, rows: npt.NDArray[np.int64]) -> None:
    """Begin to decode the images at ``rows``, which are needed next, if they have to be decoded."""
    if isinstance(images, Selection):
        prefetch(images.store, images.rows[rows])
    elif isinstance(images, Recorded):
        prefetch(images.images, rows)
    elif hasattr(images, "prefetch"):
        images.prefetch(rows)


def positions(rows: Any, count: int) -> npt.NDArray[np.int64]:
    """Return the non-negative indices that ``rows`` selects from ``count`` images.

    >>> positions(slice(None, None, 2), 5), positions([-1, 0], 5), positions(-2, 5)
    (array([0, 2, 4]), array([4, 0]), array(3))
    """
    if isinstance(rows, slice):
        return np.arange(*rows.indices(count))
    chosen = np.asarray(rows)
    if chosen.dtype == bool:
        return np.flatnonzero(chosen)
    chosen = chosen.astype(np.int64)  # an empty list becomes float64
    if chosen.size and not (chosen.min() >= -count and chosen.max() < count):
        raise IndexError(f"there are only {count} images")
    return np.where(chosen < 0, chosen + count, chosen)
