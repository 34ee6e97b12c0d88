from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ltxtrain.errors import DataError
from ltxtrain.facts.models import KNOWN_MODELS
from ltxtrain.plan.memory import TrainingSetup, estimate_memory
from ltxtrain.plan.records import Bucket
from ltxtrain.report.curves import smooth, smoothing_span
from ltxtrain.report.page import write_report
from ltxtrain.units import format_bytes, format_duration

GIB = 1024**3
EVIL = "<img src=x onerror=alert(1)>\"'</script><script>alert(2)</script>&amp;"


def lines_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def page(made_run: Path, parse_page: Callable):
    return parse_page(write_report(made_run).read_text(encoding="utf-8"))


def test_the_page_stands_in_the_run_folder(made_run: Path) -> None:
    assert write_report(made_run) == made_run / "report.html"


def test_the_same_folder_gives_the_same_bytes(made_run: Path) -> None:
    first = write_report(made_run).read_bytes()
    assert write_report(made_run).read_bytes() == first


def test_headline_facts(page) -> None:
    names = [element.text for element in page.all("dt")]
    facts = dict(zip(names, [element.text for element in page.all("dd")], strict=True))
    assert facts["Steps"] == "60 of 60"
    assert facts["Clips"] == "4 of 5"
    assert facts["LoRA rank"].startswith("16")
    assert facts["Peak memory"] == "10.0 GiB in latents"
    assert page.all("h1")[0].text == "red-ball"
    assert page.all("span", "state")[0].text == "finished"


def test_a_run_from_before_memory_was_measured_by_phase_tells_what_its_steps_say(
    make_run: Callable[..., Path], parse_page: Callable
) -> None:
    run = make_run(steps=2, validated=())
    (run / "memory.jsonl").unlink()
    page = parse_page(write_report(run).read_text(encoding="utf-8"))
    assert "9.1 GiB in training" in [element.text for element in page.all("dd")]


def test_training_time_and_seconds_a_step_agree(made_run: Path, page) -> None:
    told = next(e.text for e in page.all("dd") if "steps of" in e.text)
    total, count, each = re.fullmatch(r"(.+ s) (\d+) steps of ([\d.]+) s, without validation", told).groups()
    seconds = sum(line["seconds"] for line in lines_of(made_run))
    assert total == format_duration(seconds)
    assert int(count) * float(each) == pytest.approx(seconds, rel=0.005)


def test_nothing_is_asked_of_the_network(page) -> None:
    for element in page.elements:
        for name in ("src", "href", "poster", "action", "srcset", "data"):
            value = element.attributes.get(name, "")
            assert not re.match(r"\s*([a-z]+:)?//|\s*(?!data:)[a-z]+:", value, re.IGNORECASE), (element.tag, value[:80])
    style = page.all("style")[0].text + page.all("script")[0].text
    assert "http" not in style and "@import" not in style and "url(" not in style


def test_only_our_own_script_may_run(page) -> None:
    (policy,) = (e.attributes["content"] for e in page.all("meta") if "http-equiv" in e.attributes)
    (script,) = page.all("script")
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_the_drawn_loss_is_the_recorded_loss(made_run: Path, page) -> None:
    lines = lines_of(made_run)
    losses = [(line["step"], line["loss"]) for line in lines]
    assert drawn(page, "Loss", "each step") == [pytest.approx(pair, rel=1e-3) for pair in losses]
    means = smooth(losses, smoothing_span(len(losses)))
    assert drawn(page, "Loss", "mean over about 5 steps") == [pytest.approx(pair, rel=1e-3) for pair in means]


def test_the_learning_rate_and_each_sigma_band_are_drawn(made_run: Path, page) -> None:
    lines = lines_of(made_run)
    assert drawn(page, "Learning rate", "learning rate") == [
        pytest.approx((line["step"], line["lr"]), rel=1e-3) for line in lines
    ]
    for band in ("0.00-0.25", "0.25-0.50", "0.50-0.75", "0.75-1.00"):
        steps = [line["step"] for line in lines if band in line["sigma_bands"]]
        assert [round(step) for step, _ in drawn(page, "Loss by sigma", band)] == steps


