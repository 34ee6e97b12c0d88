"""Tables of the page, and values that stay on one line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ltxtrain.markup import Html, el


def whole(text: str) -> Html:
    """A number and its unit, or the like, that stay on one line."""
    return el("span", text, class_="whole")


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str, numeric: Sequence[int] = ()) -> Html:
    """A table that scrolls sideways by itself on a narrow screen. ``numeric`` columns are aligned right."""
    head = el("tr", *(el("th", text, scope="col", class_=_alignment(i, numeric)) for i, text in enumerate(headings)))
    body = [el("tr", *(el("td", cell, class_=_alignment(i, numeric)) for i, cell in enumerate(row))) for row in rows]
    inner = el("table", el("caption", caption), el("thead", head), el("tbody", *body))
    return el("div", inner, class_="scroll", tabindex=0, role="region", aria_label=caption)


def _alignment(column: int, numeric: Sequence[int]) -> str | None:
    return "number" if column in numeric else None
