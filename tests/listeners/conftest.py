"""A real pseudo terminal, and the events of a short run."""

from __future__ import annotations

import os
import pty
import re
import threading
import time
from collections.abc import Iterator
from typing import TextIO

import pytest

from ltxtrain.events import (
    CheckpointSaved,
    EvalLoss,
    Event,
    Exported,
    Notice,
    RunFinished,
    StageDone,
    StageProgress,
    StageStarted,
    StepDone,
    VideoRendered,
)


class Terminal:
    """``stream`` is a terminal to whoever writes to it; ``output()`` closes it and gives all that was written."""

    def __init__(self) -> None:
        self._master, slave = pty.openpty()
        self.stream: TextIO = os.fdopen(slave, "w", encoding="utf-8")
        self._read: list[bytes] = []
        self._reader = threading.Thread(target=self._drain, daemon=True)
        self._reader.start()

    def _drain(self) -> None:
        while True:
            try:
                part = os.read(self._master, 65536)
            except OSError:  # how Linux tells that the other end is closed
                return
            if not part:
                return
            self._read.append(part)

    def so_far(self) -> str:
        """What has come until now, once nothing has come for a moment."""
        size = -1
        while size != len(self._read):
            size = len(self._read)
            time.sleep(0.1)
        return b"".join(self._read).decode()

    def screen(self, output: str, width: int) -> list[str]:
        return screen_of(output, width)

    def output(self) -> str:
        if not self.stream.closed:
            self.stream.close()
        self._reader.join(timeout=5)
        return b"".join(self._read).decode()


def screen_of(output: str, width: int) -> list[str]:
    """The lines that ``output`` leaves on a terminal of ``width`` columns, as far as we and rich use one."""
    rows: list[list[str]] = [[]]
    row = column = 0
    for code, final, char in re.findall(r"\x1b\[([?\d;]*)([A-Za-z])|([^\x1b])", output):
        if final == "A":
            row = max(0, row - int(code or 1))
        elif final == "K":
            rows[row] = [] if code == "2" else rows[row][:column]
        elif char == "\r":
            column = 0
        elif char == "\n" or (char and column == width):
            row, column = row + 1, 0
            rows += [[]] * (row == len(rows))
        if char and char not in "\r\n":
            rows[row] += [" "] * (column - len(rows[row]))
            rows[row][column : column + 1] = [char]
            column += 1
    return ["".join(cells).rstrip() for cells in rows]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "140")
    terminal = Terminal()
    yield terminal
    terminal.output()


def step_done(step: int, total: int, loss: float = 0.5) -> StepDone:
    return StepDone(
        step=step, total=total, epoch=1, loss=loss, lr=1e-4, grad_norm=0.3, seconds=1.5, samples_per_second=0.7
    )


@pytest.fixture
def run_events() -> list[Event]:
    """A whole short run: two stages, twenty steps with a checkpoint and a validation in between, and the end."""
    events: list[Event] = [
        Notice("asked for 125 frames, training 121"),
        Notice("bottles.mp4 has a variable frame rate", level="warning"),
        StageStarted("text embeddings", total=4, done=1, unit="prompts"),
        *(StageProgress("text embeddings", done) for done in (2, 3, 4)),
        StageDone("text embeddings", 1.25),
        StageStarted("latents", total=3, unit="clips"),
        *(StageProgress("latents", done, detail=f"clip {done}.mp4") for done in (1, 2, 3)),
        StageDone("latents", 12.0, detail="3 clips encoded"),
        StageStarted("training", total=20, unit="steps"),
        *(step_done(step, 20, loss=1.0) for step in range(1, 11)),
        CheckpointSaved(10, "checkpoints/step-00000010", 2048, 0.2),
        EvalLoss(10, "held-out", 0.8123, {"0.500": 0.5, "1.000": 1.1246}, 3.0),
        StageStarted("validation", total=1, unit="videos"),
        VideoRendered(
            10, "ball", "a red ball", "samples/step-00000010/ball.mp4", "samples/step-00000010/ball.png", 3.0
        ),
        StageProgress("validation", 1),
        StageDone("validation", 3.0),
        *(step_done(step, 20, loss=0.5) for step in range(11, 21)),
        StageDone("training", 30.0),
        Exported("diffusers", "/x/export/pytorch_lora_weights.safetensors"),
        RunFinished(20, 45.0),
    ]
    return events
