"""What torch says of itself, asked of a child process, so that a torch that crashes or hangs stops nothing here."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import ltxtrain

TORCH_SECONDS = 60.0
POLL_SECONDS = 0.05
STOP_SECONDS = 5.0
SHOWN = 200


@dataclass(frozen=True)
class TorchDevice:
    """``error`` is why a small product could not be computed there. Bytes; None where it is not told.

    Only the first device, which a run takes, is asked for ``free`` and tried: either takes memory of the card.
    """

    name: str
    capability: str | None
    total: int | None
    free: int | None
    bf16: bool | None
    fp8: bool
    error: str = ""


@dataclass(frozen=True)
class TorchFacts:
    """``state`` tells whether torch could be imported; if not, ``error`` says why. ``archs`` is what it was built for.

    ``packages`` holds for each package that was tried why it cannot be imported, or an empty text.
    """

    state: Literal["ok", "missing", "broken", "crashed", "hung"]
    version: str = ""
    cuda: str | None = None
    hip: str | None = None
    available: bool = False
    error: str = ""
    archs: tuple[str, ...] = ()
    devices: tuple[TorchDevice, ...] = ()
    macos: str = ""
    packages: dict[str, str] = field(default_factory=dict)


class TorchProbe:
    """The child process: started at once, so that other checks run beside it."""

    def __init__(self, packages: Sequence[str] = (), seconds: float = TORCH_SECONDS) -> None:
        self._packages = tuple(packages)
        self._seconds = seconds
        self._out, self._err = _memory_file(), _memory_file()  # closed by facts()
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "ltxtrain.learn.probe", *packages],
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            env=_environment(),
            start_new_session=True,
        )

    def facts(self) -> TorchFacts:
        """Wait, but for torch itself no longer than the limit, and for the packages as long again."""
        started = time.monotonic()
        with self._out, self._err:
            try:
                for limit, lines in ((self._seconds, 1), (2 * self._seconds, sys.maxsize)):
                    while self._child.poll() is None and len(self._lines()) < lines:
                        if time.monotonic() - started > limit:
                            return self._read("hung")
                        time.sleep(POLL_SECONDS)
                return self._read("ended")
            finally:
                self._stop()

    def _lines(self) -> list[str]:
        """Whole lines only: the last one may still be on its way."""
        text = self._text(self._out)
        return text[: text.rfind("\n") + 1].splitlines()

    def _read(self, how: str) -> TorchFacts:
        answers = _answers(self._lines())
        code = self._child.returncode
        return read_facts(answers, self._packages, ending_of(how, code, self._text(self._err), self._seconds))

    @staticmethod
    def _text(file: IO[bytes]) -> str:
        """Not by seeking: the child writes at the same position, and would write over what it has said."""
        number = file.fileno()
        return os.pread(number, os.fstat(number).st_size, 0).decode("utf-8", "replace")

    def _stop(self) -> None:
        """End the child and whatever it has started itself. In a driver that hangs, SIGKILL does not end it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(STOP_SECONDS)


def _memory_file() -> IO[bytes]:
    """Not on the disk where that can be: that no temporary file can be made is for a check to tell."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("probe"), "w+b")  # noqa: PTH123 (a number, not a path)
    return tempfile.TemporaryFile()


def _environment() -> dict[str, str]:
    """Our own place comes last on the path, so that the child finds this ltxtrain and nothing else differs."""
    home = str(Path(ltxtrain.__file__).resolve().parent.parent)
    before = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{before}{os.pathsep}{home}" if before else home}


def _answers(lines: Sequence[str]) -> list[dict[str, Any]]:
    found = []
    for line in lines:
        try:
            answer = json.loads(line)
        except ValueError:
            continue
        if isinstance(answer, dict):
            found.append(answer)
    return found


@dataclass(frozen=True)
class Ending:
    """How the child ended: ``state`` and words for it. ``ok`` when it said all that it was asked."""

    state: Literal["ok", "broken", "crashed", "hung"]
    says: str = ""


def ending_of(how: str, code: int | None, errors: str, seconds: float) -> Ending:
    """From the child's exit code, and the last line that it wrote to stderr."""
    if how == "hung":
        return Ending("hung", f"no answer within {seconds:g} s")
    if code is not None and code < 0:
        return Ending("crashed", f"the process ended by {_signal_name(-code)}")
    if code:
        last = next((line.strip() for line in reversed(errors.splitlines()) if line.strip()), "")
        return Ending("broken", f"exit code {code}{': ' if last else ''}{last[:SHOWN]}")
    return Ending("ok")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def read_facts(answers: Sequence[dict[str, Any]], packages: Sequence[str], ending: Ending) -> TorchFacts:
    """What the child said, and for what it did not get to, how it ended."""
    first = answers[0] if answers and "torch" in answers[0] else None
    if first is None:
        state = "broken" if ending.state == "ok" else ending.state
        return TorchFacts(state, error=ending.says or "it ended without an answer")
    imports = {str(answer["package"]): str(answer["error"]) for answer in answers if "package" in answer}
    computed = {answer["device"]: str(answer["error"]) for answer in answers if "device" in answer}
    untried = bool(first["torch"] and first["devices"]) and 0 not in computed
    if ending.state != "ok" and not untried:
        blamed = next((name for name in packages if name not in imports), None)
        imports |= {blamed: f"its import: {ending.says}"} if blamed else {}
    if not first["torch"]:
        return TorchFacts("missing" if first["missing"] else "broken", error=str(first["error"]), packages=imports)
    if untried and ending.state != "ok":
        computed[0] = ending.says
    devices = [TorchDevice(**device, error=computed.get(at, "")) for at, device in enumerate(first["devices"])]
    return TorchFacts(
        state="ok",
        version=first["torch"],
        cuda=first["cuda"],
        hip=first["hip"],
        available=first["available"],
        error=first["error"],
        archs=tuple(first["archs"]),
        devices=tuple(devices),
        macos=first["macos"],
        packages=imports,
    )
