"""Curves of the loss on held-out clips, and of the training loss of each data set."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from ltxtrain.report.page import write_report


def page_of(run: Path, parse_page: Callable):
    return parse_page(write_report(run).read_text(encoding="utf-8"))


def drawn(page, key: str) -> list[str]:
    """The names of the lines in one chart."""
    text = page.by_id(f"chart-{key}")
    names = [e.attributes["data-name"] for e in page.all("path", "line") if e.attributes["data-name"] in text.text]
    return list(dict.fromkeys(names))


def test_each_held_out_set_has_its_line_and_the_last_one_a_headline(
    make_run: Callable[..., Path], parse_page: Callable
) -> None:
    page = page_of(make_run(held=("faces", "all data sets"), validated=()), parse_page)
    assert drawn(page, "evaluation") == ["faces", "all data sets"]
    assert "can be compared" in page.by_id("chart-evaluation").text
    facts = dict(zip([e.text for e in page.all("dt")], [e.text for e in page.all("dd")], strict=True))
    assert facts["Held-out loss"] == "0.3 from 0.9"


def test_a_single_data_set_and_nothing_held_out_need_no_further_curves(
    make_run: Callable[..., Path], parse_page: Callable
) -> None:
    page = page_of(make_run(validated=()), parse_page)
    assert not {"chart-evaluation", "chart-datasets"} & {e.attributes.get("id") for e in page.elements}
    assert "Held-out loss" not in [e.text for e in page.all("dt")]


def test_several_data_sets_have_a_line_each(make_run: Callable[..., Path], parse_page: Callable) -> None:
    page = page_of(make_run(datasets=("gestures", "bottles <b>"), validated=()), parse_page)
    assert sorted(drawn(page, "datasets")) == ["bottles <b>", "gestures"]


def test_a_torn_file_and_a_line_that_stands_twice_do_no_harm(
    make_run: Callable[..., Path], parse_page: Callable
) -> None:
    run = make_run(held=("faces",), validated=())
    with (run / "evaluations.jsonl").open("a") as stream:
        stream.write(json.dumps({"step": 60, "dataset": "faces", "loss": 0.25}) + "\n")
        stream.write('{"step": 60, "dataset": "faces", "loss": null}\n{"step": 70, "data')
    facts = page_of(run, parse_page)
    assert "0.25 from 0.9" in [e.text for e in facts.all("dd")]
