"""The geometry of the charts: from numbers to coordinates, which the templates draw as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

Point = tuple[float, float]

# In the SVG's own units, of which a phone shows one for each of its pixels, or nearly
WIDTH, HEIGHT = 420.0, 240.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 10.0, 34.0
LABELS = 122.0  # room for the names at the ends of the lines
LABEL_DISTANCE = 16.0
# With more points than this, a mark at each would hide the line
MARKED = 30


@dataclass(frozen=True)
class Tick:
    """A place on an axis, and what is written there."""

    place: float
    text: str


class Series(NamedTuple):
    """What a line shows: (epoch, value) points; and classes of the style sheet for it."""

    name: str
    points: Sequence[Point]
    stroke: str
    fill: str


@dataclass(frozen=True)
class Line:
    """A line of a chart, in the chart's coordinates."""

    points: tuple[Point, ...]
    stroke: str
    fill: str
    label: str
    label_y: float

    @property
    def path(self) -> str:
        """The points as an SVG polyline has them."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)

    @property
    def marked(self) -> bool:
        """Whether each point gets a mark."""
        return len(self.points) <= MARKED


@dataclass(frozen=True)
class Chart:
    """Lines over epochs."""

    title: str
    description: str
    right: float
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    bottom: float = HEIGHT - BOTTOM


def line_chart(title: str, series: Sequence[Series], percent: bool, labelled: bool = True) -> Chart:
    """Lay out a chart of lines over epochs.

    Parameters
    ----------
    title : str
    series : sequence of Series
        Values that are not finite are left out. Later lines are drawn over earlier ones.
    percent : bool
        Whether values are shares, 0 to 1.
    labelled : bool
        Whether names and last values are written at the lines' ends.
    """
    series = [
        one._replace(points=[point for point in one.points if math.isfinite(point[1])])
        for one in series
    ]
    every = [point for one in series for point in one.points]
    right = WIDTH - (LABELS if labelled else RIGHT)
    if not every:
        return Chart(title, "no epoch has ended yet", right, (), (), ())
    first, last = min(x for x, _ in every), max(x for x, _ in every)
    values = nice_ticks(min(y for _, y in every), max(y for _, y in every))
    low, high = values[0], values[-1]

    def place(x: float, y: float) -> Point:
        across = (x - first) / (last - first) if last > first else 0.5
        height = HEIGHT - BOTTOM - TOP
        return LEFT + across * (right - LEFT), TOP + (high - y) / (high - low) * height

    lines = [
        Line(
            points=tuple(place(*point) for point in one.points),
            stroke=one.stroke,
            fill=one.fill,
            label=f"{one.name} {_exact(one.points[-1][1], percent)}" if labelled else "",
            label_y=place(*one.points[-1])[1],
        )
        for one in series
        if one.points
    ]
    epochs = sorted({round(tick) for tick in nice_ticks(first, last, 6) if first <= tick <= last})
    said = ", ".join(
        f"{one.name} from {_exact(one.points[0][1], percent)} to "
        f"{_exact(one.points[-1][1], percent)}"
        for one in series
        if one.points
    )
    return Chart(
        title=title,
        description=f"{title} from epoch {first:g} to {last:g}: {said}",
        right=right,
        x_ticks=tuple(Tick(place(epoch, low)[0], str(epoch)) for epoch in epochs),
        y_ticks=tuple(Tick(place(first, y)[1], _number(y, percent, values)) for y in values),
        lines=_apart(lines),
    )


def _apart(lines: Sequence[Line]) -> tuple[Line, ...]:
    """Move labels down where they would touch."""
    moved, lowest = {}, -math.inf
    for number in sorted(range(len(lines)), key=lambda number: lines[number].label_y):
        lowest = max(lines[number].label_y, lowest + LABEL_DISTANCE)
        moved[number] = lowest
    return tuple(replace(line, label_y=moved[number]) for number, line in enumerate(lines))


@dataclass(frozen=True)
class Interval:
    """A value and its interval, in the chart's coordinates."""

    name: str
    text: str
    y: float
    low: float
    middle: float
    high: float


