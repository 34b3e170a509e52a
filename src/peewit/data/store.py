"""What holds the pixels of a data set: an array, a memory map, or files decoded on demand."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

SMALL = 16_000_000  # bytes


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


class Selection:
    """Some images of a store, in any order, without copying them.

    Parameters
    ----------
    store : Images
    rows : int64 array, shape (n,)
        Indices into ``store``.

    Examples
    --------
    >>> pixels = np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1)
    >>> some = Selection(pixels, np.array([2, 0]))
    >>> some.shape, some[0, 0, 0].tolist(), some[[1, 0]].shape, np.asarray(some).sum()
    ((2, 2, 2, 1), [8], (2, 2, 2, 1), 44)
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
            return self[rows[0]][rows[1:]]
        return self.store[self.rows[rows]]

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

    A small array is copied: plain arrays have more methods than an index into one.
    """
    if isinstance(store, np.ndarray) and store.nbytes <= SMALL:
        return store[rows]
    if isinstance(store, Selection):
        return Selection(store.store, store.rows[rows])
    return Selection(store, rows)
