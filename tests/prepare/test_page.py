"""The page: what strangers write into names and captions stays text, nothing is asked of the network, and limits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltxtrain.facts.media_facts import ClipFacts
from ltxtrain.plan.records import Bucket, Sample
from ltxtrain.prepare.findings import CODES, Finding
from ltxtrain.prepare.inspect_records import Inspection, JudgedClip, Verdicts
from ltxtrain.prepare.looks import Strip, strip_of
from ltxtrain.prepare.page import render_page
from ltxtrain.prepare.page_clips import MOST_ROWS
from tests.datasets import PLAIN

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>&amp;</style>\u202e'
STRIP = strip_of(np.zeros((3, 9, 16, 3), np.uint8))


@dataclass
class Read(HTMLParser):
    """Every element and attribute, and all text, of a page."""

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def having(self, name: str) -> list[str]:
        return [value or "" for _, attributes in self.elements for key, value in attributes.items() if key == name]


def read(found: Inspection) -> Read:
    page = Read()
    page.feed(render_page(found))
    return page


def clip(name: str, *captions: str, used: bool = True, size: tuple[int, int] = (640, 480)) -> JudgedClip:
    facts = ClipFacts(Path(name), 1, *size, 0, 50, 50, 25.0, 0.0, 2.0, False, "h264", "yuv420p")
    sample = Sample(f"clips/{name}#0", "clips", name, captions, 0.0, 25.0, Bucket(640, 448, 49), size, (0, 0), 0, True)
    why = ("", "") if used else ("too-short", f"{name} is short")
    return JudgedClip("clips", name, Path(name), facts, captions, (sample,) if used else (), *why)


def inspection(clips: Sequence[JudgedClip], *findings: tuple[JudgedClip, Finding], pictures: int = 0) -> Inspection:
    by_clip: dict[tuple[str, str], tuple[Finding, ...]] = {}
    for entry, finding in findings:
        by_clip[entry.key] = (*by_clip.get(entry.key, ()), finding)
    sheet: dict[tuple[str, str], Strip] = {entry.key: STRIP for entry in clips[:pictures]}
    return Inspection(Verdicts((PLAIN,), tuple(clips), 25.0), by_clip, {}, tokens_exact=True, sheet=sheet)


def hostile() -> Inspection:
    odd, out = clip(HOSTILE, HOSTILE, HOSTILE + "2"), clip(HOSTILE + "x", used=False)
    found = inspection([odd, out], (odd, Finding("caption-duplicate", HOSTILE)), pictures=1)
    data = replace(PLAIN, id=HOSTILE, root=Path("/a" + HOSTILE.replace("/", "")))
    told = replace(found.verdicts, datasets=(data, PLAIN), problem=HOSTILE, hint=HOSTILE, warnings=(HOSTILE,))
    return replace(found, verdicts=replace(told, notices=(HOSTILE,)))


def test_what_strangers_write_stays_text() -> None:
    page, plain = read(hostile()), read(inspection([clip("a.mp4", "a")], pictures=1))
    assert {tag for tag, _ in page.elements} - {tag for tag, _ in plain.elements} <= {
        "details",
        "summary",
        "strong",
        "b",
    }
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert sum(tag == "script" for tag, _ in page.elements) == 1
    assert any(HOSTILE in text for text in page.texts)


@settings(max_examples=40)
@given(st.text(max_size=60), st.text(max_size=60))
def test_no_name_or_caption_changes_the_pages_elements(name: str, caption: str) -> None:
    def of(*words: str) -> list[str]:
        entry = clip(*words)
        found = inspection([entry], (entry, Finding("caption-short", words[1])), pictures=1)
        return [tag for tag, _ in read(found).elements]

    assert of(name or "n", caption or "c") == of("name", "caption")


def test_a_name_that_is_no_utf8_is_written_all_the_same() -> None:
    name = b"caf\xe9.mp4".decode("utf-8", "surrogateescape")
    assert "caf?.mp4" in render_page(inspection([clip(name, "a")])).encode("utf-8").decode()


def test_nothing_is_asked_of_the_network() -> None:
    page = read(inspection([clip("a.mp4", "see https://example.org/x.png")], pictures=1))
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.having("src"))
    assert page.having("href") == page.having("srcset") == page.having("action") == []
    style = next(text for text in page.texts if "--paper" in text)
    assert not re.search(r"url\(|@import|https?:", style)
    (policy,) = [content for content in page.having("content") if "default-src" in content]
    assert "default-src 'none'" in policy and "img-src data:" in policy and "unsafe-inline'; script" in policy


def test_the_pages_own_script_is_the_one_that_its_policy_allows() -> None:
    import base64
    import hashlib

    page = render_page(inspection([clip("a.mp4", "a")]))
    script = re.search(r"<script>(.*)</script>", page, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src &#x27;sha256-{digest}&#x27;" in page


def test_the_same_inspection_gives_the_same_bytes() -> None:
    assert render_page(hostile()) == render_page(hostile())


def test_the_filter_offers_each_verdict_reason_and_finding_with_its_count() -> None:
    good, poor, out = clip("a.mp4", "a"), clip("b.mp4", "b"), clip("c.mp4", "c", used=False)
    found = inspection([good, poor, out], (poor, Finding("frozen")), (poor, Finding("border", "9 %")))
    page = read(found)
    assert page.having("data-tag") == ["", "used", "dropped", "too-short", "frozen", "border"]
    assert page.having("data-show") == ["too-short", "frozen", "border"]
    tags = page.having("data-tags")
    assert tags == ["set-0 used", "set-0 used frozen border", "set-0 dropped too-short"] * 2  # cards, then the table


def test_of_several_data_sets_each_clip_names_its_own_and_the_filter_offers_them() -> None:
    train, held = clip("a.mp4", "a"), replace(clip("b.mp4", "b"), dataset="held")
    found = inspection([train, held])
    both = (PLAIN, replace(PLAIN, id="held", role="eval"))
    page = read(replace(found, verdicts=replace(found.verdicts, datasets=both)))
    assert page.having("data-tag") == ["", "used", "set-0", "set-1"]
    assert page.having("data-tags") == ["set-0 used", "set-1 used"] * 2
    assert any(text.startswith("clips · 640") for text in page.texts)
    assert any(text.startswith("held (evaluation) · 640") for text in page.texts)
    place = page.texts.index("Training samples")
    assert page.texts[place + 1] == "1"


@pytest.mark.parametrize("code", CODES)
def test_each_finding_is_told_with_what_to_do(code: str) -> None:
    from ltxtrain.prepare.findings import KINDS

    entry = clip("a.mp4", "a")
    texts = read(inspection([entry], (entry, Finding(code, "so and so")))).texts  # type: ignore[arg-type]
    assert KINDS[code].title in texts and KINDS[code].advice in texts  # type: ignore[index]
    assert any("so and so" in text for text in texts)


def test_of_very_many_clips_a_part_has_cards_and_rows_and_that_is_said() -> None:
    clips = [clip(f"{number:05}.mp4", f"caption {number}") for number in range(MOST_ROWS + 500)]
    last = clips[-1]
    found = inspection(clips, (last, Finding("frozen")), pictures=200)
    page = read(found)
    cards = [attributes for tag, attributes in page.elements if tag == "li" and "data-tags" in attributes]
    rows = [attributes for tag, attributes in page.elements if tag == "tr" and "data-tags" in attributes]
    assert len(cards) == 400 and len(rows) == MOST_ROWS
    assert "set-0 used frozen" in [card["data-tags"] for card in cards]  # what has something to say comes first
    said = " ".join(page.texts)
    assert "400 of 2,500 clips have a card" in said and "The first 2,000 of 2,500 clips" in said
    assert len(render_page(found)) < 3_000_000


def test_sizes_lengths_and_rates_of_every_kind_are_drawn() -> None:
    rng = np.random.default_rng(0)
    clips = []
    for number in range(60):
        entry = clip(f"{number}.mp4", "a", size=(int(rng.integers(16, 4000)), int(rng.integers(16, 2500))))
        assert entry.facts is not None
        facts = replace(
            entry.facts, duration_s=float(rng.lognormal(1, 2)), fps=float(rng.choice([23.976, 25, 59.94, 7]))
        )
        clips.append(replace(entry, facts=facts))
    page = read(inspection(clips))
    assert sum(tag == "svg" for tag, _ in page.elements) > 10
    numbers = [
        float(value.rstrip("%"))
        for name in ("x", "y", "width", "height")
        for value in page.having(name)
        if "%" in value
    ]
    assert numbers and all(-0.01 <= number <= 100.01 for number in numbers)
    assert "60 different sizes" in page.texts


@pytest.mark.parametrize("clips", [[], [clip("a.mp4", used=False)]], ids=["none", "none used"])
def test_a_data_set_with_nothing_in_it_has_a_page_as_well(clips: list[JudgedClip]) -> None:
    assert "<h1>c</h1>" in render_page(inspection(clips))


def test_facts_that_are_missing_are_told_in_words() -> None:
    broken = replace(clip("a.mp4", used=False), facts=None, captions=())
    texts = read(inspection([broken])).texts
    assert "could not be read" in texts and "no picture" in texts
