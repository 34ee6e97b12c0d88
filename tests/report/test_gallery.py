from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

from ltxtrain.report import gallery
from ltxtrain.report.page import write_report
from ltxtrain.report.run import read_run


def page_of(run: Path, parse_page: Callable):
    return parse_page(write_report(run).read_text(encoding="utf-8"))


def test_the_slider_knows_the_trained_steps_and_starts_at_the_last(made_run: Path, parse_page: Callable) -> None:
    page = page_of(made_run, parse_page)
    (controls,) = page.all("div", "controls")
    slider = page.by_id("step")
    assert controls.attributes["data-steps"] == "30 60"
    assert (slider.attributes["min"], slider.attributes["max"], slider.attributes["value"]) == ("0", "1", "1")
    assert slider.attributes["aria-valuetext"] == "step 60"


def test_each_prompt_shows_the_base_model_and_every_step(made_run: Path, parse_page: Callable) -> None:
    page = page_of(made_run, parse_page)
    figures = [e for e in page.all("figure") if "article" in e.parents]
    assert [e.attributes["data-step"] for e in figures] == ["0", "30", "60"] * 2
    assert [e.text for e in figures[:3]] == ["Base model", "Step 30", "Step 60"]
    assert [e.text for e in page.all("p", "caption")] == [
        "a red ball rolls from left to right",
        "a blue kite climbs in the wind",
    ]
    assert "64 x 48, 9 frames, 8 sampling steps, guidance 3.0, seed 42" in page.by_id("gallery").text


def test_small_videos_and_posters_stand_in_the_page_byte_for_byte(made_run: Path, parse_page: Callable) -> None:
    page = page_of(made_run, parse_page)
    sources = [e.attributes["src"] for e in page.all("source")]
    posters = [e.attributes["poster"] for e in page.all("video")]
    folder = made_run / "samples" / "step-00000060"
    assert data_uri(folder / "ball.mp4", "video/mp4") in sources
    assert data_uri(folder / "ball.png", "image/png") in posters
    assert "samples/step-00000060/ball.mp4" in sources, "the file itself is the fallback"


def test_a_large_video_is_referenced_and_its_poster_shown(make_run: Callable[..., Path], parse_page: Callable) -> None:
    run = make_run(steps=4, validated=(4,), prompts={"ball": "a ball"})
    with (run / "samples" / "step-00000004" / "ball.mp4").open("ab") as stream:
        stream.truncate(gallery.VIDEO_LIMIT + 1)
    page = page_of(run, parse_page)
    assert [e.attributes["src"] for e in page.all("source")] == ["samples/step-00000004/ball.mp4"]
    assert page.all("video")[0].attributes["poster"].startswith("data:image/png;base64,")


def test_the_budget_goes_to_the_last_step_first_then_to_the_base(make_run: Callable[..., Path]) -> None:
    """Twelve videos of 3.9 MiB do not fit into 40 MiB: ten are embedded, and two early steps are left out."""
    run = make_run(steps=12, planned=12, validated=range(12), prompts={"ball": "a ball"}, size=(32, 32))
    for file in run.glob("samples/*/ball.mp4"):
        with file.open("ab") as stream:
            stream.truncate(int(3.9 * 1024**2))
    embedded = gallery.choose_embedded(read_run(run)).files
    steps = sorted(int(path.parent.name.removeprefix("step-")) for path in embedded if path.suffix == ".mp4")
    assert steps == [0, 3, 4, 5, 6, 7, 8, 9, 10, 11]


def test_references_are_urls_that_lead_to_the_file(make_run: Callable[..., Path], parse_page: Callable) -> None:
    name = "50% ball & #1 'kite' é"
    run = make_run(steps=4, validated=(4,), prompts={name: "a ball"})
    sources = [e.attributes["src"] for e in page_of(run, parse_page).all("source")]
    (reference,) = [source for source in sources if not source.startswith("data:")]
    assert (run / unquote(reference)).is_file()
    assert not set(reference) & set(" #'&") and "%25" in reference


def test_one_validated_step_needs_no_slider(make_run: Callable[..., Path], parse_page: Callable) -> None:
    page = page_of(make_run(steps=4, validated=(0, 4)), parse_page)
    assert not [e for e in page.all("input") if e.attributes["type"] == "range"]
    assert [e.text for e in page.all("button")] == ["Play together"]


def test_the_base_model_alone_is_shown_alone(make_run: Callable[..., Path], parse_page: Callable) -> None:
    page = page_of(make_run(steps=4, validated=(0,)), parse_page)
    assert len(page.all("video")) == 2
    assert not page.all("div", "trained") and not page.all("div", "controls")


def test_a_run_without_videos_says_so(make_run: Callable[..., Path], parse_page: Callable) -> None:
    assert "No validation video has been rendered." in page_of(make_run(validated=()), parse_page).by_id("gallery").text


def test_a_deleted_video_leaves_its_poster_and_a_deleted_folder_a_word(
    make_run: Callable[..., Path], parse_page: Callable
) -> None:
    run = make_run(steps=4, validated=(0, 4), prompts={"ball": "a ball"})
    (run / "samples" / "step-00000004" / "ball.mp4").unlink()
    for file in (run / "samples" / "step-00000000").glob("ball.*"):
        file.unlink()
    page = page_of(run, parse_page)
    (picture,) = page.all("img")
    assert picture.attributes["alt"] == "Still, step 4: a ball"
    assert "This video is not in the run folder any more." in page.by_id("gallery").text


def test_an_index_cannot_reach_outside_the_run_folder(make_run: Callable[..., Path], parse_page: Callable) -> None:
    run = make_run(steps=4, validated=(4,), prompts={"ball": "a ball"})
    secret = run.parent / "secret.png"
    shutil.copy(run / "samples" / "step-00000004" / "ball.png", secret)
    link = run / "samples" / "link.png"
    link.symlink_to(secret)
    index = run / "samples" / "step-00000004" / "index.json"
    entries = json.loads(index.read_text())
    for poster in ("../secret.png", str(secret), "samples/link.png", "a\0b", "../../../secret.png"):
        index.write_text(json.dumps([{**entries[0], "poster": poster}]))
        (video,) = page_of(run, parse_page).all("video")
        assert "poster" not in video.attributes, poster


def test_paths_relative_to_the_index_are_found_too(make_run: Callable[..., Path], parse_page: Callable) -> None:
    run = make_run(steps=4, validated=(4,), prompts={"ball": "a ball"})
    index = run / "samples" / "step-00000004" / "index.json"
    entry = json.loads(index.read_text())[0]
    index.write_text(json.dumps([{**entry, "video": "ball.mp4", "poster": "ball.png"}]))
    page = page_of(run, parse_page)
    assert "samples/step-00000004/ball.mp4" in [e.attributes["src"] for e in page.all("source")]


def data_uri(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
