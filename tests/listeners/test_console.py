from __future__ import annotations

import io
import re
import sys
import threading

import pytest

from ltxtrain.events import Event, StageProgress, StageStarted, StepDone
from ltxtrain.listeners.console import BarListener, console_listener
from ltxtrain.listeners.lines import LineListener

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
COLOUR = re.compile(r"\x1b\[[0-9;]*\b(3[0-7]|9[0-7]|38|4[0-7]|48)\b[0-9;]*m")


def test_no_terminal_gives_plain_lines() -> None:
    assert isinstance(console_listener(io.StringIO()), LineListener)


def test_a_terminal_gives_bars(terminal) -> None:
    assert isinstance(console_listener(terminal.stream), BarListener)


def test_a_dumb_terminal_gives_plain_lines(terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(console_listener(terminal.stream), LineListener)


def test_stderr_is_the_place_when_none_is_named(capsys: pytest.CaptureFixture[str], run_events: list[Event]) -> None:
    with console_listener() as listener:
        for event in run_events:
            listener(event)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "step 20/20 (100 %)" in captured.err


def test_what_is_done_stays_on_the_screen(terminal, run_events: list[Event]) -> None:
    with console_listener(terminal.stream) as listener:
        for event in run_events:
            listener(event)
    output = terminal.output()
    for line in (
        "asked for 125 frames, training 121",
        "bottles.mp4 has a variable frame rate",
        "latents: done in 12 s, 3 clips encoded",
        "checkpoint at step 10: checkpoints/step-00000010 (2.0 KiB, 0.2 s)",
        "evaluation loss at step 10: 0.8123 (held-out, 2 sigmas, 3.0 s)",
        "video at step 10: samples/step-00000010/ball.mp4 (3.0 s)",
        "training: done in 30 s",
    ):
        assert line in output
    assert output.rindex(SHOW) > output.rindex(HIDE)


def test_the_bar_shows_loss_rate_and_remaining_time(terminal) -> None:
    moments = iter(range(0, 1000, 2))  # two seconds a step
    listener = BarListener(terminal.stream, clock=lambda: float(next(moments)))
    with listener:
        listener(StageStarted("training", 100, 0, "steps"))
        for number in range(1, 11):
            listener(StepDone(number, 100, 1, 0.5, 1e-4, 0.3, 1.5, 0.7))
        listener._live.refresh()
    assert "loss 0.5000, lr 1.0e-04, 1.50 s/step, ETA 3 min 00 s" in terminal.output()


def training_bar(terminal, columns: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """The line after ten steps of two seconds, on a terminal with so many columns."""
    monkeypatch.setenv("COLUMNS", str(columns))
    moments = iter(range(0, 1000, 2))
    listener = BarListener(terminal.stream, clock=lambda: float(next(moments)))
    listener(StageStarted("training", 100, 0, "steps"))
    for number in range(1, 11):
        listener(StepDone(number, 100, 1, 0.5, 1e-4, 0.3, 1.5, 0.7))
    listener._live.refresh()
    terminal.stream.flush()
    before_the_end = terminal.so_far()
    listener.close()
    return next(line for line in reversed(terminal.screen(before_the_end, columns)) if line)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (140, "10/100 loss 0.5000, lr 1.0e-04, 1.50 s/step, ETA 3 min 00 s"),
        (76, "10/100 loss 0.5000, 1.50 s/step, ETA 3 min 00 s"),
        (60, "10/100 loss 0.5000, ETA 3 min 00 s"),
        (46, "10/100 ETA 3 min 00 s"),
        (38, "10/100 ETA 3 min 00 s"),
    ],
)
def test_a_narrow_terminal_loses_words_before_bar_count_and_remaining_time(
    terminal, monkeypatch: pytest.MonkeyPatch, columns: int, told: str
) -> None:
    line = training_bar(terminal, columns, monkeypatch)
    assert re.fullmatch(rf"\S training( [━╸╺]+)? {re.escape(told)}", line), line
    assert len(line) < columns
    assert columns < 40 or line.count("━") >= 5


