"""Several data sets on the page and in the card: what is trained on, held out, and there for regularisation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ltxtrain.report.card import write_card
from ltxtrain.report.page import write_report
from ltxtrain.report.run import read_run
from ltxtrain.report.training import smoothed_loss

SHAPE = {"width": 96, "height": 96, "frames": 17, "tokens": 27}
STILL = {"width": 160, "height": 96, "frames": 1, "tokens": 15}


def data_set(name: str, clips: int, **changes: Any) -> dict[str, Any]:
    schedule = {"weight": 1.0, "start_epoch": 1, "start_step": 0, "end_epoch": None, "end_step": None}
    counts = {"clips_found": clips + 1, "clips_used": clips, "samples": 2 * clips, "uses": 4 * clips}
    facts = {"id": name, "kind": "video", "role": "train", "schedule": schedule, "regularisation": False}
    return facts | counts | changes


def bucket(name: str, shape: dict[str, int], batch_size: int) -> dict[str, Any]:
    return {"dataset": name, "bucket": shape, "samples": 3, "uses": 6, "batches": 2, "batch_size": batch_size}


LATER = {"weight": 0.5, "start_epoch": 1, "start_step": 10, "end_step": 40, "fade_out_step": 40}
SETS = [
    data_set("gestures", 6),
    data_set("stills", 3, kind="image", schedule=LATER),
    data_set("as-it-was", 1, regularisation=True),
    data_set("faces", 2, role="eval", uses=0),
]
BUCKETS = [bucket("gestures", SHAPE, 6), bucket("as-it-was", SHAPE, 2), bucket("stills", STILL, 4)]


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines), encoding="utf-8")


def with_plan(run: Path, **changes: Any) -> Path:
    plan = json.loads((run / "plan.json").read_text())
    (run / "plan.json").write_text(json.dumps(plan | changes))
    return run


@pytest.fixture
def run_of_sets(make_run: Callable[..., Path]) -> Path:
    """Every second step is one of regularisation, whose loss is next to nothing."""
    run = make_run(datasets=("gestures", "as-it-was"), held=("faces",), validated=())
    lines = lines_of(run / "metrics.jsonl")
    for line in lines:
        if line["dataset"] == "as-it-was":
            line |= {"loss": 0.001, "dataset_losses": {"as-it-was": 0.001}}
            line["sigma_bands"] = dict.fromkeys(line["sigma_bands"], 0.001)
    write_lines(run / "metrics.jsonl", lines)
    return with_plan(run, datasets=SETS, buckets=BUCKETS, accumulation=2)


@pytest.fixture
def page(run_of_sets: Path, parse_page: Callable):
    return parse_page(write_report(run_of_sets).read_text(encoding="utf-8"))


def cells(page, heading: str) -> list[list[str]]:
    """The rows of the first table whose headings hold ``heading``, its headings first."""
    rows: list[list[str]] = []
    for element in page.elements:
        if element.tag == "table":
            if rows and heading in rows[0]:
                break
            rows = []
        elif element.tag == "tr":
            rows.append([])
        elif element.tag in ("th", "td"):
            rows[-1].append(element.text)
    assert heading in rows[0]
    return rows


def test_the_loss_of_regularisation_is_no_part_of_the_loss(run_of_sets: Path, page) -> None:
    learnt = [line["loss"] for line in lines_of(run_of_sets / "metrics.jsonl") if line["dataset"] == "gestures"]
    first, last = smoothed_loss(read_run(run_of_sets).steps)
    assert (first, last) == (pytest.approx(sum(learnt[:5]) / 5), pytest.approx(sum(learnt[-5:]) / 5))
    facts = dict(zip([e.text for e in page.all("dt")], [e.text for e in page.all("dd")], strict=True))
    assert facts["Mean loss"] == f"{last:.3g} from {first:.3g}"
    for chart in ("loss", "sigma"):
        assert "0.001" not in page.by_id(f"chart-{chart}").text
    assert "Regularisation clips are left out" in page.by_id("chart-loss").text


def test_the_loss_of_regularisation_stands_by_data_set(page) -> None:
    chart = page.by_id("chart-datasets").text
    assert "as-it-was (regularisation)" in chart and "0.001" in chart
    assert "gestures (" not in chart


def test_a_step_of_both_shows_what_is_learnt_and_no_bands(run_of_sets: Path) -> None:
    lines = lines_of(run_of_sets / "metrics.jsonl")
    lines[0] |= {"loss": 1.0, "dataset_losses": {"as-it-was": 0.0, "gestures": 2.0}}
    write_lines(run_of_sets / "metrics.jsonl", lines)
    step = read_run(run_of_sets).steps[0]
    assert (step.loss, step.sigma_bands) == (2.0, ())
    assert step.dataset_losses == (("as-it-was", 0.0), ("gestures", 2.0))


def test_the_data_sets_stand_in_a_table(page) -> None:
    assert cells(page, "Role")[1:] == [
        ["gestures", "video", "train", "6 of 7", "12", "24", "1", "always"],
        ["stills", "image", "train", "3 of 4", "6", "12", "0.5", "step 10 to 40, fades out to step 40"],
        ["as-it-was", "video", "regularisation", "1 of 2", "2", "4", "1", "always"],
        ["faces", "video", "held out", "2 of 3", "4", "-", "-", "measured only"],
    ]


def test_held_out_clips_are_counted_apart(page) -> None:
    facts = dict(zip([e.text for e in page.all("dt")], [e.text for e in page.all("dd")], strict=True))
    assert facts["Clips"] == "10 of 13, 2 held out"
    assert "10 of 13 clips are used, 20 windows. 2 more clips are held out and never trained on." in (
        page.by_id("plan").text
    )


def test_buckets_name_their_set_and_batch_size(page) -> None:
    rows = [row[:-1] for row in cells(page, "Batch")]
    assert rows[0][:2] == ["Data set", "Size and frames"]
    assert ["stills", "160 x 96, 1 frame", "15", "3", "6", "4", "2"] in rows
    assert "60 steps of 2 to 6 x 2 samples" in page.by_id("plan").text


def test_one_data_set_needs_no_table_and_no_name_beside_each_bucket(
    make_run: Callable[..., Path], parse_page: Callable
) -> None:
    run = with_plan(make_run(steps=2, validated=()), datasets=[data_set("clips", 4)])
    page = parse_page(write_report(run).read_text(encoding="utf-8"))
    assert "Role" not in [e.text for e in page.all("th")]
    assert cells(page, "Batch")[0][0] == "Size and frames"


def test_the_held_out_curve_stands_beside_the_training_curve(page) -> None:
    first = page.all("div", "first")
    assert len(first) == 1
    assert all(title in first[0].text for title in ("Loss in training", "Loss on held-out clips"))
    assert "Learning rate" not in first[0].text


def test_charts_beside_each_other_end_at_the_same_step(page) -> None:
    ends = {e.attributes["data-x"].split()[1] for e in page.all("svg")}
    assert {float(end) for end in ends} == {60.0}, "the last step of a regularisation set counts for all"


def test_the_list_of_data_sets_is_shown_as_in_the_configuration_file(
    make_run: Callable[..., Path], parse_page: Callable
) -> None:
    run = make_run(steps=2, validated=())
    entries = [{"id": "gestures", "probability": 0.5, "crop": None, "video": {"num_frames": 17, "window": None}}]
    plan = json.loads((run / "plan.json").read_text())
    plan["config"]["data"]["datasets"] = entries
    (run / "plan.json").write_text(json.dumps(plan))
    (run / "config.toml").write_text('[[data.datasets]]\nid = "gestures"\nprobability = 0.5\n')
    shown = [e.text for e in parse_page(write_report(run).read_text(encoding="utf-8")).all("code", "entries")]
    assert shown == ['[[datasets]]\nid = "gestures"\nprobability = 0.5']
    (run / "config.toml").unlink()
    shown = [e.text for e in parse_page(write_report(run).read_text(encoding="utf-8")).all("code", "entries")]
    assert "null" not in shown[0] and "num_frames = 17" in shown[0]


def test_the_card_tells_what_was_trained_on_and_what_was_held_out(run_of_sets: Path) -> None:
    lines = write_card(run_of_sets).read_text(encoding="utf-8").splitlines()
    for line in (
        "- 10 clips of 13 found, 20 windows",
        "  - gestures: 6 clips",
        "  - stills: 3 pictures",
        "  - as-it-was: 1 clip, to hold the model where it was (regularisation)",
        "  - faces: 2 clips, held out: measured, never trained on; loss 0.9 at first, 0.3 at the end",
        "- 15 epochs planned, 4 to 12 samples for each step",
        "- 6 windows at 96 x 96, 17 frames",
        "- 3 windows at 160 x 96, 1 frame",
    ):
        assert line in lines


def test_one_of_everything_is_singular(make_run: Callable[..., Path], parse_page: Callable) -> None:
    one = [data_set("clips", 1, clips_found=1, samples=1, uses=1)]
    shapes = [bucket("clips", STILL, 1) | {"samples": 1}]
    run = with_plan(make_run(steps=1, planned=1, validated=()), datasets=one, buckets=shapes, accumulation=1, epochs=1)
    write_lines(run / "dataset.jsonl", lines_of(run / "dataset.jsonl")[:1])
    plan = parse_page(write_report(run).read_text(encoding="utf-8")).by_id("plan").text
    assert "1 of 1 clip is used. 1 step of 1 x 1 samples (batch x accumulation), 4 to an epoch: 1 epoch." in plan
    assert "Trained on: 1 window with its captions" in plan
    card = write_card(run).read_text(encoding="utf-8")
    for line in (
        "trained for 1 step with",
        "- 1 clip of 1 found, 1 window\n",
        "- 1 epoch planned, 1 sample for each step",
        "- 1 window at 160 x 96, 1 frame\n",
    ):
        assert line in card


def test_a_long_list_of_windows_shows_some_of_each_set(run_of_sets: Path, parse_page: Callable) -> None:
    window = lines_of(run_of_sets / "dataset.jsonl")[0]
    names = ["gestures"] * 500 + ["stills"] * 3 + ["faces"] * 60
    lines = [
        window | {"dataset": name, "id": f"{name}/{number}.mp4", "role": "eval" if name == "faces" else "train"}
        for number, name in enumerate(names)
    ]
    write_lines(run_of_sets / "dataset.jsonl", lines)
    path = write_report(run_of_sets)
    text = parse_page(path.read_text(encoding="utf-8")).by_id("plan").text
    assert "Trained on: 503 windows with their captions" in text and "450 more stand in dataset.jsonl." in text
    assert "Held out: 60 windows with their captions" in text and "10 more stand in dataset.jsonl." in text
    assert "stills/502.mp4" in text and "gestures/49.mp4" in text and "gestures/50.mp4" not in text


def test_a_caption_with_a_separator_of_lines_in_it_is_one_caption(
    make_run: Callable[..., Path], parse_page: Callable
) -> None:
    run = make_run(steps=2, validated=(), caption="a red ball\u2028rolls\x85over grass")
    text = parse_page(write_report(run).read_text(encoding="utf-8")).by_id("plan").text
    assert "Trained on: 4 windows" in text and "rolls\x85over grass" in text
