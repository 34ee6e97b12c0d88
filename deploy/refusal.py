"""What both scripts say no with, and which words stand in for something that only the user knows."""

from __future__ import annotations

import argparse
import re
import sys
from typing import NoReturn

PLACEHOLDER = re.compile(r"REGISTRY|DIGEST|\bTEMPLATE\b|\bONSTART\b")


class Refused(Exception):
    """What is wrong, and what to do about it; an empty hint is none."""

    def __init__(self, says: str, hint: str) -> None:
        super().__init__(says)
        self.hint = hint


class Parser(argparse.ArgumentParser):
    """Says what is wrong in the two lines that everything here says it in."""

    def error(self, message: str) -> NoReturn:
        tell_refusal(Refused(message, f"{self.prog} --help tells what it takes"))
        sys.exit(2)


def tell_refusal(refusal: Refused) -> None:
    print(f"error: {refusal}" + (f"\nhint: {refusal.hint}" if refusal.hint else ""), file=sys.stderr)


def warn(says: str) -> None:
    print(f"warning: {says}", file=sys.stderr)


def check_given(given: argparse.Namespace) -> None:
    """Refuse empty values: mostly a variable of the shell that is not set."""
    for name, value in vars(given).items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and not text.strip():
                raise Refused(f"--{name.replace('_', '-')} is empty", "is a variable of your shell not set?")