def drawn(page, title: str, name: str) -> list[tuple[float, float]]:
    """Read a line back out of its path, as a reader of the page's own script would."""
    svg = next(e for e in page.all("svg") if e.attributes["aria-label"].startswith(f"{title}. "))
    start = page.elements.index(svg)
    path = next(e for e in page.elements[start:] if e.attributes.get("data-name") == name)
    x_low, x_high = (float(part) for part in svg.attributes["data-x"].split())
    y_low, y_high = (float(part) for part in svg.attributes["data-y"].split())
    pairs = [pair.split(" ") for pair in path.attributes["d"].removeprefix("M").split("L")]
    return [(x_low + float(x) / 1000 * (x_high - x_low), y_high - float(y) / 1000 * (y_high - y_low)) for x, y in pairs]


def test_axes_carry_ticks_and_the_curve_a_description(page) -> None:
    svg = page.all("svg")[0]
    assert svg.attributes["role"] == "img"
    assert "at step 1" in svg.attributes["aria-label"] and "at step 60" in svg.attributes["aria-label"]
    below = next(e for e in page.elements if "x-labels" in e.classes)
    assert below.text == "0204060"


def test_the_plan_is_told(page) -> None:
    plan = page.by_id("plan").text
    for part in (
        "4 of 5 clips are used",
        "tiny.mp4",
        "clips/bird.mp4#0",
        "96 x 64 is below 256",
        "768 x 512, 121 frames",
        "Warning: tiny.mp4 is not used",
        "transformer 4.0 GiB",
        "The device has 24.0 GiB. A full bar is the whole device.",
        "Measured: 7.0 GiB in tensors, 9.5 GiB in use; 9.0 GiB in the trial.",
        "500.0 MiB",
        "red-ball: 4 of 5 clips",
    ):
        assert part in plan


def test_the_size_beside_the_rank_is_that_of_the_file_for_diffusers(
    make_run: Callable[..., Path], parse_page: Callable
) -> None:
    run = make_run(steps=2, validated=())
    shutil.copy(run / "export" / "red-ball_comfyui.safetensors", run / "export" / "a_comfyui.safetensors")
    with (run / "export" / "pytorch_lora_weights.safetensors").open("ab") as stream:
        stream.write(bytes(5 * 1024))
    size = (run / "export" / "pytorch_lora_weights.safetensors").stat().st_size
    page = parse_page(write_report(run).read_text(encoding="utf-8"))
    assert next(e.text for e in page.all("dd") if e.text.startswith("16")) == f"16 {format_bytes(size)}"


def memory_of(run: Path, phases: list[tuple[str, str, list[list]]], parse_page: Callable):
    plan = json.loads((run / "plan.json").read_text())
    plan["memory"] = [
        {"phase": phase, "device": device, "lines": lines, "total": sum(b for _, b in lines) + GIB, "margin": GIB}
        for phase, device, lines in phases
    ]
    (run / "plan.json").write_text(json.dumps(plan))
    return parse_page(write_report(run).read_text(encoding="utf-8"))


def test_each_kind_of_memory_has_one_colour_in_all_phases(make_run: Callable[..., Path], parse_page: Callable) -> None:
    setup = TrainingSetup(
        accelerator="cuda",
        weight_bytes=2,
        vae_bytes=2,
        batch_size=1,
        rank=16,
        targets=("to_q",),
        checkpointing=True,
        tiling=False,
        validation=Bucket(768, 512, 121),
    )
    phases = estimate_memory(KNOWN_MODELS["Lightricks/LTX-Video-0.9.5"], [Bucket(768, 512, 121)], setup)
    told = [(phase.phase, phase.device, [list(line) for line in phase.lines]) for phase in phases]
    page = memory_of(make_run(steps=2, validated=()), told, parse_page)
    colours: dict[str, set[str]] = {}
    for item in (e for e in page.all("li") if e.classes and e.classes[0].startswith("kind-")):
        name = re.sub(r" [\d.]+ [KMG]?i?B$", "", item.text)
        colours.setdefault("activations" if name.startswith("activations") else name, set()).add(item.classes[0])
    assert all(len(classes) == 1 for classes in colours.values()), colours
    assert [name for name, classes in colours.items() if classes == {"kind-margin"}] == ["margin"]
    assert [name for name, classes in colours.items() if classes == {"kind-other"}] == [
        "one tensor while it is loaded"
    ], "what the plan tells, the page knows"
    kinds = {next(iter(classes)) for classes in colours.values()}
    assert len(kinds) == len(colours) - 3, "context and libraries share one, two workspaces, and the halves of the VAE"
    style = page.all("style")[0].text
    assert all(f".{kind} {{ --key:" in style for kind in kinds)


