"""The exception tree. Every error that a user can cause is one of these, and each has its own exit code.

    LtxtrainError            1
    |-- ConfigError          2   the configuration: one Fault for each thing that is wrong
    |-- DataError            3   clips, captions, datasets
    |-- MachineError         4   device, disk, memory of the host, missing packages
    |-- ModelError           5   model folders and weights, adapters
    |-- OutOfMemoryError     6
    |-- CheckpointError      7
    `-- Interrupted          130 or 143, raised after everything has been saved

The command line prints ``error: MESSAGE`` and ``hint: HINT`` and leaves with ``exit_code``; it shows a traceback only
with ``--debug``.
"""

from __future__ import annotations

from dataclasses import dataclass


class LtxtrainError(Exception):
    """Something that the user can mend. ``message`` says what and where from, ``hint`` says one thing to do."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True)
class Fault:
    """One thing wrong in a configuration: rendered as one line, ``source: key: problem (suggestion)``."""

    key: str
    problem: str
    source: str = ""
    suggestion: str = ""

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.source, self.key) if part)
        line = f"{where}: {self.problem}" if where else self.problem
        return f"{line} ({self.suggestion})" if self.suggestion else line


class ConfigError(LtxtrainError):
    """The configuration cannot be used. All faults are found in one pass."""

    exit_code = 2

    def __init__(self, faults: tuple[Fault, ...] | list[Fault], *, hint: str | None = None) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults), hint=hint)


class DataError(LtxtrainError):
    exit_code = 3


class MachineError(LtxtrainError):
    exit_code = 4


class ModelError(LtxtrainError):
    exit_code = 5


class OutOfMemoryError(LtxtrainError):
    exit_code = 6


class CheckpointError(LtxtrainError):
    exit_code = 7


class Interrupted(LtxtrainError):
    """A signal asked the run to stop and everything is saved. ``exit_code`` is 128 + the signal's number."""

    def __init__(self, message: str, *, signal_number: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = 128 + signal_number
