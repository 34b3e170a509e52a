"""Find near-duplicates: the same photograph in another size, crop, compression or brightness.

Everything is done on thumbnails, in three stages. Candidates are pairs whose low frequencies, those
of a perceptual hash, have a high cosine similarity; among many pictures they are only looked for
within cells around sampled pictures, as in an inverted file (Jegou et al., Product quantization for
nearest neighbor search, 2011, section IV). The tangent distance (Simard et al., 1992) leaves out
those that no small crop or shift explains. The remaining pairs are aligned by translation, scale
and contrast (Lucas and Kanade, 1981), and accepted if their details then agree.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from peewit.data.alignment import agreement, blurred, details, positions
from peewit.data.store import Images
from peewit.system.cpu import usable_cores

Floats = npt.NDArray[Any]  # float32
Int64s = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

SIDE = 32  # height and width of a thumbnail, in pixels
HUES = 8  # height and width of its colour
FREQUENCIES = 6  # of the cosine transform that are compared in each direction
# Of the copies cut by 10 % at random, 97 % have a cosine similarity of more than 0.6 with the whole
# picture, and a tangent distance of less than 0.11 (flowers and weather photographs).
CANDIDATE = 0.6
TANGENT = 0.12
# Candidates that nine of ten pictures stay below: more would take long, and a crop could not be
# told from the many similar pictures of a large set
CANDIDATES = 32
# Least correlation of the details. Different objects photographed on the same white background
# (TrashNet's caps, bottles and can tops) reach 0.94; 78 pairs of 4,471 photographs are above 0.95.
# Of 450 copies of each kind, these are found: half size and brightness x 0.7 99 %, JPEG quality 30
# 97 %, cut by 10 % at random 95 %, and brightness x 1.4, where highlights are clipped, 75 %.
ACCEPTED = 0.95
# Least cosine similarity of the colours, if both are colourful: mean chroma of 5 levels
SAME_COLOURS = 0.5
COLOURFUL = 5.0
# Standard deviation of the details, in grey levels: only identical images match below it
FLAT = 1.5
# Smallest side, in pixels, at which details tell pictures apart; smaller images match if identical
SMALLEST = 16
# Pictures that are compared with each other, instead of within cells
CELL = 12_000
# Cells that each picture belongs to, because near-duplicates may have different nearest ones
NEAREST_CELLS = 2
# A group with more pictures, and more than this share of all, is linked again more strictly:
# pictures that all look alike, such as drawn figures, would chain into one group
MOST_TOGETHER = 50
MOST_SHARE = 0.02
STRICTER = 0.99
# Images whose thumbnails are made at a time
_AT_ONCE = 1024
# Candidate pairs compared at a time: about 100 MB of temporary arrays
_PAIRS_AT_ONCE = 2048
_TANGENTS_AT_ONCE = 16_384


class Thumbnails(NamedTuple):
    """What near-duplicates are found by.

    Parameters
    ----------
    grey : uint8 array, shape (N, 32, 32)
    colour : int8 array, shape (N, 8, 8, 2)
        Cb and Cr, 0 for grey.
    hashes : uint64 array, shape (N,)
        Of the pixels of the image: the same for identical images. 0 for all: not known.
    """

    grey: Bytes
    colour: npt.NDArray[np.int8]
    hashes: npt.NDArray[np.uint64]

    def take(self, rows: Int64s) -> Thumbnails:
        """Return the thumbnails at ``rows``."""
        return Thumbnails(self.grey[rows], self.colour[rows], self.hashes[rows])


class Pairs(NamedTuple):
    """Near-duplicates, two by two.

    Parameters
    ----------
    first, second : int64 arrays, shape (n,)
    similarity : float32 array, shape (n,)
        Correlation of the details after alignment, up to 1.
    """

    first: Int64s
    second: Int64s
    similarity: Floats


def near_duplicates(images: Images) -> Int64s:
    """Return groups of images that show the same picture.

    Identical images, and copies that were compressed, resized, mirrored, darkened or cut by up to
    about 10 %, have the same number. Images with a side of less than 16 pixels, and nearly uniform
    ones, must be identical.

    Parameters
    ----------
    images : uint8 Images, shape (N, H, W, C)

    Returns
    -------
    int64 array, shape (N,)
        The index of the first image of the group that an image belongs to: its own index if it has
        no near-duplicate before it.

    Examples
    --------
    >>> noise = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), np.uint8)
    >>> near_duplicates(np.concatenate([noise, noise[1:2] // 2])).tolist()
    [0, 1, 2, 1]
    """
    return groups(thumbnails(images))


def thumbnails(images: Images) -> Thumbnails:
    """Return the thumbnails of images: uint8 ``Images``, shape (N, H, W, C)."""
    count, height, width, _ = images.shape
    found = Thumbnails(
        np.empty((count, SIDE, SIDE), np.uint8),
        np.empty((count, HUES, HUES, 2), np.int8),
        np.empty(count, np.uint64),
    )

    def make(numbered: tuple[int, Bytes]) -> None:
        number, pixels = numbered
        found.grey[number], found.colour[number] = thumbnail(pixels)
        digest = hashlib.sha256(np.ascontiguousarray(pixels).data).digest()
        found.hashes[number] = int.from_bytes(digest[:8], "little")

    with ThreadPoolExecutor(usable_cores()) as pool:
        for start in range(0, count, _AT_ONCE):
            part = np.asarray(images[start : start + _AT_ONCE])
            list(pool.map(make, enumerate(part, start)))
    if min(height, width) < SMALLEST:
        found.grey[:] = 128
    return found


def thumbnail(pixels: Bytes) -> tuple[Bytes, npt.NDArray[np.int8]]:
    """Return one image, uint8 (H, W, C), as grey (32, 32) and colour (8, 8, 2)."""
    picture = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    size = (SIDE, SIDE)
    if picture.mode == "L":
        grey = np.asarray(picture.resize(size, Image.Resampling.BILINEAR))
        return grey, np.zeros((HUES, HUES, 2), np.int8)
    small = np.asarray(picture.resize(size, Image.Resampling.BILINEAR).convert("YCbCr"))
    block = SIDE // HUES
    colour = small[:, :, 1:].reshape(HUES, block, HUES, block, 2).mean((1, 3)) - 128
    return small[:, :, 0], np.rint(colour).clip(-128, 127).astype(np.int8)


def groups(small: Thumbnails) -> Int64s:
    """Return the groups of near-duplicates among thumbnails, as `near_duplicates` does."""
    return linked(len(small.grey), pairs(small))


def linked(count: int, found: Pairs) -> Int64s:
    """Return the groups that pairs link ``count`` images to, without long chains."""
    most = max(MOST_TOGETHER, MOST_SHARE * count)
    group = _components(count, found.first, found.second)
    sizes = np.bincount(group, minlength=count)
    if sizes.max(initial=0) > most:
        # identical images stay together whatever their number
        kept = (sizes[group[found.first]] <= most) | (found.similarity > STRICTER)
        group = _components(count, found.first[kept], found.second[kept])
    return group


def _components(count: int, first: Int64s, second: Int64s) -> Int64s:
    """Return the lowest index of the connected component of each of ``count`` nodes."""
    lowest = np.arange(count)
    while True:
        before = lowest.copy()
        least = np.minimum(lowest[first], lowest[second])
        np.minimum.at(lowest, first, least)
        np.minimum.at(lowest, second, least)
        lowest = lowest[lowest]
        if np.array_equal(lowest, before):
            return lowest


def pairs(small: Thumbnails) -> Pairs:
    """Return the pairs of near-duplicates among thumbnails.

    Identical images are each paired with the first of them only.
    """
    _, index, copy_of = np.unique(small.hashes, return_index=True, return_inverse=True)
    original = index[copy_of]
    copies = np.flatnonzero(original != np.arange(len(original)))
    exact = Pairs(original[copies], copies, np.ones(len(copies), np.float32))

    rows = np.sort(index)
    rows = rows[np.concatenate([_detailed(small.grey[part]) for part in _parts(rows, _AT_ONCE)])]
    found = [exact]
    if len(rows) > 1:
        described = np.concatenate(
            [_descriptors(small.grey[part])[0] for part in _parts(rows, _AT_ONCE)]
        )
        least = _least_similarity(described)
        for members in _cells(described):
            cell = rows[members]
            within = _pairs_within(small.take(cell), described[members], least)
            found.append(Pairs(cell[within.first], cell[within.second], within.similarity))
    joined = Pairs(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
    # a pair may be in two cells
    _, once = np.unique(joined.first * len(original) + joined.second, return_index=True)
    return Pairs(joined.first[once], joined.second[once], joined.similarity[once])


def _parts(rows: Int64s, size: int) -> list[Int64s]:
    return [rows[start : start + size] for start in range(0, len(rows), size)] or [rows]


def _detailed(grey: Bytes) -> npt.NDArray[np.bool_]:
    detailed: npt.NDArray[np.bool_] = details(grey.astype(np.float32)).std((1, 2)) >= FLAT
    return detailed


def _least_similarity(described: Floats) -> float:
    """Return the least cosine similarity of a candidate pair."""
    step = max(1, len(described) // 500)
    others = described[:: max(1, len(described) // 20_000)]
    similarities = described[::step] @ others.T
    allowed = min(1.0, (CANDIDATES + 1) / len(described))  # each is similar to itself
    each = np.quantile(similarities, 1 - allowed, axis=1)
    return max(CANDIDATE, float(np.quantile(each, 0.9)))


def _cells(described: Floats) -> list[Int64s]:
    """Return sets of pictures within which near-duplicates are looked for."""
    count = len(described)
    if count <= CELL:
        return [np.arange(count)]
    # as many cells as make finding the nearest one and the comparisons within take about as long
    random = np.random.default_rng(0)
    centres = described[np.sort(random.choice(count, round(count**0.5), replace=False))]
    # mirror images stand in the same cell: its centres are compared without the left and right
    nearest = np.empty((count, NEAREST_CELLS), np.int64)
    even = _even_columns()
    for start in range(0, count, _AT_ONCE):
        similarity = described[start : start + _AT_ONCE, even] @ centres[:, even].T
        nearest[start : start + _AT_ONCE] = np.argpartition(similarity, -NEAREST_CELLS, axis=1)[
            :, -NEAREST_CELLS:
        ]
    order = np.argsort(nearest.ravel(), kind="stable")
    ends = np.searchsorted(nearest.ravel()[order], np.arange(1, len(centres)))
    cells = np.split(order // NEAREST_CELLS, ends)
    return [np.sort(cell) for cell in cells if len(cell) > 1]


def _even_columns() -> Int64s:
    """Return which numbers of a descriptor are the same for a mirror image."""
    return np.flatnonzero(np.arange(FREQUENCIES * FREQUENCIES) % FREQUENCIES % 2 == 0)


def _pairs_within(small: Thumbnails, described: Floats, least: float) -> Pairs:
    """Return the near-duplicates among pictures that are all compared with each other."""
    tangents = _descriptors(small.grey)[1]
    upright, mirror = np.ones_like(described[0]), np.ones_like(described[0])
    mirror[np.arange(len(mirror)) % FREQUENCIES % 2 == 1] = -1
    found = []
    for start in range(0, len(described), _AT_ONCE):
        for flipped, signs in enumerate((upright, mirror)):
            similarity = (described[start : start + _AT_ONCE] * signs) @ described[start:].T
            first, second = np.nonzero(similarity > least)
            ahead = second > first
            first, second = first[ahead] + start, second[ahead] + start
            for part in _parts(np.arange(len(first)), _TANGENTS_AT_ONCE):
                one, two = first[part], second[part]
                distances = _tangent_distances(
                    described[one], tangents[one], described[two], tangents[two], signs
                )
                near = np.flatnonzero(distances < TANGENT)
                found.append((one[near], two[near], np.full(len(near), bool(flipped))))
    first, second, flips = (np.concatenate(values) for values in zip(*found, strict=True))
    if not len(first):
        return Pairs(first, second, np.empty(0, np.float32))
    scores = np.zeros(len(first), np.float32)
    for part in _parts(np.arange(len(first)), _PAIRS_AT_ONCE):
        left, right = small.take(first[part]), small.take(second[part])
        flip = flips[part]
        left.grey[flip], left.colour[flip] = left.grey[flip, :, ::-1], left.colour[flip, :, ::-1]
        agreed = agreement(left.grey.astype(np.float32), right.grey.astype(np.float32))
        scores[part] = np.where(_same_colours(left.colour, right.colour), agreed, 0)
    good = scores >= ACCEPTED
    return Pairs(first[good], second[good], scores[good])


def _same_colours(first: npt.NDArray[np.int8], second: npt.NDArray[np.int8]) -> Any:
    """Return which pairs do not differ in colour; a grey copy of a picture does not."""
    one, two = (
        (colour - colour.mean((1, 2), keepdims=True, dtype=np.float32)).reshape(len(colour), -1)
        for colour in (first, second)
    )
    product = np.sqrt((one * one).mean(1) * (two * two).mean(1))
    grey = np.minimum((one * one).mean(1), (two * two).mean(1)) < COLOURFUL**2
    return grey | ((one * two).mean(1) > SAME_COLOURS * product)


def _descriptors(grey: Bytes) -> tuple[Floats, Floats]:
    """Return descriptors, (N, 36), of length 1, and their derivatives, (N, 4, 36).

    The derivatives are those by vertical scale and shift, and by horizontal scale and shift.
    """
    smooth = blurred(grey.astype(np.float32), 1)
    down, right = np.gradient(smooth, 2 / SIDE, axis=(1, 2))
    at = positions(SIDE)
    k = np.arange(FREQUENCIES)
    waves = np.cos(np.pi * k[:, None] * (np.arange(SIDE) + 0.5) / SIDE).astype(np.float32)
    # natural images have amplitudes in inverse proportion to the frequency; the mean has weight 0
    weight = np.hypot(k[:, None], k).astype(np.float32)

    def described(values: Floats) -> Floats:
        return (waves @ values @ waves.T * weight).reshape(len(values), -1)

    flat = described(smooth)
    length = np.maximum(np.linalg.norm(flat, axis=1), 1e-6)
    moved = [described(values) for values in (down * at[:, None], down, right * at, right)]
    return flat / length[:, None], np.stack(moved, 1) / length[:, None, None]


def _tangent_distances(
    first: Floats, first_tangents: Floats, second: Floats, second_tangents: Floats, mirror: Floats
) -> Floats:
    """Return squared distances of descriptors, less what small shifts and scales explain."""
    first = first * mirror
    # the derivative by a shift to the right is one by a shift to the left in the mirror image
    sides = np.array([1, 1, 1, -1 if mirror.min() < 0 else 1], np.float32)
    first_tangents = first_tangents * mirror * sides[:, None]
    basis = np.concatenate(
        [(first_tangents + second_tangents) / 2, (first + second)[:, None] / 2], axis=1
    )
    difference = (second - first)[:, :, None]
    # damped, so that a picture without, say, vertical structure has a solution
    normal = basis @ basis.transpose(0, 2, 1) + 1e-3 * np.eye(5, dtype=np.float32)
    explained = basis.transpose(0, 2, 1) @ np.linalg.solve(normal, basis @ difference)
    distances: Floats = ((difference - explained) ** 2).sum((1, 2))
    return distances
