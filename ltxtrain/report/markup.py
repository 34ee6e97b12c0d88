"""HTML from functions. Text is escaped unless it came out of this module, so a caption cannot become markup."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

VOID = frozenset({"meta", "link", "input", "img", "source", "br"})


class Html(str):
    """Markup that is safe to place as it is."""

    __slots__ = ()


def raw(text: str) -> Html:
    """Our own text, trusted as markup: never a user's."""
    return Html(text)


def el(tag: str, *children: str | None, **attributes: str | int | float | bool | None) -> Html:
    """``el("td", caption, class_="name", data_step=4)``. None and False leave out; True is a bare attribute."""
    opening = tag + "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in VOID:
        return Html(f"<{opening}>")
    return Html(f"<{opening}>{join(children)}</{tag}>")


def join(children: Iterable[str | None]) -> Html:
    return Html("".join(child if isinstance(child, Html) else html.escape(child) for child in children if child))


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


def _attribute(name: str, value: str | int | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    spelled = name.rstrip("_").replace("_", "-")
    return f" {spelled}" if value is True else f' {spelled}="{html.escape(str(value))}"'
