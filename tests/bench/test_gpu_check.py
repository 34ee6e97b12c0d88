"""The GPU check at tiny size on the CPU: the same stages, the product's own command, the same page."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bench import gpu_check
from bench.gpu_check_cases import CASES, SIZES, TINY, WHOLE, Case, Shape, cases_for
from bench.gpu_check_measure import Phase, Result, cap_for, measure, not_as_asked, read_phases
from bench.gpu_check_table import page
from bench.process import environment
from ltxtrain.config.presets import preset_names

GIB = 1024**3
RECORD = {
    "machine": {"name": "A Card", "memory_bytes": 80 * GIB, "detail": "compute capability 9.0", "cores": 8},
    "software": {"python": "3.12", "packages": {"torch": "2.13.0"}, "commit": ""},
    "model": "ltxtrain/random-2b",
    "steps": 20,
    "when": "2026-11-22",
}


def trained(case: str, shape: str, gib: float, **found: object) -> Result:
    phase = Phase("training", "cuda", int(2.2 * GIB), int(1.5 * GIB), int(1.8 * GIB), int(gib * GIB))
    whole = Phase("validation", "cuda", int(3.1 * GIB), GIB, GIB, 3 * GIB)
    return Result(case, shape, 6, phases=(phase, whole), **found)  # type: ignore[arg-type]


def targets(*results: Result) -> dict[str, tuple[str, str]]:
    lines = page(RECORD, list(results)).partition("## Targets")[2].partition("##")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return {name: (measured, met) for name, measured, met in cells}


def test_every_preset_for_a_gpu_has_a_stage_on_the_machine_that_it_is_for() -> None:
    assert {case.preset for case in CASES} == set(preset_names()) - {"smoke"}
    assert {case.preset for case in cases_for("rocm")} >= {"rocm-mi300x", "bf16"}
    assert [shape.key for shape in WHOLE.shapes] == ["480x480x49", "768x512x49", "768x512x121"]
    assert all(set(case.on) <= {"cuda", "rocm", "mps", "cpu"} for case in CASES)


@pytest.mark.slow
def test_a_stage_trains_and_renders_and_its_page_shows_what_was_measured(tmp_path: Path) -> None:
    words = ["low-vram", "--size", "tiny", "--results", str(tmp_path / "results"), "--work", str(tmp_path / "work")]
    gpu_check.main(words)
    (kept,) = (tmp_path / "results").glob("*.json")
    results = [Result.of(each) for each in json.loads(kept.read_text())["results"]]
    assert [result.shape for result in results] == ["64x64x9", "128x64x17"]
    for result in results:
        assert result.told == "" and result.set_aside == () and result.batch == 2 and len(result.losses) == 2
        assert result.seconds_per_step is not None and 0 < result.seconds_per_step < 5
        assert result.samples_per_second == pytest.approx(2 / result.seconds_per_step, rel=0.5)
        assert result.tflops is not None and result.tflops > 0 and result.mfu is None
        assert list((tmp_path / "work" / "low-vram" / result.shape / "run" / "samples").glob("*/*.mp4"))
        measured = {phase.phase: phase.device_used for phase in result.phases if phase.device_used}
        assert set(measured) >= {"training", "validation"}
        assert all(size > 100 * 1024**2 for size in measured.values())
        # Of a tiny model nearly all are libraries: the plan's line of them holds before any margin.
        assert all(phase.device_used <= 1.05 * phase.estimate for phase in result.phases)
    text = kept.with_suffix(".md").read_text()
    assert "| low-vram | 64x64x9 | 2 | 6 GB |" in text and "| low-vram | 128x64x17 | training |" in text


def test_a_run_that_fails_is_told_with_its_reason_and_the_estimate_is_kept(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "64x64x9").write_text("in the way of the run's folder")
    result = measure(Case("bad", "bf16"), TINY.shapes[0], TINY, tmp_path, 60)
    assert result.told.startswith("exit code ") and "64x64x9" in result.told
    assert result.seconds_per_step is None and {phase.phase for phase in result.phases} >= {"latents", "training"}


def test_a_stage_ends_when_its_time_is_over(tmp_path: Path) -> None:
    result = measure(Case("late", "bf16"), TINY.shapes[0], TINY, tmp_path, 0.01)
    assert result.told.startswith("stopped after 1 s")
    (_, second) = gpu_check.stage(Case("late", "bf16"), SIZES["tiny"], tmp_path, 0.01)
    assert second.told == "not begun: the stage's time was over"
    assert gpu_check.told(second) == "late 128x64x17: not measured; not begun: the stage's time was over"


def test_without_a_gpu_the_whole_size_is_refused_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_check, "probe_machine", lambda: {"kind": "cpu", "name": "CPU"})
    with pytest.raises(SystemExit) as left:
        gpu_check.main(["--results", str(tmp_path / "results")])
    assert left.value.code == 4 and not list(tmp_path.iterdir())
    assert capsys.readouterr().err.splitlines()[0] == "error: no GPU here"
    gpu_check.refuse_without_gpu("cpu", "tiny")
    gpu_check.refuse_without_gpu("mps", "whole")


def test_the_list_names_every_stage_with_why_some_are_left_out() -> None:
    lines = list(gpu_check.listed("cuda", []))
    assert len(lines) == len(CASES) and "int8-compile: preset int8-compile, 24 GB" in lines
    assert lines[-2:] == [
        "left out: rocm-mi300x, which is for an AMD GPU",
        "left out: apple-mps, which is for an Apple GPU",
    ]


def test_stopping_the_check_ends_the_command_that_it_runs(tmp_path: Path) -> None:
    inner = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    outer = (
        "import os, pathlib, time; from bench import gpu_check, gpu_check_measure; gpu_check.leave_when_stopped(); "
        f"gpu_check_measure.run(['-c', {inner!r}], pathlib.Path('out'), dict(os.environ), time.monotonic() + 60)"
    )
    check = subprocess.Popen([sys.executable, "-c", outer], cwd=tmp_path, env=environment())
    while not (tmp_path / "out").exists() or not (tmp_path / "out").read_text().endswith("\n"):
        assert check.poll() is None
        time.sleep(0.02)
    check.terminate()
    assert check.wait(20) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "out").read_text()), 0)


def test_an_unknown_stage_is_refused_with_the_way_to_list_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="no stage nonsense on cuda"):
        gpu_check.chosen("cuda", ["nonsense", "bf16"])


def test_the_highest_of_a_phase_counts_and_a_trial_stands_beside_it() -> None:
    plan = {
        "memory": [
            {"phase": "training", "device": "cuda", "total": 11, "margin": 2},
            {"phase": "latents", "device": "cuda", "total": 5, "margin": 0},
        ]
    }
    line = {"phase": "training", "allocated": 3, "reserved": 4, "device_used": 6}
    records = [
        {**line, "where": "run"},
        {**line, "allocated": 5, "where": "run"},
        {**line, "device_used": 7, "where": "probe"},
    ]
    assert read_phases(plan, records) == [
        Phase("training", "cuda", 9, 5, 4, 6, probe=7),
        Phase("latents", "cuda", 5),
    ]


def test_what_would_measure_something_else_is_not_run() -> None:
    notice = "preset full-finetune: model_type: 'full' is not built yet: set aside"
    plan = {"buckets": [{"bucket": {"key": "64x64@9"}}], "notices": [notice]}
    assert not_as_asked(plan, Shape(64, 64, 9)) == "not built yet"
    assert not_as_asked({**plan, "notices": []}, Shape(64, 64, 9)) == ""
    assert not_as_asked({**plan, "notices": []}, Shape(96, 64, 9)) == "the plan trains 64x64@9"


def test_a_run_is_capped_to_its_preset_or_to_the_next_card_that_its_clips_fit_on() -> None:
    low = next(case for case in CASES if case.name == "low-vram")

    def planned(gib: float) -> dict[str, object]:
        loading = {"device": "main memory", "total": 40 * GIB}
        return {"memory": [{"device": "cuda", "total": int(gib * GIB)}, {"device": "cuda", "total": GIB}, loading]}

    assert [cap_for(low, planned(gib)) for gib in (3.0, 6.0, 6.1, 9.4, 300.0)] == [6, 6, 8, 12, 6]
    assert cap_for(low, {}) == 6


def test_targets_are_met_missed_or_not_measured() -> None:
    found = targets(
        trained("low-vram", "480x480x49", 2.1, seconds_per_step=0.2),
        trained("low-vram-4gb", "480x480x49", 2.2),
        trained("bf16-fast", "768x512x49", 20.0, seconds_per_step=0.050, mfu=0.38),
        trained("bf16-fast-compiled", "768x512x49", 20.0, seconds_per_step=0.070, mfu=0.44),
    )
    assert found["low-vram trains 480x480x49 in 2.5 GiB on the device"] == ("2.1 GiB", "met")
    assert found["low-vram, the whole pipeline in 4 GB, framewise"] == ("3.0 GiB", "met")
    assert found["bf16 without checkpointing at 768x512x49: 40 % MFU"] == ("44.0 %", "met")
    assert found["bf16 without checkpointing at 768x512x49: 60 ms a step"] == ("0.050 s", "met")
    assert found["estimates within 10 % of the peaks"] == ("0.11 to 1.05", "missed")
    nothing = targets(trained("low-vram", "480x480x49", 2.7, told="exit code 6: the device ran out of memory"))
    assert nothing["low-vram trains 480x480x49 in 2.5 GiB on the device"][1] == "missed"
    assert nothing["low-vram, the whole pipeline in 6 GB"] == ("-", "not measured")
    assert nothing["bf16 without checkpointing at 768x512x49: 40 % MFU"] == ("-", "not measured")


def test_stages_of_several_calls_make_one_page_and_the_newest_counts(tmp_path: Path) -> None:
    path = tmp_path / "gpu-a-card.json"
    for result in (
        trained("low-vram", "480x480x49", 2.7),
        trained("bf16", "768x512x49", 9.0),
        trained("low-vram", "480x480x49", 2.1),
    ):
        gpu_check.keep(path, RECORD, result)
    kept = [Result.of(each) for each in json.loads(path.read_text())["results"]]
    assert [result.case for result in kept] == ["bf16", "low-vram"]
    assert path.with_suffix(".md").read_text() == page(RECORD, kept)
    assert replace(kept[1], made="") == trained("low-vram", "480x480x49", 2.1)


def test_what_was_measured_is_not_lost_to_a_call_that_measured_nothing(tmp_path: Path) -> None:
    path = tmp_path / "gpu-a-card.json"

    def kept(commit: str, result: Result) -> Result:
        gpu_check.keep(path, {**RECORD, "software": {**RECORD["software"], "commit": commit}}, result)  # type: ignore[dict-item]
        return next(
            found
            for found in map(Result.of, json.loads(path.read_text())["results"])
            if (found.case, found.shape) == (result.case, result.shape)
        )

    first = kept("aaa1111", trained("low-vram", "480x480x49", 2.7, seconds_per_step=0.2))
    nothing = Result("low-vram", "480x480x49", 6, told="not begun: the stage's time was over")
    for less in (nothing, trained("low-vram", "480x480x49", 1.0, told="stopped after 5 s")):
        after = kept("bbb2222", less)
        assert replace(after, since="") == first and after.since == f"{less.told} (commit bbb2222, 2026-11-22)"
    kept("ccc3333", trained("bf16", "768x512x49", 9.0))
    lines = path.with_suffix(".md").read_text().splitlines()
    assert [line[:17] for line in lines if line[:2] in ("1.", "2.")] == ["1. commit aaa1111", "2. commit ccc3333"]
    rows = [line.split(" | ") for line in lines if line.startswith("| ") and line.count(" | ") == 10][2:]
    assert [row[9] for row in rows] == ["1", "2"] and rows[0][10].startswith("tried again: stopped after 5 s")
    failed = trained("low-vram", "480x480x49", 3.0, told="exit code 6: the device ran out of memory")
    assert kept("ddd4444", failed).told == failed.told, "what failed is a finding"
    assert kept("eee5555", Result("int8-16gb", "480x480x49", 16, told="not begun")).told == "not begun"


def test_a_run_on_a_cpu_says_nothing_of_how_good_estimates_are() -> None:
    phase = Phase("training", "cpu", GIB, 0, 0, 3 * GIB)
    found = targets(Result("low-vram", "64x64x9", 6, phases=(phase,), seconds_per_step=0.1))
    assert found["estimates within 10 % of the peaks"] == ("-", "not measured")


def test_shapes_are_named_as_plans_name_them() -> None:
    assert Shape(768, 512, 121).bucket == "768x512@121"
