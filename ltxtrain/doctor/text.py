"""The findings in plain words, for the screen and for a report of a bug."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ltxtrain.doctor.findings import Finding, counts
from ltxtrain.units import counted

if TYPE_CHECKING:
    from ltxtrain.doctor.run import Examination, Group

WIDTH = 110
MARKS = {"ok": "ok", "warning": "WARNING", "fault": "FAULT", "skipped": "-"}
MARK_WIDTH = max(map(len, MARKS.values()))


def render(examination: Examination) -> str:
    """A line for each finding and one for its fix, aligned, without colour. Ends with a newline."""
    findings = [finding for group in examination.groups for finding in group.findings]
    width = max((len(finding.check) for finding in findings), default=0)
    blocks = [_group(group, width) for group in examination.groups if group.findings]
    return "\n\n".join([*blocks, summary(findings)]) + "\n"


def _group(group: Group, width: int) -> str:
    return "\n".join([group.title, *(line for finding in group.findings for line in _lines(finding, width))])


def _lines(finding: Finding, width: int) -> list[str]:
    """The code, to be looked up, follows what is wrong. A path is never broken: it is there to be copied."""
    head = f"  {finding.check:<{width}}  {MARKS[finding.state]:<{MARK_WIDTH}}  "
    inner = " " * len(head)
    says = f"{finding.says} [{finding.code}]" if finding.fix else finding.says
    lines = _wrapped(says, head, inner)
    if finding.fix:
        lines += _wrapped(f"fix: {finding.fix}", inner, inner + "     ")
    return lines


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    wrapper = textwrap.TextWrapper(
        WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
    return wrapper.wrap(text) or [first.rstrip()]


def summary(findings: Sequence[Finding]) -> str:
    """``24 checks, 2 warnings, 1 fault``. What was skipped was not checked."""
    found = counts(findings)
    checks = len(findings) - found["skipped"]
    return ", ".join([counted(checks, "check"), counted(found["warning"], "warning"), counted(found["fault"], "fault")])
