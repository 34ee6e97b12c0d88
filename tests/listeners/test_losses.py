"""The loss on the screen where there are several data sets, and where some hold the model where it was."""

from __future__ import annotations

import io

import pytest

from ltxtrain.events import StageStarted, StepDone
from ltxtrain.listeners.console import BarListener, console_listener
from ltxtrain.listeners.progress import counted

SETS = {"gestures": False, "bottles": False, "as-it-was": True}


def step(number: int, **losses: float) -> StepDone:
    """One step of the data sets named, with underscores for hyphens."""
    named = {name.replace("_", "-"): loss for name, loss in losses.items()}
    loss = sum(named.values()) / len(named)
    return StepDone(
        step=number,
        total=100,
        epoch=1,
        loss=loss,
        lr=1e-4,
        grad_norm=0.3,
        seconds=1.5,
        samples_per_second=0.7,
        dataset=", ".join(named),
        dataset_losses=named,
    )


def told(steps: list[StepDone], datasets: dict[str, bool] | None = None) -> list[str]:
    """What each line that tells of steps says of the loss: the first step, and then every second."""
    stream = io.StringIO()
    with console_listener(stream, 2, datasets) as listener:
        for event in steps:
            listener(event)
    return [line.split(" %), ")[1].split(", lr")[0] for line in stream.getvalue().splitlines()]


def test_one_data_set_is_not_named() -> None:
    assert told([step(1, gestures=2.0), step(2, gestures=1.0)], {"gestures": False}) == ["loss 2.0000", "loss 1.0000"]


def test_a_line_names_the_data_sets_that_its_mean_is_of() -> None:
    steps = [step(1, bottles=4.0), step(2, gestures=2.0), step(3, gestures=3.0), step(4, bottles=1.0)]
    assert told(steps, SETS) == ["loss 4.0000 (bottles)", "loss 2.0000 (gestures)", "loss 2.0000 (gestures, bottles)"]


def test_regularisation_is_marked_and_no_part_of_the_loss() -> None:
    steps = [step(1, as_it_was=0.0), step(2, gestures=2.0), step(3, as_it_was=0.001), step(4, gestures=1.0)]
    assert told(steps, SETS) == [
        "regularisation 0.0000 (as-it-was)",
        "loss 2.0000 (gestures)",
        "loss 1.0000 (gestures), regularisation 0.0010 (as-it-was)",
    ]


def test_a_step_of_several_batches_is_taken_apart() -> None:
    steps = [step(1, gestures=2.0, as_it_was=0.0), step(2, gestures=2.0, bottles=1.0)]
    assert told(steps, SETS) == [
        "loss 2.0000 (gestures), regularisation 0.0000 (as-it-was)",
        "loss 1.5000 (gestures, bottles)",
    ]


def test_sets_nobody_told_of_are_named_as_soon_as_there_are_two() -> None:
    assert told([step(1, bottles=4.0), step(2, gestures=2.0)]) == ["loss 4.0000", "loss 2.0000 (gestures)"]


def test_many_sets_and_long_names_are_cut_short() -> None:
    names = {f"set-{number}": 1.0 for number in range(5)}
    assert told([step(1, **names)]) == ["loss 1.0000 (set-0, set-1, set-2 and 2 more)"]
    (line,) = told([step(1, **{"a\x1b[2J" + "b" * 80: 1.0, "c": 1.0})])
    assert "\x1b" not in line and len(line) < 60


def test_the_bar_names_the_set_and_keeps_the_loss_of_what_is_learnt(terminal) -> None:
    with BarListener(terminal.stream, datasets=SETS) as listener:
        listener(StageStarted("training", 100, 0, "steps"))
        for event in (step(1, gestures=2.0), step(2, as_it_was=0.0)):
            listener(event)
            listener._live.refresh()
    output = terminal.output()
    assert "loss 2.0000, gestures, lr 1.0e-04" in output
    assert "loss 2.0000, as-it-was (regularisation), lr 1.0e-04" in output


def test_a_narrow_bar_keeps_the_loss_rather_than_the_names(terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    with BarListener(terminal.stream, datasets=SETS) as listener:
        listener(StageStarted("training", 100, 0, "steps"))
        listener(step(1, gestures=2.0, as_it_was=0.0))
        listener._live.refresh()
    assert "loss 2.0000, 1.50 s/step" in terminal.output() and "as-it-was" not in terminal.output()


@pytest.mark.parametrize(
    ("count", "unit", "words"),
    [
        (1, "batches", "1 batch"),
        (2, "batches", "2 batches"),
        (1, "entries", "1 entry"),
        (1, "clips", "1 clip"),
        (0, "clips", "0 clips"),
        (1, "MiB", "1 MiB"),
        (1, "caches", "1 cache"),
        (1, "", "1"),
    ],
)
def test_one_of_a_unit_is_singular(count: int, unit: str, words: str) -> None:
    assert counted(count, unit) == words
