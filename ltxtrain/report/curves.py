"""Curves as inline SVG, from plain numbers.

The drawing area is a 1000 x 1000 box that stretches with the page; tick labels are HTML beside it, so that text keeps
its size on a narrow screen. ``page.js`` reads the hover values back out of the paths with the ``data-x`` and ``data-y``
ranges, so no number stands in the page twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ltxtrain.markup import Html, el, join

Point = tuple[float, float]

BOX = 1000.0
COLUMNS = 400  # a longer curve keeps the lowest and the highest point of each of so many columns
TABLE_ROWS = 24


@dataclass(frozen=True)
class Series:
    """One line. ``style`` is the class that page.css colours: ``raw``, ``main`` or ``band-0`` to ``band-3``."""

    name: str
    points: tuple[Point, ...]
    style: str = "main"


@dataclass(frozen=True)
class Chart:
    """``robust``: the y axis starts at zero and fits 98 % of the values, so that single slow steps flatten nothing.

    ``last`` is the step that the x axis reaches at least, so that charts beside each other end alike.
    """

    key: str
    title: str
    series: tuple[Series, ...]
    note: str = ""
    robust: bool = False
    last: float = 0.0


@dataclass(frozen=True)
class Axis:
    """Both ends of an axis and its ticks, all in the data's units."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def place(self, value: float) -> float:
        """0 at ``low``, 1 at ``high``; values outside are put on the edge."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


def smooth(points: Sequence[Point], span: float) -> tuple[Point, ...]:
    """Exponential mean over about ``span`` points, free of the start's bias: the first value is the first point's."""
    keep = 1 - 2 / (span + 1)
    total, weight = 0.0, 0.0
    smoothed = []
    for x, y in points:
        total, weight = keep * total + (1 - keep) * y, keep * weight + (1 - keep)
        smoothed.append((x, total / weight))
    return tuple(smoothed)


def smoothing_span(count: int) -> int:
    """How many steps the smooth line averages: a twentieth of the run, at least 5 and at most 200."""
    return max(5, min(200, count // 20))


def thin(points: Sequence[Point], columns: int = COLUMNS) -> tuple[Point, ...]:
    """At most about two points a column, the lowest and the highest, so that no spike is lost. Ends are kept."""
    if len(points) <= 2 * columns:
        return tuple(points)
    kept = {0, len(points) - 1}
    for column in range(columns):
        inside = range(column * len(points) // columns, (column + 1) * len(points) // columns)
        kept.add(min(inside, key=lambda i: points[i][1]))
        kept.add(max(inside, key=lambda i: points[i][1]))
    return tuple(points[i] for i in sorted(kept))


def nice_step(span: float, most: int) -> float:
    """The smallest of 1, 2, 5 times a power of ten that cuts ``span`` into at most ``most`` parts."""
    rough = span / most
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step for factor in (1, 2, 5, 10, 20) if (step := factor * power) >= rough * (1 - 1e-9))


def value_axis(values: Sequence[float], *, most: int = 5) -> Axis:
    """A y axis from tick to tick. It starts at zero unless the values move in a small part of their height."""
    low, high = min(values), max(values)
    if low == high:
        low, high = (0.0, 2 * high) if high > 0 else (low - 1, high + 1)
    if 0 < low < 0.5 * high:
        low = 0.0
    step = nice_step(high - low, most)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(_clean(i * step) for i in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], ticks)


def step_axis(low: float, high: float, *, most: int = 5) -> Axis:
    """An x axis that ends with the data and starts at zero where the data nearly does; ticks on round steps."""
    if low == high:
        return Axis(low - 0.5, high + 0.5, (low,))
    if 0 < low < 0.05 * high:
        low = 0.0
    step = max(1.0, nice_step(high - low, most))
    ticks = tuple(i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1))
    return Axis(low, high, ticks)


def path_data(points: Sequence[Point], x: Axis, y: Axis) -> str:
    """``M0 500L10.5 480...`` in the box, y downwards. A single point becomes a short dash, so that it can be seen."""
    places = [(BOX * x.place(px), BOX * (1 - y.place(py))) for px, py in points]
    if len(places) == 1:
        ((left, top),) = places
        places = [(left - 4, top), (left + 4, top)]
    return "M" + "L".join(f"{_short(left)} {_short(top)}" for left, top in places)


def chart_html(chart: Chart) -> Html:
    """The figure: title, legend, plot, readout and the values as a table. Nothing where there are no points."""
    series = tuple(Series(line.name, thin(line.points), line.style) for line in chart.series if line.points)
    if not series:
        return Html()
    xs = [x for line in series for x, _ in line.points]
    ys = [y for line in series for _, y in line.points]
    x, y = step_axis(min(xs), max(*xs, chart.last)), value_axis([0.0, *_within(ys)] if chart.robust else ys)
    off_scale = sum(value > y.high for value in ys)
    note = f"{chart.note} {_off_scale(off_scale, max(ys))}" if off_scale else chart.note
    return el(
        "figure",
        el("figcaption", el("h3", chart.title), _legend(series) if len(series) > 1 else None),
        _plot(chart, series, x, y),
        el("p", note, class_="note") if note else None,
        el(
            "div",
            el("details", el("summary", "Values"), _values(chart, series)),
            el("output", "", class_="readout", aria_live="polite"),
            class_="under",
        ),
        class_="chart",
        id=f"chart-{chart.key}",
    )


def number(value: float) -> str:
    """Short and readable: ``1e-4``, ``0.0312``, ``1.27``, ``412``, ``12k``."""
    size = abs(value)
    if size == 0:
        return "0"
    if size < 1e-3:
        return _scientific(value)
    if size < 1000:
        return f"{value:.3g}"
    if size < 1e6:
        return f"{value / 1000:.4g}k"
    return f"{value / 1e6:.4g}M"


def _scientific(value: float) -> str:
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _plot(chart: Chart, series: Sequence[Series], x: Axis, y: Axis) -> Html:
    grid = "".join(f"M0 {_short(BOX * (1 - y.place(tick)))}H{_short(BOX)}" for tick in y.ticks)
    lines = [
        el("path", class_=f"line {line.style}", d=path_data(line.points, x, y), data_name=line.name) for line in series
    ]
    svg = el(
        "svg",
        el("path", class_="grid", d=grid),
        *lines,
        el("path", class_="cursor", d=""),
        viewBox=f"0 0 {_short(BOX)} {_short(BOX)}",
        preserveAspectRatio="none",
        role="img",
        tabindex=0,
        aria_label=_summary(chart, series),
        data_x=f"{x.low!r} {x.high!r}",
        data_y=f"{y.low!r} {y.high!r}",
    )
    left = el("div", *(_label(tick, "bottom", y) for tick in y.ticks), class_="y-labels", aria_hidden="true")
    below = el("div", *(_label(tick, "left", x) for tick in x.ticks), class_="x-labels", aria_hidden="true")
    return el("div", left, svg, below, el("span", "step", class_="x-name", aria_hidden="true"), class_="plot")


def _label(tick: float, side: str, axis: Axis) -> Html:
    return el("span", number(tick), style=f"{side}:{_short(100 * axis.place(tick))}%")


def _legend(series: Sequence[Series]) -> Html:
    return el("ul", *(el("li", line.name, class_=line.style) for line in series), class_="legend")


def _summary(chart: Chart, series: Sequence[Series]) -> str:
    """What a screen reader says in place of the curve."""
    parts = []
    for line in series:
        (first_x, first), (last_x, last) = line.points[0], line.points[-1]
        parts.append(f"{line.name}: {number(first)} at step {first_x:.0f}, {number(last)} at step {last_x:.0f}")
    return f"{chart.title}. {'; '.join(parts)}. Left and right arrow keys read single values."


def _values(chart: Chart, series: Sequence[Series]) -> Html:
    """Up to 24 steps of the drawn points, evenly spread, for readers of tables."""
    columns = [dict(line.points) for line in series]
    xs = sorted({x for column in columns for x in column})
    if len(xs) > TABLE_ROWS:
        xs = [xs[i * (len(xs) - 1) // (TABLE_ROWS - 1)] for i in range(TABLE_ROWS)]
    head = el("tr", *(el("th", name, scope="col", class_="number") for name in ("Step", *(s.name for s in series))))
    rows = [el("tr", *(el("td", text, class_="number") for text in _value_row(x, columns))) for x in xs]
    inner = el("table", el("caption", f"{chart.title} by step"), el("thead", head), el("tbody", join(rows)))
    return el("div", inner, class_="scroll")


def _value_row(x: float, columns: Sequence[dict[float, float]]) -> list[str]:
    return [f"{x:.0f}", *(number(column[x]) if x in column else "-" for column in columns)]


def _within(values: Sequence[float]) -> list[float]:
    """The values up to twice the 98th percentile: single slow steps do not set the scale."""
    ordered = sorted(values)
    most = 2 * ordered[int(0.98 * (len(ordered) - 1))]
    return [value for value in ordered if value <= most]


def _off_scale(count: int, most: float) -> str:
    return f"{count} {'value is' if count == 1 else 'values are'} off the scale, the highest {number(most)}."


def _short(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _clean(value: float) -> float:
    """0.6000000000000001 -> 0.6, so that ticks and the data range read well."""
    return float(f"{value:.12g}")
