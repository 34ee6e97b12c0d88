"""The clips on the page: cards with pictures, and a table of all of them."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from ltxtrain.markup import Html, el, join
from ltxtrain.prepare.findings import KINDS
from ltxtrain.prepare.inspect_records import Inspection, JudgedClip
from ltxtrain.prepare.looks import Strip
from ltxtrain.units import counted, format_duration

MOST_ROWS = 2000
MOST_ALTERNATIVES = 20
BOX_SHAPE = 4.0  # width by height of the place for pictures on a card, as in page.css


def cards(found: Inspection, clips: Sequence[JudgedClip]) -> Html:
    return el("ul", *(_card(found, clip) for clip in clips), class_="cards")


def rows(found: Inspection) -> Html:
    """The first so many clips, each in a row."""
    several = len(found.verdicts.datasets) > 1
    head = ["Clip", *(["Data set"] if several else []), "Size", "Length", "fps", "Tokens", "Verdict", "Findings"]
    numeric = {"Size", "Length", "fps", "Tokens"}
    titles = [el("th", title, scope="col", class_="number" if title in numeric else None) for title in head]
    body = [_row(found, clip, several) for clip in found.clips[:MOST_ROWS]]
    table = el("table", el("thead", el("tr", *titles)), el("tbody", *body))
    return el("div", table, class_="scroll", tabindex=0, role="region", aria_label="All clips")


def tags(found: Inspection, clip: JudgedClip) -> str:
    """What the buttons of the filter choose by."""
    codes = [finding.code for finding in found.of(clip)]
    place = [entry.id for entry in found.verdicts.datasets].index(clip.dataset)
    verdict = "used" if clip.used else "dropped"
    return " ".join([f"set-{place}", verdict, *([clip.reason] if clip.reason else []), *codes])


def _card(found: Inspection, clip: JudgedClip) -> Html:
    strip = found.sheet.get(clip.key)
    notes = [
        el("li", el("b", KINDS[finding.code].title), f" {finding.detail}" if finding.detail else "")
        for finding in found.of(clip)
    ]
    return el(
        "li",
        _strip(clip, strip),
        el("div", el("h3", clip.name), _verdict(clip), class_="head"),
        el("p", _set_words(found, clip), _facts(clip), class_="facts-line"),
        el("p", clip.detail, class_="detail") if clip.detail else None,
        *(el("p", f"{entry.path}: {entry.detail}", class_="detail") for entry in clip.lost[:3]),
        _captions(clip),
        el("ul", *notes, class_="notes") if notes else None,
        class_="card" if clip.used else "card dropped",
        data_tags=tags(found, clip),
    )


def _strip(clip: JudgedClip, strip: Strip | None) -> Html:
    """The box has one shape for all clips; the pictures keep theirs in it."""
    if strip is None:
        return el("div", "no picture", class_="strip none")
    source = f"data:image/jpeg;base64,{base64.b64encode(strip.jpeg).decode()}"
    alt = f"{'First, middle and last frame' if strip.frames > 1 else 'Picture'} of {clip.name}"
    wide = strip.width >= BOX_SHAPE * strip.height
    frames = el(
        "div",
        el("img", src=source, alt=alt, loading="lazy", decoding="async"),
        class_=f"frames of-{strip.frames} {'wide' if wide else 'tall'}",
        style=f"aspect-ratio:{strip.width}/{strip.height}",
    )
    return el("div", frames, class_="strip")


def _verdict(clip: JudgedClip) -> Html:
    if clip.bucket is None:
        return el("span", clip.reason or "not used", class_="chip bad")
    windows = f" · {len(clip.samples)} windows" if len(clip.samples) > 1 else ""
    return el("span", f"{clip.bucket.width}×{clip.bucket.height} · {clip.bucket.frames} frames{windows}", class_="chip")


def _set_words(found: Inspection, clip: JudgedClip) -> str:
    """The clip's data set, where there are several."""
    sets = {entry.id: entry.role for entry in found.verdicts.datasets}
    if len(sets) < 2:
        return ""
    return f"{clip.dataset}{' (evaluation)' if sets[clip.dataset] == 'eval' else ''} · "


def _facts(clip: JudgedClip) -> str:
    if clip.facts is None:
        return "could not be read"
    facts = clip.facts
    if clip.samples and clip.samples[0].kind == "image":
        return f"{facts.width} × {facts.height} · image"
    rate = f"{facts.fps:.4g} fps{' (variable)' if facts.variable_rate else ''}"
    return f"{facts.width} × {facts.height} · {format_duration(facts.duration_s)} · {rate} · {facts.codec}"


def _captions(clip: JudgedClip) -> Html | None:
    if not clip.captions:
        return None
    first, *others = clip.captions
    shown = el("p", first, class_="caption")
    if not others:
        return shown
    more = [el("p", text) for text in others[:MOST_ALTERNATIVES]]
    if len(others) > MOST_ALTERNATIVES:
        more.append(el("p", f"and {len(others) - MOST_ALTERNATIVES} more"))
    return join([shown, el("details", el("summary", counted(len(others), "more caption")), *more)])


def _row(found: Inspection, clip: JudgedClip, several: bool) -> Html:
    facts = clip.facts
    tokens = found.tokens.get(clip.key)
    numbers = (
        (f"{facts.width}×{facts.height}", f"{facts.duration_s:.2f} s", f"{facts.fps:.2f}") if facts else ("–", "–", "–")
    )
    titles = ", ".join(KINDS[finding.code].title for finding in found.of(clip))
    verdict = clip.bucket.key if clip.bucket else clip.reason
    if len(clip.samples) > 1:
        verdict += f", {len(clip.samples)} windows"
    return el(
        "tr",
        el("th", clip.name, scope="row"),
        el("td", clip.dataset) if several else None,
        *(el("td", text, class_="number") for text in (*numbers, "–" if tokens is None else str(tokens))),
        el("td", verdict, class_="verdict" if clip.used else "verdict bad"),
        el("td", titles or ""),
        data_tags=tags(found, clip),
    )