@dataclass(frozen=True)
class Intervals:
    """Values with their intervals below each other: where they overlap is seen at once."""

    intervals: tuple[Interval, ...]
    ticks: tuple[Tick, ...]
    height: float
    width: float = 2 * WIDTH
    row: float = 34.0


def interval_chart(values: Sequence[tuple[str, float, float, float]]) -> Intervals:
    """Lay out accuracies, as (name, accuracy, low, high) with shares from 0 to 1."""
    ticks = nice_ticks(min(low for *_, low, _ in values), max(high for *_, high in values), 6)
    left, right = 12.0, Intervals.width - 12.0

    def place(value: float) -> float:
        return left + (value - ticks[0]) / (ticks[-1] - ticks[0]) * (right - left)

    intervals = tuple(
        Interval(
            name=name,
            text=f"{value:.2%} ({low:.2%} to {high:.2%})",
            y=26 + number * Intervals.row,
            low=place(low),
            middle=place(value),
            high=place(high),
        )
        for number, (name, value, low, high) in enumerate(values)
    )
    marks = tuple(Tick(place(tick), _number(tick, True, ticks)) for tick in ticks)
    return Intervals(intervals, marks, height=len(values) * Intervals.row + 34)


@dataclass(frozen=True)
class Bar:
    """One bin of the reliability diagram: where its bars stand, and what they say.

    ``both`` is as far as confidence and accuracy go together, ``gap`` what one has more.
    """

    x: float
    width: float
    both_y: float
    both_height: float
    gap_y: float
    gap_height: float
    surer: bool
    images_y: float
    images_height: float
    text: str


@dataclass(frozen=True)
class Reliability:
    """The reliability diagram: accuracy above, number of images below, by confidence."""

    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    side: float = 260.0
    below: float = 60.0
    left: float = LEFT
    top: float = 2 * TOP  # room for a word


def reliability_chart(bins: Sequence[Mapping[str, float]]) -> Reliability:
    """Lay out the reliability diagram from ``Evaluation.reliability``, as dicts."""
    side, below, top = Reliability.side, Reliability.below, Reliability.top
    most = max((part["images"] for part in bins), default=0) or 1
    step = side / max(len(bins), 1)
    bars = []
    for number, part in enumerate(bins):
        if not part["images"]:
            continue
        accuracy, confidence = part["accuracy"] * side, part["confidence"] * side
        low, high = sorted((accuracy, confidence))
        height = part["images"] / most * below
        bars.append(
            Bar(
                x=LEFT + number * step,
                width=step,
                both_y=top + side - low,
                both_height=low,
                gap_y=top + side - high,
                gap_height=high - low,
                surer=confidence > accuracy,
                images_y=top + side + below - height,
                images_height=height,
                text=f"{part['images']:,} answers with a mean confidence of "
                f"{part['confidence']:.1%}: {part['accuracy']:.1%} right",
            )
        )
    ticks = tuple(Tick(share / 100 * side, f"{share}%") for share in (0, 25, 50, 75, 100))
    return Reliability(tuple(bars), ticks)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about ``count`` round numbers, evenly apart, that ``low`` to ``high`` lie within.

    >>> nice_ticks(0.43, 0.72)
    [0.4, 0.5, 0.6, 0.7, 0.8]
    >>> nice_ticks(1, 10)
    [0.0, 5.0, 10.0]
    """
    span = (high - low) or abs(high) or 1.0
    rough = span / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step for step in (1, 2, 5, 10) if step * power >= rough * 0.999) * power
    begin, end = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{number * step:.12g}") for number in range(begin, max(end, begin + 1) + 1)]


def _number(value: float, percent: bool, ticks: Sequence[float]) -> str:
    """Return a tick's text with as many digits as tell the ticks apart."""
    if not percent:
        return f"{value:g}"
    step = 100 * (ticks[1] - ticks[0])
    return f"{100 * value:.{0 if step >= 0.999 else 1 if step >= 0.0999 else 2}f}%"


def _exact(value: float, percent: bool) -> str:
    return f"{value:.1%}" if percent else f"{value:.3f}"
