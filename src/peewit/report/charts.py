"""Chart layout: from values to the coordinates that the templates draw as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

Point = tuple[float, float]

# In SVG units, about one pixel each on a phone
WIDTH, HEIGHT = 420.0, 240.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 10.0, 34.0
LABELS = 122.0  # width of the labels at the ends of the lines
LABEL_DISTANCE = 16.0
# With more points, a marker at each would hide the line
MARKED = 30


@dataclass(frozen=True)
class Tick:
    """A position on an axis and its label."""

    place: float
    text: str


class Series(NamedTuple):
    """The (epoch, value) points of a line, and its classes in the style sheet."""

    name: str
    points: Sequence[Point]
    stroke: str
    fill: str


@dataclass(frozen=True)
class Line:
    """A line of a chart, in chart coordinates."""

    points: tuple[Point, ...]
    stroke: str
    fill: str
    label: str
    label_y: float

    @property
    def path(self) -> str:
        """The points in the format of an SVG polyline."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)

    @property
    def marked(self) -> bool:
        """Whether each point has a marker."""
        return len(self.points) <= MARKED


@dataclass(frozen=True)
class Chart:
    """A line chart over epochs."""

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
    """Lay out a line chart over epochs.

    Parameters
    ----------
    title : str
    series : sequence of Series
        Values that are not finite are skipped. Later lines are drawn on top of earlier ones.
    percent : bool
        Whether the values are fractions, 0 to 1, to be shown as percentages.
    labelled : bool
        Whether each line ends with its name and last value.
    """
    series = [
        one._replace(points=[point for point in one.points if math.isfinite(point[1])])
        for one in series
    ]
    points = [point for one in series for point in one.points]
    right = WIDTH - (LABELS if labelled else RIGHT)
    if not points:
        return Chart(title, "no finished epoch yet", right, (), (), ())
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    values = nice_ticks(min(y for _, y in points), max(y for _, y in points))
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
    values_text = ", ".join(
        f"{one.name} from {_exact(one.points[0][1], percent)} to "
        f"{_exact(one.points[-1][1], percent)}"
        for one in series
        if one.points
    )
    return Chart(
        title=title,
        description=f"{title} from epoch {first:g} to {last:g}: {values_text}",
        right=right,
        x_ticks=tuple(Tick(place(epoch, low)[0], str(epoch)) for epoch in epochs),
        y_ticks=tuple(Tick(place(first, y)[1], _number(y, percent, values)) for y in values),
        lines=_separated(lines),
    )


def _separated(lines: Sequence[Line]) -> tuple[Line, ...]:
    """Move labels down so that they do not overlap."""
    moved, lowest = {}, -math.inf
    for number in sorted(range(len(lines)), key=lambda number: lines[number].label_y):
        lowest = max(lines[number].label_y, lowest + LABEL_DISTANCE)
        moved[number] = lowest
    return tuple(replace(line, label_y=moved[number]) for number, line in enumerate(lines))


@dataclass(frozen=True)
class Interval:
    """A value and its interval, in chart coordinates."""

    name: str
    text: str
    y: float
    low: float
    middle: float
    high: float


@dataclass(frozen=True)
class Intervals:
    """Values with their intervals, one below the other, so that overlaps are visible."""

    intervals: tuple[Interval, ...]
    ticks: tuple[Tick, ...]
    height: float
    width: float = 2 * WIDTH
    row: float = 34.0


def interval_chart(values: Sequence[tuple[str, float, float, float]]) -> Intervals:
    """Lay out accuracies with their intervals: (name, accuracy, low, high), fractions 0 to 1."""
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
    """One bin of the reliability diagram.

    The bar is stacked: ``common`` is the lower of confidence and accuracy, ``gap`` the distance to
    the higher one.
    """

    x: float
    width: float
    common_y: float
    common_height: float
    gap_y: float
    gap_height: float
    overconfident: bool
    images_y: float
    images_height: float
    text: str


@dataclass(frozen=True)
class Reliability:
    """The reliability diagram: accuracy by confidence, and below it the number of images."""

    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    side: float = 260.0
    below: float = 60.0
    left: float = LEFT
    top: float = 2 * TOP  # space for the label of the axis


def reliability_chart(bins: Sequence[Mapping[str, float]]) -> Reliability:
    """Lay out the reliability diagram of ``Evaluation.reliability``, given as dicts."""
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
                common_y=top + side - low,
                common_height=low,
                gap_y=top + side - high,
                gap_height=high - low,
                overconfident=confidence > accuracy,
                images_y=top + side + below - height,
                images_height=height,
                text=f"{part['images']:,} images: mean confidence {part['confidence']:.1%}, "
                f"accuracy {part['accuracy']:.1%}",
            )
        )
    ticks = tuple(Tick(share / 100 * side, f"{share}%") for share in (0, 25, 50, 75, 100))
    return Reliability(tuple(bars), ticks)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about ``count`` evenly spaced round numbers that enclose ``low`` to ``high``.

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
    """Return the label of a tick, with as many digits as distinguish the ticks."""
    if not percent:
        return f"{value:g}"
    step = 100 * (ticks[1] - ticks[0])
    return f"{100 * value:.{0 if step >= 0.999 else 1 if step >= 0.0999 else 2}f}%"


def _exact(value: float, percent: bool) -> str:
    return f"{value:.1%}" if percent else f"{value:.3f}"
