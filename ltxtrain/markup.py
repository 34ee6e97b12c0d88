"""HTML from functions. Text is escaped unless it came out of this module, so a caption cannot become markup."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Mapping

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
    return Html(f"<{opening}>" if tag in VOID else f"<{opening}>{join(children)}</{tag}>")


def join(children: Iterable[str | None]) -> Html:
    return Html("".join(child if isinstance(child, Html) else _escaped(child) for child in children if child))


def content_policy(script: str, sources: Mapping[str, str]) -> str:
    """What ``Content-Security-Policy`` says: what ``sources`` lists and no script but ours, even if a caption slipped
    through. ``sources`` are for example ``{"img-src": "data:"}``."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rules = {"default-src": "'none'", **sources, "style-src": "'unsafe-inline'", "script-src": f"'sha256-{digest}'"}
    rules |= {"base-uri": "'none'", "form-action": "'none'"}
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def page(title: str, style: str, script: str, sources: Mapping[str, str], body: Iterable[Html]) -> str:
    """A whole page of HTML in one file, for light and dark. ``sources`` are those of ``content_policy``."""
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", http_equiv="Content-Security-Policy", content=content_policy(script, sources)),
        el("title", title),
        el("style", raw(style)),
    )
    whole = el("html", head, el("body", *body, el("script", raw(script))), lang="en")
    return f"<!doctype html>\n{whole}\n"


def _attribute(name: str, value: str | int | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    spelled = name.rstrip("_").replace("_", "-")
    return f" {spelled}" if value is True else f' {spelled}="{_escaped(str(value))}"'


def _escaped(text: str) -> str:
    """Names of files may hold bytes that are no UTF-8: those become a question mark."""
    return html.escape(text.encode("utf-8", "replace").decode("utf-8"))