@pytest.mark.parametrize(
    ("largest", "told", "width"),
    [
        (5, "The device has 24.0 GiB. A full bar is the whole device.", 5 / 24),
        (23, "The device has 24.0 GiB. A full bar is the whole device.", 23 / 24),
        (2, "The device has 24.0 GiB. A full bar is 3.0 GiB, 12 % of that.", 2 / 3),
        (29, "The device has 24.0 GiB. A full bar is 32.0 GiB.", 29 / 32),
    ],
)
def test_the_scale_of_the_memory_bars_is_told_and_kept(
    make_run: Callable[..., Path], parse_page: Callable, largest: int, told: str, width: float
) -> None:
    run = make_run(steps=2, validated=())
    page = memory_of(run, [("training", "cuda", [["activations", largest * GIB]])], parse_page)
    assert told in page.by_id("plan").text
    piece = next(e for e in page.all("span") if e.classes == ["kind-activations"])
    assert float(re.search(r"width:([\d.]+)%", piece.attributes["style"]).group(1)) == pytest.approx(100 * width, 0.01)
    marks = [float(e.attributes["style"][5:-1]) for e in page.all("span", "capacity")]
    assert marks == {5: [100.0], 23: [100.0], 2: [], 29: [75.0]}[largest]
    assert ("more than the device has" in page.by_id("plan").text) == (largest == 29)


def test_main_memory_is_measured_against_the_machine_and_not_its_gpu(
    make_run: Callable[..., Path], parse_page: Callable
) -> None:
    phases = [("loading", "main memory", [["libraries", 30 * GIB]]), ("training", "cuda", [["workspace", 30 * GIB]])]
    page = memory_of(make_run(steps=2, validated=()), phases, parse_page)
    assert [e.text for e in page.all("h4")] == [
        "loading (main memory): 31.0 GiB",
        "training (cuda): 31.0 GiB - more than the device has",
    ]


def test_every_setting_stands_with_its_value_and_source(made_run: Path, page) -> None:
    rows = [e.text for e in page.all("tr") if e.parents[-1] == "tbody"]
    assert "lora_rank16--lora-rankadapter" in rows
    assert "seed42defaultmodel" in rows
    settings = [
        name for section in json.loads((made_run / "plan.json").read_text())["config"].values() for name in section
    ]
    text = page.by_id("configuration").text
    assert all(name in text for name in settings)


def test_files_and_versions_are_told(made_run: Path, page) -> None:
    digest = hashlib.sha256((made_run / "export" / "pytorch_lora_weights.safetensors").read_bytes()).hexdigest()
    assert digest in page.by_id("files").text
    assert "BF16" in page.by_id("files").text
    assert "packages torch2.13.0" in page.by_id("versions").text
    assert "2026-11-22T10:00:00Z" in page.by_id("versions").text


