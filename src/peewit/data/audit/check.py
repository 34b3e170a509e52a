"""The checks of an audit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from peewit.data.audit.copies import copies
from peewit.data.audit.findings import KINDS, Audit, Finding
from peewit.data.audit.outliers import outliers
from peewit.data.dataset import Dataset
from peewit.data.listing import Listing
from peewit.data.near_duplicates import near_duplicates
from peewit.data.packing import at_size
from peewit.data.packing.decoding import Show
from peewit.data.pictures import Pictures
from peewit.errors import PeewitError
from peewit.images.scaled import PictureInfo, probe
from peewit.system.cpu import usable_cores

# Height and width at which the pictures are compared and judged
SIDE = 64
# Shorter sides below this many pixels; mean and standard deviation of grey levels, 0 to 255
TINY, DARK, CONSTANT = 32, 12.0, 3.0
# A picture is blurred if the variance of its Laplacian (Pech-Pacheco et al., Diatom autofocusing in
# brightfield microscopy, 2000) is this fraction of the median of all pictures.
BLURRED = 0.02
# Pictures whose pixels are looked at together
AT_ONCE = 1024
SUFFIXES: Mapping[str, frozenset[str]] = {
    "JPEG": frozenset({".jpg", ".jpeg", ".jpe", ".jfif"}),
    "PNG": frozenset({".png"}),
    "GIF": frozenset({".gif"}),
    "WEBP": frozenset({".webp"}),
    "BMP": frozenset({".bmp"}),
    "TIFF": frozenset({".tif", ".tiff"}),
    "PPM": frozenset({".ppm", ".pgm", ".pbm", ".pnm"}),
    "AVIF": frozenset({".avif"}),
    "HEIF": frozenset({".heic", ".heif", ".hif"}),
}
Predictions = Mapping[str, tuple[str, float]]


def check(
    listing: Listing,
    *,
    predictions: Predictions | None = None,
    show: Show | None = None,
    note: Callable[[str], None] = lambda sentence: None,
) -> Audit:
    """Look for errors in a data set of pictures.

    Parameters
    ----------
    listing : Listing
    predictions : mapping, optional
        By file name, the class that a classifier predicts for a picture that it was not trained on,
        and its confidence: for suspicious labels.
    show : callable, optional
        Shows the progress of decoding.
    note : callable
        Called with sentences for the user.
    """
    infos = list(_headers(listing))
    names = [str(name) for name in listing.names]
    dataset = Dataset(
        Pictures(listing=listing, channels=3),
        listing.labels,
        listing.class_names,
        str(listing.place),
        names,
    )
    decoded = at_size(dataset, SIDE, SIDE, "stretch", lambda sentence: None, show)
    assert decoded.names is not None
    place = {name: row for row, name in enumerate(names)}
    rows = np.array([place[name] for name in decoded.names], np.int64)
    found = [*_unreadable(listing, infos, rows), *_headers_odd(listing, infos)]
    if len(rows):
        near = near_duplicates(decoded.images)
        found += copies(listing, rows, decoded.image_hashes, near)
        found += _pixels(rows, decoded)
    if predictions:
        found += _suspicious(listing, place, predictions)
    order = {kind: number for number, kind in enumerate(KINDS)}
    readable = [info for info in infos if isinstance(info, PictureInfo)]
    counts = np.bincount(listing.labels, minlength=len(listing.class_names))
    return Audit(
        listing=listing,
        findings=sorted(found, key=lambda finding: (order[finding.kind], finding.row)),
        formats=Counter(info.format for info in readable),
        modes=Counter(info.mode for info in readable),
        sides=[(info.width, info.height) for info in readable],
        imbalance=float(counts.max(initial=0) / max(counts.min(initial=len(listing)), 1)),
    )


def _headers(listing: Listing) -> Iterator[PictureInfo | PeewitError]:
    """Yield what the header of each picture says, or why it cannot be read."""

    def one(row: int) -> PictureInfo | PeewitError:
        try:
            return probe(listing.files.read(row), str(listing.names[row]))
        except PeewitError as error:
            return error

    with ThreadPoolExecutor(usable_cores()) as pool:
        for start in range(0, len(listing), AT_ONCE):
            yield from pool.map(one, range(start, min(start + AT_ONCE, len(listing))))


def _unreadable(
    listing: Listing, infos: list[PictureInfo | PeewitError], rows: npt.NDArray[np.int64]
) -> Iterator[Finding]:
    for row in sorted({*range(len(listing))} - {*rows.tolist()}):
        info = infos[row]
        why = info.why if isinstance(info, PeewitError) else "the picture is damaged or incomplete"
        yield Finding(kind="unreadable", row=row, detail=why, action="remove")


def _headers_odd(listing: Listing, infos: list[PictureInfo | PeewitError]) -> Iterator[Finding]:
    """Yield misnamed and tiny pictures."""
    for row, info in enumerate(infos):
        if isinstance(info, PeewitError):
            continue
        path = PurePosixPath(listing.names[row])
        usual = SUFFIXES.get(info.format)
        if usual and path.suffix and path.suffix.lower() not in usual:
            name = path.with_suffix(min(usual, key=len)).name
            detail = f"{info.format} content"
            yield Finding(kind="misnamed", row=row, detail=detail, action=f"rename {name}")
        if min(info.width, info.height) < TINY:
            yield Finding(kind="tiny", row=row, detail=f"{info.width} x {info.height} pixels")


def _pixels(rows: npt.NDArray[np.int64], decoded: Dataset) -> Iterator[Finding]:
    """Yield constant, dark and blurred pictures, and outliers that are none of these."""
    details = np.empty(len(rows))
    plain: set[int] = set()
    for start in range(0, len(rows), AT_ONCE):
        part = np.asarray(decoded.images[start : start + AT_ONCE]).mean(3, dtype=np.float32)
        spread, mean = part.std((1, 2)), part.mean((1, 2))
        laplacian = (
            part[:, :-2, 1:-1] + part[:, 2:, 1:-1] + part[:, 1:-1, :-2] + part[:, 1:-1, 2:]
        ) - 4 * part[:, 1:-1, 1:-1]
        details[start : start + len(part)] = laplacian.var((1, 2))
        for place in np.flatnonzero((spread < CONSTANT) | (mean < DARK)).tolist():
            kind = "constant" if spread[place] < CONSTANT else "dark"
            detail = f"mean grey level {mean[place]:.0f} of 255"
            plain.add(start + place)
            yield Finding(kind=kind, row=int(rows[start + place]), detail=detail)
    least = BLURRED * float(np.median(details))
    for place in np.flatnonzero(details < least).tolist():
        if place not in plain:
            plain.add(place)
            yield Finding(kind="blurred", row=int(rows[place]))
    for place, times in outliers(decoded.images).items():
        if place not in plain:
            detail = f"{times:.1f} times the usual distance from others"
            yield Finding(kind="outlier", row=int(rows[place]), detail=detail)


def _suspicious(
    listing: Listing, place: Mapping[str, int], predictions: Predictions
) -> Iterator[Finding]:
    """Yield pictures whose label a classifier doubts, by confident learning.

    A picture probably belongs to the predicted class if the confidence is at least the average
    confidence of correct predictions of that class (Northcutt et al., "Confident learning", 2021,
    arXiv 1911.00068, section 3.1).
    """
    known = [
        (place[name], label, confidence)
        for name, (label, confidence) in predictions.items()
        if name in place and label in listing.class_names
    ]
    correct: dict[str, list[float]] = {}
    for row, label, confidence in known:
        if listing.class_names[listing.labels[row]] == label:
            correct.setdefault(label, []).append(confidence)
    for row, label, confidence in known:
        own = listing.class_names[listing.labels[row]]
        if own != label and label in correct and confidence >= np.mean(correct[label]):
            yield Finding(
                kind="suspicious label",
                row=row,
                detail=f"predicted: {label} ({confidence:.0%})",
                action="keep",
            )
