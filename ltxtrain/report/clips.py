"""The clips on the page: the data sets, what is trained on, what is held out, what is left out, and the buckets."""

from __future__ import annotations

from dataclasses import dataclass

from ltxtrain.markup import Html, el, join
from ltxtrain.report.loose import JsonObject, as_count, as_list, as_number, as_object, as_objects, as_text
from ltxtrain.report.run import Run
from ltxtrain.report.sets import Listed, SetFacts
from ltxtrain.report.tables import table
from ltxtrain.units import counted


@dataclass(frozen=True)
class Counts:
    """Of the data sets that are trained on, and how many clips of the others are held out."""

    used: int
    found: int
    windows: int
    held_out: int


def counts_of(run: Run) -> Counts:
    """From the data sets; from the whole plan where it names none."""
    if not run.sets:
        windows = sum(as_count(entry.get("samples")) for entry in as_objects(run.plan.get("buckets")))
        return Counts(as_count(run.plan.get("clips_used")), as_count(run.plan.get("clips_found")), windows, 0)
    trained = [entry for entry in run.sets if entry.trained]
    return Counts(
        sum(entry.clips_used for entry in trained),
        sum(entry.clips_found for entry in trained),
        sum(entry.windows for entry in trained),
        sum(entry.clips_used for entry in run.sets if not entry.trained),
    )


def batch_range(plan: JsonObject) -> tuple[int, int]:
    """The smallest and the largest batch: buckets may have sizes of their own."""
    sizes = [as_count(entry.get("batch_size")) for entry in as_objects(plan.get("buckets")) if entry.get("batch_size")]
    sizes = sizes or [as_count(plan.get("batch_size"))]
    return min(sizes), max(sizes)


def to_words(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low} to {high}"


def shape_name(bucket: JsonObject) -> str:
    """``768 x 512, 121 frames``; a picture is a clip of one frame."""
    width, height, frames = (as_count(bucket.get(name)) for name in ("width", "height", "frames"))
    return f"{width} x {height}, {counted(frames, 'frame')}"


def clips_part(run: Run) -> Html:
    """Everything between the plan's messages and its memory."""
    parts = [el("h3", "Clips"), _sentences(run), _sets(run.sets)]
    parts += [_left_out(run.listing.left_out), _windows(run.listing.trained, held_out=False)]
    parts += [_windows(run.listing.held_out, held_out=True), el("h3", "Buckets"), _buckets(run.plan)]
    return join(parts)


def _sentences(run: Run) -> Html:
    plan, counts = run.plan, counts_of(run)
    windows = f", {counted(counts.windows, 'window')}" if counts.windows != counts.used else ""
    made = " The clips were made for this run." if plan.get("made_clips") is True else ""
    held = f" {_are(counts.held_out, 'more clip')} held out and never trained on." if counts.held_out else ""
    steps, accumulation = as_count(plan.get("steps")), as_count(plan.get("accumulation"))
    epochs = as_number(plan.get("epochs")) or 0.0
    return el(
        "p",
        f"{counts.used} of {counted(counts.found, 'clip')} {'is' if counts.used == 1 else 'are'} used{windows}.{made}"
        f"{held} {steps:,} {'step' if steps == 1 else 'steps'} of {to_words(*batch_range(plan))} x {accumulation} "
        f"samples (batch x accumulation), {as_count(plan.get('steps_per_epoch')):,} to an epoch: {epochs:.4g} "
        f"{'epoch' if epochs == 1 else 'epochs'}.",
    )


def _are(count: int, noun: str) -> str:
    return f"{counted(count, noun)} {'is' if count == 1 else 'are'}"


def _sets(sets: tuple[SetFacts, ...]) -> Html:
    if len(sets) < 2:
        return Html()
    headings = ("Data set", "Kind", "Role", "Clips", "Windows", "Uses", "Weight", "Active")
    caption = "Data sets. Uses are those of one epoch; the weight decides which set supplies the next batch"
    return table(headings, [_set_row(entry) for entry in sets], caption=caption, numeric=(3, 4, 5, 6))


def _set_row(entry: SetFacts) -> list[str]:
    role = "held out" if not entry.trained else "regularisation" if entry.regularisation else "train"
    drawn = (f"{entry.uses:,}", f"{entry.weight:g}", entry.active) if entry.trained else ("-", "-", "measured only")
    clips = f"{entry.clips_used:,} of {entry.clips_found:,}"
    return [el("code", entry.id), entry.kind, role, clips, f"{entry.windows:,}", *drawn]


def _left_out(listed: Listed) -> Html:
    if not listed.count:
        return Html()
    rows = [
        [el("code", as_text(clip.get("path"))), *(as_text(clip.get(name)) for name in ("dataset", "reason", "detail"))]
        for clip in listed.first
    ]
    headings = ("Clip", "Data set", "Reason", "What is the matter")
    return join((table(headings, rows, caption=f"Not used ({listed.count:,})"), _more(listed)))


def _windows(listed: Listed, *, held_out: bool) -> Html:
    if not listed.count:
        return Html()
    rows = [_window_row(sample) for sample in listed.first]
    windows = counted(listed.count, "window")
    caption = "Held out" if held_out else "Trained on"
    return el(
        "details",
        el("summary", f"{caption}: {windows} with {'its' if listed.count == 1 else 'their'} captions"),
        table(("Window", "From", "Bucket", "Uses in an epoch", "Caption"), rows, caption=caption, numeric=(1, 3)),
        _more(listed),
    )


def _more(listed: Listed) -> Html:
    rest = listed.count - len(listed.first)
    if not rest:
        return Html()
    return el("p", f"{rest:,} more {'stands' if rest == 1 else 'stand'} in dataset.jsonl.", class_="note")


def _window_row(sample: JsonObject) -> list[str]:
    captions = [as_text(caption) for caption in as_list(sample.get("captions"))]
    return [
        el("code", as_text(sample.get("id"))),
        "-" if sample.get("kind") == "image" else f"{as_number(sample.get('start')) or 0.0:.2f} s",
        shape_name(as_object(sample.get("bucket"))),
        "-" if sample.get("role") == "eval" else str(as_count(sample.get("repeats")) + 1),
        " | ".join(captions),
    ]


def _buckets(plan: JsonObject) -> Html:
    entries = as_objects(plan.get("buckets"))
    total = sum(as_count(entry.get("uses")) for entry in entries)
    several = len({as_text(entry.get("dataset")) for entry in entries}) > 1
    rows = [[*([el("code", as_text(entry.get("dataset")))] * several), *_bucket_row(entry, total)] for entry in entries]
    headings = (
        *(["Data set"] * several),
        *("Size and frames", "Tokens", "Windows", "Uses", "Batch", "Batches", "Share of uses"),
    )
    numeric = range(1 + several, 6 + several)
    return table(headings, rows, caption="Shapes that are trained, in one epoch", numeric=numeric)


def _bucket_row(entry: JsonObject, total: int) -> list[str]:
    bucket = as_object(entry.get("bucket"))
    uses = as_count(entry.get("uses"))
    share = 100 * uses / total if total else 0.0
    bar = el("span", "", class_="bar", style=f"width:{share:.1f}%")
    counts = (
        as_count(bucket.get("tokens")),
        as_count(entry.get("samples")),
        uses,
        as_count(entry.get("batch_size")) or 1,
        as_count(entry.get("batches")),
    )
    return [
        shape_name(bucket),
        *(f"{count:,}" for count in counts),
        el("span", bar, class_="bar-room", title=f"{share:.1f} %"),
    ]
