"""What a check gives back, and the exit code that a list of them means."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ltxtrain.units import plain

State = Literal["ok", "warning", "fault", "skipped"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    check: str  # what was looked at, stable: "driver", "shared memory"
    state: State
    code: str  # stable reason in kebab case: "driver-too-old"; "ok" where nothing is wrong
    says: str  # one line with figures
    fix: str = ""  # one thing to do; empty only for ok and skipped

    def __post_init__(self) -> None:
        if bool(self.fix) != (self.state in ("warning", "fault")):
            raise ValueError(f"{self.check}: a warning or a fault has a fix, and nothing else has one")
        if "\n" in self.says + self.fix:
            raise ValueError(f"{self.check}: says and fix are one line each")


def ok(check: str, says: str) -> Finding:
    return Finding(check, "ok", "ok", plain(says))


def skipped(check: str, code: str, says: str) -> Finding:
    """Not looked at, and ``says`` tells why."""
    return Finding(check, "skipped", code, plain(says))


def warning(check: str, code: str, says: str, fix: str) -> Finding:
    """A run can go on, but something will be worse than it could be."""
    return Finding(check, "warning", code, plain(says), plain(fix))


def fault(check: str, code: str, says: str, fix: str) -> Finding:
    """A run would stop here."""
    return Finding(check, "fault", code, plain(says), plain(fix))


def counts(findings: Iterable[Finding]) -> dict[str, int]:
    """How many findings there are of each state."""
    found = {"ok": 0, "warning": 0, "fault": 0, "skipped": 0}
    for finding in findings:
        found[finding.state] += 1
    return found
