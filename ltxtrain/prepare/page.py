"""``inspect.html``: the clips of a run on one page that needs no server and asks nothing of the network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.resources import files

from ltxtrain.facts.reasons import EXPLANATIONS
from ltxtrain.markup import Html, el, join, page
from ltxtrain.prepare.findings import KINDS
from ltxtrain.prepare.inspect_records import Inspection, JudgedClip
from ltxtrain.prepare.page_charts import bars, lengths_chart, rates_chart, sizes_chart
from ltxtrain.prepare.page_clips import MOST_ROWS, cards, rows
from ltxtrain.units import format_duration

MOST_MESSAGES = 30
# Nothing but the page itself.
SOURCES = {"img-src": "data:"}


def render_page(found: Inspection) -> str:
    """The page as text. The same inspection gives the same bytes."""
    main = el("main", *(_section(*section) for section in _sections(found)))
    body = (_header(found), main, _footer(found))
    return page(f"{_title(found)} - data set", _asset("page.css"), _asset("page.js"), SOURCES, body)


def _sections(found: Inspection) -> list[tuple[str, str, Html]]:
    shown = _shown(found)
    sections = [("look", "What to look at", _attention(found))]
    if any(clip.facts for clip in found.clips):
        sections.append(("shapes", "Sizes, lengths, rates", _charts(found)))
    sections.append(("clips", "Clips", join([_filter(found), _limits(found, shown), cards(found, shown)])))
    sections.append(("all", "All clips", join([_row_limit(found), rows(found)])))
    return sections


def _section(key: str, title: str, content: Html) -> Html:
    return el("section", el("h2", title, id=f"{key}-title"), content, id=key, aria_labelledby=f"{key}-title")


def _title(found: Inspection) -> str:
    names = [dataset.id for dataset in found.verdicts.datasets]
    if len(names) == 1:
        return found.verdicts.datasets[0].root.resolve().name or names[0]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _header(found: Inspection) -> Html:
    problem = found.verdicts.problem
    places = [el("code", str(dataset.root)) for dataset in found.verdicts.datasets[:5]]
    told = [el("p", line) for line in problem.splitlines()]
    hint = found.verdicts.hint
    return el(
        "header",
        el("p", "Clips as a training sees them", class_="eyebrow"),
        el("h1", _title(found)),
        el("p", *_between(places), class_="places"),
        _headline(found),
        el(
            "div",
            el("p", el("strong", "A run could not begin.")),
            *told,
            el("p", hint) if hint else None,
            class_="problem",
        )
        if problem
        else None,
    )


def _between(parts: Sequence[Html]) -> list[str]:
    return [piece for part in parts for piece in (part, " ")][:-1]


def _headline(found: Inspection) -> Html:
    used = [clip for clip in found.clips if clip.used]
    trained = {dataset.id for dataset in found.verdicts.datasets if dataset.role == "train"}
    samples = sum(len(clip.samples) for clip in used if clip.dataset in trained)
    seconds = sum(clip.facts.duration_s for clip in used if clip.facts)
    odd = len(found.findings)
    facts = [
        ("Clips", f"{len(found.clips):,}", _datasets_words(found)),
        ("Used", f"{len(used):,}", _part(len(used), len(found.clips))),
        ("Left out", f"{len(found.clips) - len(used):,}", _reasons(found)),
        ("Training samples", f"{samples:,}", "in one epoch, without repeats"),
        ("Length used", format_duration(seconds) if seconds else "–", "of clips that are used"),
        ("With a finding", f"{odd:,}", _part(odd, len(found.clips))),
    ]
    return el(
        "dl",
        *(
            el("div", el("dt", name), el("dd", value, el("small", note) if note else None))
            for name, value, note in facts
        ),
        class_="facts",
    )


def _datasets_words(found: Inspection) -> str:
    count = len(found.verdicts.datasets)
    return f"in {count} data sets" if count > 1 else "found in the folder"


def _part(count: int, whole: int) -> str:
    return f"{100 * count / whole:.3g} % of all" if whole else ""


def _reasons(found: Inspection) -> str:
    counts = Counter(clip.reason for clip in found.clips if not clip.used)
    return ", ".join(f"{count} {reason}" for reason, count in counts.most_common(2))


def _attention(found: Inspection) -> Html:
    """Reasons for leaving clips out, then findings, each with what to do; a click shows those clips."""
    entries = [
        _entry(count, f"Left out: {reason}", _sentence(reason), reason, True)
        for reason, count in _dropped(found).most_common()
    ]
    entries += [
        _entry(count, KINDS[code].title, KINDS[code].advice, code, False) for code, count in found.counts.items()
    ]
    messages = [
        el("li", el("strong", "warning: ") if warned else None, text)
        for warned, texts in ((True, found.verdicts.warnings), (False, found.verdicts.notices))
        for text in texts
    ]
    plan = el(
        "details",
        el("summary", f"What the plan says ({len(messages)})"),
        el("ul", *messages[:MOST_MESSAGES], class_="messages"),
    )
    listed = el("ul", *entries, class_="attention") if entries else el("p", "Nothing odd was found.", class_="calm")
    return join([listed, plan if messages else None])


def _dropped(found: Inspection) -> Counter[str]:
    """Clips by the reason that they are left out for, but for those that a finding tells better."""
    told = ("no-caption", "bad-caption")
    return Counter(clip.reason for clip in found.clips if not clip.used and clip.reason not in told)


def _sentence(reason: str) -> str:
    text = EXPLANATIONS.get(reason, "")  # type: ignore[call-overload]
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _entry(count: int, title: str, advice: str, tag: str, bad: bool) -> Html:
    return el(
        "li",
        el("span", f"{count:,}", class_="count bad" if bad else "count"),
        el("div", el("h3", title), el("p", advice)),
        el("button", "Show", type="button", data_show=tag),
    )


def _charts(found: Inspection) -> Html:
    videos = {dataset.id for dataset in found.verdicts.datasets if dataset.kind == "video"}
    facts = [clip.facts for clip in found.clips if clip.facts]
    moving = [clip.facts for clip in found.clips if clip.facts and clip.dataset in videos]
    frames = Counter(sample.bucket.frames for clip in found.clips for sample in clip.samples if clip.dataset in videos)
    trained = frames.most_common(1)[0][0] / found.verdicts.framerate if len(frames) == 1 else 0.0
    buckets = Counter(sample.bucket for clip in found.clips for sample in clip.samples)
    shown = [(f"{bucket.width} × {bucket.height} × {bucket.frames}", n) for bucket, n in sorted(buckets.items())[:12]]
    more = f"and {len(buckets) - 12} more" if len(buckets) > 12 else "Width, height and frames of training samples."
    charts = [sizes_chart(facts)]
    if moving:
        charts += [
            lengths_chart([clip.duration_s for clip in moving], trained),
            rates_chart(moving, found.verdicts.framerate),
        ]
    return el("div", *charts, bars("Buckets", shown, more) if shown else None, class_="charts")


def _filter(found: Inspection) -> Html:
    """Buttons for verdicts, reasons and findings, and a field for words. Hidden where no script runs."""
    used = sum(clip.used for clip in found.clips)
    choices = [("", "All", len(found.clips)), ("used", "Used", used)]
    if used < len(found.clips):
        choices.append(("dropped", "Left out", len(found.clips) - used))
    if len(found.verdicts.datasets) > 1:
        sizes = Counter(clip.dataset for clip in found.clips)
        choices += [(f"set-{n}", entry.id, sizes[entry.id]) for n, entry in enumerate(found.verdicts.datasets)]
    choices += [(reason, reason, count) for reason, count in _dropped(found).most_common()]
    choices += [(code, KINDS[code].title, count) for code, count in found.counts.items()]
    buttons = [
        el(
            "button",
            label,
            el("span", f"{count:,}"),
            type="button",
            data_tag=tag,
            aria_pressed="false" if tag else "true",
        )
        for tag, label, count in choices
    ]
    field = el("input", type="search", id="words", placeholder="Name or caption", aria_label="Name or caption")
    return el("div", el("div", *buttons, class_="choices"), field, el("output", ""), class_="filter")


def _shown(found: Inspection) -> list[JudgedClip]:
    """Clips with a card: those with pictures, and as many of the others as there are pictures at most."""
    most = max(len(found.sheet), 100)
    without = [clip for clip in found.clips if clip.key not in found.sheet]
    chosen = {clip.key for clip in sorted(without, key=lambda clip: (clip.used, not found.of(clip)))[:most]}
    return [clip for clip in found.clips if clip.key in found.sheet or clip.key in chosen]


def _limits(found: Inspection, shown: Sequence[JudgedClip]) -> Html | None:
    if len(shown) == len(found.clips):
        return None
    text = f"{len(shown):,} of {len(found.clips):,} clips have a card here, those with something to say first; "
    return el(
        "p", f"{text}the counts are of all clips. --thumbnails sets how many, --json prints every clip.", class_="note"
    )


def _row_limit(found: Inspection) -> Html | None:
    if len(found.clips) <= MOST_ROWS:
        return None
    return el("p", f"The first {MOST_ROWS:,} of {len(found.clips):,} clips; --json prints every clip.", class_="note")


def _footer(found: Inspection) -> Html:
    how = (
        "counted with the model's own tokenizer"
        if found.tokens_exact
        else "estimated: the model's tokenizer is not on this disk"
    )
    looked = "" if found.looked else " No frames were looked at, so black, still and double clips are not told."
    return el(
        "footer",
        el("p", f"Made by ltxtrain dataset inspect. Tokens are {how}.{looked} No file of the data set was changed."),
    )


def _asset(name: str) -> str:
    return (files("ltxtrain.prepare") / name).read_text(encoding="utf-8")
