"""How sizes, lengths and frame rates are spread: bars, from plain numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from ltxtrain.facts.media import ClipFacts
from ltxtrain.markup import Html, el, raw
from ltxtrain.units import counted

MOST_ROWS = 8
MOST_BINS = 32
SHORT_SIDES = (240, 360, 480, 576, 720, 1080, 1440, 2160)
USUAL_RATES = (23.976, 24.0, 25.0, 29.97, 30.0, 48.0, 50.0, 59.94, 60.0)


def sizes_chart(facts: Sequence[ClipFacts]) -> Html:
    """Each size by name while they are few, else the short sides by class."""
    named = Counter(f"{clip.width} × {clip.height}" for clip in facts)
    if len(named) <= MOST_ROWS:
        return bars("Size", named.most_common())
    classes = Counter(_side_class(min(clip.width, clip.height)) for clip in facts)
    rows = [(_side_words(place), classes[place]) for place in sorted(classes)]
    return bars("Short side", rows, f"{len(named)} different sizes")


def _side_class(side: int) -> int:
    return sum(side >= limit for limit in SHORT_SIDES)


def _side_words(place: int) -> str:
    if place == 0:
        return f"below {SHORT_SIDES[0]}"
    low = SHORT_SIDES[place - 1]
    return f"{low} and more" if place == len(SHORT_SIDES) else f"{low} – {SHORT_SIDES[place] - 1}"


def rates_chart(facts: Sequence[ClipFacts], framerate: float) -> Html:
    """``framerate`` is what clips are resampled to."""
    rates = Counter(_rate(clip) for clip in facts)
    shown = sorted(rates.most_common(MOST_ROWS))
    rows = [(f"{rate:.4g} fps", count) for rate, count in shown]
    if rest := sum(rates.values()) - sum(count for _, count in shown):
        rows.append(("others", rest))
    variable = sum(clip.variable_rate for clip in facts)
    note = f"Trained at {framerate:g} fps."
    return bars("Frame rate", rows, f"{note} Of variable rate: {variable}." if variable else note)


def _rate(clip: ClipFacts) -> float:
    """The usual rate that is meant, where containers round; else to a tenth."""
    near = min(USUAL_RATES, key=lambda rate: abs(rate - clip.fps))
    return near if abs(near - clip.fps) < 0.004 * near else round(clip.fps, 1)


def bars(title: str, rows: Sequence[tuple[str, int]], note: str = "") -> Html:
    """A row for each name, with its bar and its count."""
    most = max((count for _, count in rows), default=1)
    body = [
        el(
            "tr",
            el("th", name, scope="row"),
            el("td", _bar(count / most), class_="bar-cell"),
            el("td", f"{count:,}", class_="number"),
        )
        for name, count in rows
    ]
    return _figure(title, el("table", el("tbody", *body), class_="bars"), note)


def _bar(part: float) -> Html:
    rect = el("rect", width=f"{100 * part:.2f}%", height="100%", rx=2)
    return el("svg", rect, class_="bar", aria_hidden="true")


def lengths_chart(seconds: Sequence[float], trained_s: float) -> Html:
    """How many clips are how long. ``trained_s``, the length of a training sample, is marked; 0 marks nothing."""
    if not seconds:
        return Html()
    low, high, step = _range([*seconds, *([trained_s] if trained_s else [])])
    counts = Counter(min(int((value - low) / step), round((high - low) / step) - 1) for value in seconds)
    bins, most = round((high - low) / step), max(counts.values())
    columns = [
        el(
            "rect",
            el("title", f"{_seconds(low + place * step)} to {_seconds(low + (place + 1) * step)}: {count:,}"),
            x=f"{100 * (place + 0.06) / bins:.2f}%",
            width=f"{88 / bins:.2f}%",
            y=f"{100 * (1 - count / most):.2f}%",
            height=f"{100 * count / most:.2f}%",
            rx=2,
        )
        for place, count in sorted(counts.items())
    ]
    mark = f"{100 * (trained_s - low) / (high - low):.2f}%"
    line = el("line", x1=mark, x2=mark, y1="0", y2="100%", class_="mark") if trained_s else None
    summary = f"From {_seconds(min(seconds))} to {_seconds(max(seconds))}"
    svg = el("svg", *columns, line, class_="histogram", role="img", aria_label=f"{summary}, most often {most:,} clips")
    longest = f"{_seconds(high)}{' and more' if max(seconds) > high else ''}"
    ticks = [_seconds(low), _seconds((low + high) / 2), longest]
    labels = el("div", *(el("span", text) for text in ticks), class_="ticks", aria_hidden="true")
    trained = f"The line: a training sample, {_seconds(trained_s)}." if trained_s else ""
    top = el("span", counted(most, "clip"), class_="top", aria_hidden="true")
    return _figure("Length", el("div", top, svg, labels, class_="plot"), trained)


def _range(values: Sequence[float]) -> tuple[float, float, float]:
    """Both ends and the width of a bin: 1, 2 or 5 times a power of ten, from a round number to a round number.

    A few very long clips stand in the last bin: they must not flatten all others.
    """
    ordered = sorted(values)
    most = max(ordered[int(0.98 * (len(ordered) - 1))], ordered[0])
    least = 0.0 if ordered[0] < 0.5 * most else ordered[0]
    rough = max((most - least) / 12, 0.05)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    low = math.floor(least / step) * step
    bins = min(MOST_BINS, max(2, math.ceil((most - low) / step + 1e-9)))
    bins += bins % 2  # so that the middle is a round number, too
    return low, low + bins * step, step


def _seconds(value: float) -> str:
    if value < 120:
        return f"{value:.3g} s"
    return f"{value / 60:.3g} min"


def _figure(title: str, content: Html, note: str) -> Html:
    below = el("p", note, class_="note") if note else raw("")
    return el("figure", el("figcaption", el("h3", title)), content, below, class_="chart")