@pytest.mark.parametrize("columns", range(8, 40, 4))
def test_the_line_stays_one_line_however_narrow(terminal, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    with BarListener(terminal.stream) as listener:
        listener(StageStarted("text embeddings", 1000, 0, "captions"))
        listener(StageProgress("text embeddings", 999, "a clip with a long name.mp4"))
        listener._live.refresh()
        assert listener._live._live_render.last_render_height == 1


def test_an_unfinished_bar_is_taken_away(terminal) -> None:
    with pytest.raises(KeyboardInterrupt), console_listener(terminal.stream) as listener:
        listener(StageStarted("training", 600, 0, "steps"))
        listener(StepDone(196, 600, 1, 0.5, 1e-4, 0.3, 1.5, 0.7))
        listener(StageStarted("model"))
        listener._live.refresh()
        raise KeyboardInterrupt
    output = terminal.output()
    assert "196/600" not in output and "model" in output, "the newest stage is the one that is shown"
    assert "".join(terminal.screen(output, 140)) == ""


def test_an_echoed_interrupt_and_a_line_written_past_us_leave_no_dead_bar(terminal) -> None:
    """What a signal does: the terminal echoes ^C, and the handler clears its line and writes one of its own."""
    with console_listener(terminal.stream) as listener:
        listener(StageStarted("training", 600, 0, "steps"))
        listener(StageStarted("validation", 2, 0, "videos"))
        listener._live.refresh()
        listener._live.auto_refresh = False
        terminal.stream.write("^C\r\x1b[Kstopping\n")
        terminal.stream.flush()
        listener._live.refresh()
    assert [line for line in terminal.screen(terminal.output(), 140) if line] == ["stopping"]


def test_the_terminal_is_given_back_wherever_the_run_stops(terminal, run_events: list[Event]) -> None:
    threads = set(threading.enumerate())
    for count in range(len(run_events) + 1):
        streams = sys.stdout, sys.stderr
        with pytest.raises(KeyboardInterrupt), console_listener(terminal.stream) as listener:
            for event in run_events[:count]:
                listener(event)
            raise KeyboardInterrupt
        assert (sys.stdout, sys.stderr) == streams
        for thread in set(threading.enumerate()) - threads:
            thread.join(timeout=5)
            assert not thread.is_alive(), f"a thread still draws after {count} events"
    output = terminal.output()
    assert output.count(HIDE) > len(run_events) // 2, "the bars were never shown: this test would prove nothing"
    assert output.rindex(SHOW) > output.rindex(HIDE)
    assert output.count(SHOW) >= output.count(HIDE)


def test_stderr_of_others_is_printed_above_the_bars_and_stdout_is_left_alone(
    terminal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", terminal.stream)
    with console_listener() as listener:
        listener(StageStarted("training", 10, 0, "steps"))
        print("a library's warning", file=sys.stderr)
        print("data")
    assert capsys.readouterr().out == "data\n"
    assert "a library's warning" in terminal.output()


def test_no_colour_when_the_user_wants_none(terminal, run_events: list[Event], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    with console_listener(terminal.stream) as listener:
        for event in run_events:
            listener(event)
    assert not COLOUR.search(terminal.output())


def test_colour_otherwise(terminal, run_events: list[Event]) -> None:
    with console_listener(terminal.stream) as listener:
        for event in run_events:
            listener(event)
    assert COLOUR.search(terminal.output())


def test_markup_and_control_characters_in_names_are_shown_as_they_are(terminal) -> None:
    with console_listener(terminal.stream) as listener:
        listener(StageStarted("latents", 2))
        listener(StageProgress("latents", 1, detail="[red]clip[/red]\x1b[2J.mp4"))
        listener._live.refresh()
    output = terminal.output()
    assert "[red]clip[/red]\\x1b[2J.mp4" in output
    assert "\x1b[2J" not in output


def test_the_bar_is_not_red(terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-16color")
    with console_listener(terminal.stream) as listener:
        for stage in (StageStarted("model"), StageStarted("training", 4, 2, "steps")):
            listener(stage)
            listener._live.refresh()
    codes = {code for found in re.findall(r"\x1b\[([\d;]+)m", terminal.output()) for code in found.split(";")}
    assert "36" in codes and not codes & {"31", "91"}


def test_a_stage_with_nothing_to_count_shows_no_count(terminal) -> None:
    with console_listener(terminal.stream) as listener:
        listener(StageStarted("transformer"))
        listener._live.refresh()
    assert "0/" not in terminal.output()
