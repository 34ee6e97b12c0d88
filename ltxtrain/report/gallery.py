"""Validation videos with a step slider: the base model (step 0) beside the step that the slider shows."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ltxtrain.markup import Html, el
from ltxtrain.report.loose import as_count, as_text
from ltxtrain.report.run import Run, Video
from ltxtrain.units import counted

MIB = 1024**2
POSTER_LIMIT, POSTERS_LIMIT = 2 * MIB, 24 * MIB
VIDEO_LIMIT, VIDEOS_LIMIT = 4 * MIB, 40 * MIB
TYPES = {".mp4": "video/mp4", ".webm": "video/webm", ".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}


@dataclass(frozen=True)
class Embedded:
    """Which files stand in the page itself; the others are referenced by their path in the run folder."""

    root: Path
    files: frozenset[Path]

    def reference(self, path: Path) -> str:
        """The path relative to the run folder, as a URL."""
        return quote(path.relative_to(self.root).as_posix())

    def source(self, path: Path) -> str:
        """A data URI where the file is embedded, else the reference."""
        kind = TYPES.get(path.suffix.lower())
        if path not in self.files or kind is None:
            return self.reference(path)
        return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def gallery_section(run: Run) -> Html:
    """All prompts, each with its base video and one video for each validated step."""
    if not run.videos:
        return el("p", "No validation video has been rendered.", class_="empty")
    embedded = choose_embedded(run)
    trained = sorted({video.step for video in run.videos if video.step > 0})
    prompts = [_prompt(videos, embedded) for videos in _by_name(run.videos).values()]
    controls = _controls(trained) if trained else None
    return el("div", controls, el("div", *prompts, class_="prompts"), class_="gallery")


def choose_embedded(run: Run) -> Embedded:
    """The last step first, then the base model, then the others from late to early, while the budgets last."""
    last = max(video.step for video in run.videos)
    videos = sorted(run.videos, key=lambda video: (video.step != last, video.step != 0, -video.step))
    posters = _within_budget((video.poster for video in videos), POSTER_LIMIT, POSTERS_LIMIT)
    files = _within_budget((video.file for video in videos), VIDEO_LIMIT, VIDEOS_LIMIT)
    return Embedded(run.root, frozenset(posters | files))


def _within_budget(paths: Iterable[Path | None], limit: int, budget: int) -> set[Path]:
    chosen: set[Path] = set()
    left = budget
    for path in paths:
        size = path.stat().st_size if path else 0
        if path and path not in chosen and size <= min(limit, left):
            chosen.add(path)
            left -= size
    return chosen


def _by_name(videos: Sequence[Video]) -> dict[str, list[Video]]:
    """Prompts in the order of the last validation, which is the order of the user's list."""
    last = max(video.step for video in videos)
    grouped: dict[str, list[Video]] = {video.name: [] for video in videos if video.step == last}
    for video in videos:
        grouped.setdefault(video.name, []).append(video)
    return grouped


def _controls(steps: Sequence[int]) -> Html:
    play = el("button", "Play together", type="button", class_="play")
    if len(steps) == 1:
        return el("div", play, class_="controls", data_steps=str(steps[0]))
    last = len(steps) - 1
    told = f"step {steps[-1]}"
    slider = el("input", id="step", type="range", min=0, max=last, step=1, value=last, aria_valuetext=told)
    return el(
        "div",
        el("label", "Step", for_="step"),
        slider,
        el("output", str(steps[-1]), for_="step"),
        play,
        class_="controls",
        data_steps=" ".join(str(step) for step in steps),
    )


def _prompt(videos: Sequence[Video], embedded: Embedded) -> Html:
    base = [_figure(video, embedded) for video in videos if video.step == 0]
    trained = [_figure(video, embedded) for video in videos if video.step > 0]
    latest = videos[-1]
    return el(
        "article",
        el("div", *base, el("div", *trained, class_="trained") if trained else None, class_="pair"),
        el("p", latest.prompt or latest.name, class_="caption"),
        el("p", _facts(latest), class_="note"),
        class_="prompt",
    )


def _figure(video: Video, embedded: Embedded) -> Html:
    name = "Base model" if video.step == 0 else f"Step {video.step}"
    return el("figure", _media(video, embedded), el("figcaption", name), data_step=video.step)


def _media(video: Video, embedded: Embedded) -> Html:
    what = f"{'base model' if video.step == 0 else f'step {video.step}'}: {video.prompt or video.name}"
    poster = embedded.source(video.poster) if video.poster else None
    size = {"width": as_count(video.facts.get("width")) or None, "height": as_count(video.facts.get("height")) or None}
    if video.file is None and poster is None:
        return el("p", "This video is not in the run folder any more.", class_="empty")
    if video.file is None:
        return el("img", src=poster, alt=f"Still, {what}", **size)
    sources = [embedded.reference(video.file)]
    if video.file in embedded.files:  # some browsers play no data URI: they go on to the file
        sources.insert(0, embedded.source(video.file))
    kind = TYPES.get(video.file.suffix.lower())
    return el(
        "video",
        *(el("source", src=source, type=kind) for source in sources),
        poster=poster,
        controls=True,
        muted=True,
        loop=True,
        playsinline=True,
        preload="none",
        aria_label=f"Video, {what}",
        **size,
    )


def _facts(video: Video) -> str:
    """``768 x 512, 121 frames, 30 steps, guidance 3, seed 42``, as far as the index tells."""
    facts = video.facts
    width, height = as_count(facts.get("width")), as_count(facts.get("height"))
    parts = [f"{width} x {height}"] if width and height else []
    parts += [counted(as_count(facts["frames"]), "frame")] if facts.get("frames") else []
    parts += [counted(as_count(facts["steps"]), "sampling step")] if facts.get("steps") else []
    parts += [f"{name} {as_text(facts[name])}" for name in ("guidance", "seed") if facts.get(name) is not None]
    return ", ".join(parts)
