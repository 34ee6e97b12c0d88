"""metrics.jsonl has one line for each step, in order, whatever happened in between."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ltxtrain.events import StepDone
from ltxtrain.learn.metrics import append_step, drop_torn_lines, truncate_metrics

EVENT = StepDone(
    1, 100, 0, 1.25, 1e-4, 0.5, 0.1, 10.0, {"0.25-0.50": 1.25}, 1000, "clips", {"clips": 1.25}, 0.01, 3.5, 0.25
)


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.jsonl"
    for step in range(1, 11):
        append_step(path, replace(EVENT, step=step))
    return path


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_line_says_what_happened(metrics: Path) -> None:
    assert json.loads(metrics.read_text().splitlines()[0]) == {
        "step": 1,
        "epoch": 0,
        "loss": 1.25,
        "lr": 1e-4,
        "grad_norm": 0.5,
        "seconds": 0.1,
        "samples_per_second": 10.0,
        "sigma_bands": {"0.25-0.50": 1.25},
        "memory_bytes": 1000,
        "dataset": "clips",
        "dataset_losses": {"clips": 1.25},
        "data_seconds": 0.01,
        "tflops": 3.5,
        "mfu": 0.25,
    }


@pytest.mark.parametrize("kept", [0, 1, 7, 10, 50])
def test_steps_that_will_be_done_again_are_dropped(kept: int, metrics: Path) -> None:
    truncate_metrics(metrics, kept)
    assert steps(metrics) == list(range(1, min(kept, 10) + 1))


def test_lines_before_are_kept_to_the_byte(metrics: Path) -> None:
    before = metrics.read_bytes()
    truncate_metrics(metrics, 10)
    assert metrics.read_bytes() == before


@pytest.mark.parametrize(
    "torn", [b'{"step": 11, "lo', b"\0\0\0\0", b"[]\n", b'{"step": "x"}\n', b"\xff\xfe\n", b"\n", b"7\n"]
)
def test_torn_last_line_goes_and_the_next_one_is_whole(torn: bytes, metrics: Path) -> None:
    with metrics.open("ab") as stream:
        stream.write(torn)
    truncate_metrics(metrics, 10)
    append_step(metrics, replace(EVENT, step=11))
    assert steps(metrics) == list(range(1, 12))


def test_without_metrics_there_is_nothing_to_do(tmp_path: Path) -> None:
    truncate_metrics(tmp_path / "metrics.jsonl", 5)
    assert list(tmp_path.iterdir()) == []


def test_a_torn_record_of_memory_is_dropped(tmp_path: Path) -> None:
    file = tmp_path / "memory.jsonl"
    drop_torn_lines(file)
    assert not file.exists()
    file.write_text('{"phase": "training"}\n{"phase": "val')
    drop_torn_lines(file)
    assert file.read_text() == '{"phase": "training"}\n'
