"""The terminal: consoles for stdout and stderr, text tables, and pictures in coloured cells."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
import numpy.typing as npt
from rich.cells import set_cell_size
from rich.color import Color
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from rich.table import Table

from peewit.system.streams import lossy
from peewit.system.text import printable

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, JustifyMethod, RenderResult

# Wide enough that piped output is never cut or wrapped; rich would assume 80 columns.
UNLIMITED = 100_000
# Columns between pictures side by side.
GAP = 2
JUSTIFY: dict[str, JustifyMethod] = {"l": "left", "r": "right"}


def console_out() -> Console:
    """Return the console for results (stdout)."""
    return _console(sys.stdout)


def console_err() -> Console:
    """Return the console for notes and progress (stderr). It drops what cannot be written."""
    return _console(lossy(sys.stderr))


def _console(file: TextIO) -> Console:
    # names of classes and files are data, not markup: "[red]" must stay "[red]"
    console = Console(file=file, markup=False, emoji=False, highlight=False)
    if not (console.is_terminal or console.is_jupyter):
        console.width = UNLIMITED
    return console


class NotebookOutput:
    """One plain-text output of a notebook cell, updated while the cell runs."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, value: object) -> None:
        """Replace the output by ``value``."""
        content = {"text/plain": str(value)}
        if self._handle is None:
            display = import_module("IPython.display").display
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> str:
    """Return a table as plain text, as wide as its content.

    Parameters
    ----------
    header : sequence of str
        Column titles; empty for a table without a header.
    rows : sequence of sequences of str
        Cells.
    align : str
        One letter per column: ``l`` for left, ``r`` for right.

    Examples
    --------
    >>> print(text_table(["class", "images"], [["cat", "12"], ["aeroplane", "3"]], "lr"))
    class      images
    cat            12
    aeroplane       3
    """
    # rich handles characters that are two columns wide, or none
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=bool(header))
    for index, letter in enumerate(align):
        title = header[index] if header else ""
        table.add_column(title, justify=JUSTIFY[letter])
    for row in rows:
        table.add_row(*map(printable, row))
    written = io.StringIO()
    console = Console(
        file=written,
        force_jupyter=False,  # otherwise rich also shows an empty output in a notebook
        width=UNLIMITED,
        color_system=None,
        markup=False,
        emoji=False,
        highlight=False,
    )
    console.print(table)
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines())


def can_show_pictures(console: Console) -> bool:
    """Return whether the console is a terminal with at least 256 colours and Unicode."""
    return (
        console.is_terminal
        and not console.no_color
        and console.color_system in ("truecolor", "256")
        and console.encoding.startswith("utf")
    )


def show_picture(image: npt.NDArray[np.uint8], console: Console) -> bool:
    """Show a picture if the terminal can; return whether it was shown.

    Parameters
    ----------
    image : uint8 array, shape (H, W, 1) or (H, W, 3)
        Scaled down to the width of the terminal if it is wider.
    console : rich.console.Console
    """
    return show_pictures([image], [""], console, columns=1)


def show_pictures(
    images: Sequence[npt.NDArray[np.uint8]],
    titles: Sequence[str],
    console: Console,
    columns: int = 4,
) -> bool:
    """Show pictures side by side, each above its title; return whether they were shown.

    Parameters
    ----------
    images : sequence of uint8 arrays, shape (H, W, 1) or (H, W, 3)
    titles : sequence of str
        One per picture; cut to the width of the picture.
    console : rich.console.Console
    columns : int
        Number of pictures per row; they are scaled down to fit.
    """
    if not can_show_pictures(console):
        return False
    # -1: some terminals wrap a line that reaches the last column
    width = (console.width - 1 - GAP * (columns - 1)) // columns
    for start in range(0, len(images), columns):
        row = [_fitted(image, width) for image in images[start : start + columns]]
        if console.color_system == "256":
            row = [_quantized(image) for image in row]
        names = [printable(title) for title in titles[start : start + columns]]
        console.print(_Row(row, names), end="")
    return True


def _fitted(image: npt.NDArray[np.uint8], width: int) -> npt.NDArray[np.uint8]:
    """Return the picture as RGB, uint8 (H, W, 3), scaled down to at most ``width`` columns."""
    from PIL import Image

    pixels = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    height, full = pixels.shape[:2]
    if full <= width:
        return pixels
    size = (width, max(1, round(height * width / full)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def _quantized(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Map an RGB picture to the nearest of the 240 fixed colours of a 256-colour terminal.

    rich can do this, but turns every dull colour grey.
    """
    from PIL import Image

    levels = (0, 95, 135, 175, 215, 255)
    palette = Image.new("P", (1, 1))
    cube = [(r, g, b) for r in levels for g in levels for b in levels]
    greys = [(level,) * 3 for level in range(8, 248, 10)]
    palette.putpalette([value for colour in cube + greys for value in colour])
    picture = Image.fromarray(image).quantize(palette=palette, dither=Image.Dither.NONE)
    return np.asarray(picture.convert("RGB"))


class _Row:
    """A row of RGB pictures that rich can print.

    A character cell is about twice as high as it is wide, so it shows two pixels: an upper half
    block in the colour of the upper pixel, on a background in the colour of the lower one.
    """

    def __init__(self, images: list[npt.NDArray[np.uint8]], titles: list[str]) -> None:
        self.images, self.titles = images, titles

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = max((len(image) + 1) // 2 for image in self.images)
        for line in range(lines):
            for image in self.images:
                yield from _half_blocks(image, line)
                yield Segment(" " * GAP)
            yield Segment.line()
        if any(self.titles):
            for image, title in zip(self.images, self.titles, strict=True):
                yield Segment(set_cell_size(title, image.shape[1]) + " " * GAP)
            # end the titles, and leave an empty line below
            yield Segment.line()
            yield Segment.line()


def _half_blocks(image: npt.NDArray[np.uint8], line: int) -> Iterator[Segment]:
    height, width = image.shape[:2]
    if 2 * line >= height:
        yield Segment(" " * width)
        return
    for column in range(width):
        upper = Color.from_rgb(*image[2 * line, column].tolist())
        # with an odd height, the last row has no pixels below it
        below = image[2 * line + 1, column].tolist() if 2 * line + 1 < height else None
        yield Segment("▀", Style(color=upper, bgcolor=below and Color.from_rgb(*below)))