def test_headings_descend_without_gaps_and_controls_have_names(page) -> None:
    levels = [int(e.tag[1]) for e in page.elements if re.fullmatch(r"h\d", e.tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    labelled = {e.attributes.get("for") for e in page.all("label")}
    for field in page.all("input"):
        assert field.attributes["id"] in labelled or "label" in field.parents
    assert all(e.attributes.get("aria-label") for e in page.all("video"))
    assert all("alt" in e.attributes for e in page.all("img"))
    ids = [e.attributes["id"] for e in page.elements if "id" in e.attributes]
    assert len(ids) == len(set(ids))


def test_untrusted_texts_stay_text(make_run: Callable[..., Path], parse_page: Callable) -> None:
    run = make_run(steps=4, validated=(0, 4), prompts={"evil": EVIL}, caption=EVIL)
    plan = json.loads((run / "plan.json").read_text())
    lines = [json.loads(line) for line in (run / "dataset.jsonl").read_text().splitlines()]
    lines[-1] |= {"path": EVIL, "detail": EVIL, "dataset": EVIL}
    (run / "dataset.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    plan["config"]["data"]["instance_data_dir"] = plan["run_name"] = EVIL
    plan["warnings"] = [EVIL]
    (run / "plan.json").write_text(json.dumps(plan))
    (run / "plan.txt").write_text(EVIL)
    (run / "run.json").write_text(json.dumps({"versions": {EVIL: EVIL}, "events": [{EVIL: EVIL}]}))
    page = parse_page(write_report(run).read_text(encoding="utf-8"))
    assert len(page.all("script")) == 1
    assert not any(name.startswith("on") for e in page.elements for name in e.attributes)
    assert not page.all("img")
    assert page.all("h1")[0].text == EVIL
    assert page.all("p", "caption")[0].text == EVIL
    assert page.by_id("plan").text.count(EVIL) == 1 + 3 + 4 + 1  # warning, dropped, samples, as printed


@pytest.mark.parametrize(
    "part", ["plan.json", "run.json", "config.toml", "metrics.jsonl", "plan.txt", "dataset.jsonl", "samples", "export"]
)
def test_a_run_without_a_part_still_has_a_page(make_run: Callable[..., Path], parse_page: Callable, part: str) -> None:
    run = make_run(steps=4, validated=(4,))
    path = run / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    page = parse_page(write_report(run).read_text(encoding="utf-8"))
    missing = [e.text for e in page.all("p", "missing")]
    told = part in {"plan.json", "run.json", "config.toml", "metrics.jsonl"}
    assert missing == ([f"Not in this folder, or not readable: {part}."] if told else [])


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe\x00", b'{"steps": "many", "buckets": 3, "memory": [1, {}]}']
)
def test_broken_files_do_not_stop_the_page(make_run: Callable[..., Path], content: bytes) -> None:
    run = make_run(steps=2, validated=(2,))
    for name in ("plan.json", "run.json", "config.toml", "dataset.jsonl", "samples/step-00000002/index.json"):
        (run / name).write_bytes(content)
    for file in (run / "export").iterdir():
        file.write_bytes(content)
    assert "Loss" in write_report(run).read_text(encoding="utf-8")


def test_a_run_killed_while_writing_its_metrics(make_run: Callable[..., Path], parse_page: Callable) -> None:
    run = make_run(steps=10, planned=100, validated=())
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 9, "loss": 0.125, "lr": 1e-4}\n{"step": 11, "loss": NaN}\n{"step": 12, "lo')
    page = parse_page(write_report(run).read_text(encoding="utf-8"))
    assert page.all("span", "state")[0].text == "stopped at step 11 of 100"
    points = drawn(page, "Loss", "each step")
    assert [round(step) for step, _ in points] == list(range(1, 11))
    assert dict((round(step), value) for step, value in points)[9] == pytest.approx(0.125, rel=1e-3)


def test_before_the_first_step_the_page_shows_the_plan(make_run: Callable[..., Path], parse_page: Callable) -> None:
    run = make_run(steps=0, planned=100, validated=())
    page = parse_page(write_report(run).read_text(encoding="utf-8"))
    assert page.all("span", "state")[0].text == "not trained yet"
    assert "No training step has been recorded yet." in page.by_id("curves").text
    assert "4 of 5 clips are used" in page.by_id("plan").text


def test_a_long_run_stays_a_small_page(make_run: Callable[..., Path]) -> None:
    run = make_run(steps=20_000, planned=20_000, validated=())
    assert write_report(run).stat().st_size < 500_000


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no run folder") as caught:
        write_report(tmp_path)
    assert caught.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []


def test_the_runs_inside_the_output_folder_are_named(make_run: Callable[..., Path]) -> None:
    run = make_run(steps=1, validated=())
    with pytest.raises(DataError) as caught:
        write_report(run.parent)
    assert caught.value.hint == "runs in it: red-ball"


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        write_report(tmp_path / "nowhere")
