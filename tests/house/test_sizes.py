"""The size caps are held by a script that fails on what is too large, and passes what is just small enough."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def sizes(*folders: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "scripts" / "sizes.py", *folders]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def function_of(lines: int) -> str:
    return "def grow():\n" + "    x = 1\n" * (lines - 1)


TOO_LARGE = {
    "a long file": ("long.py", "x = 1\n" * 401, "401 lines"),
    "a long function": ("long.py", function_of(101), "grow has 101 lines"),
    "a long method": (
        "long.py",
        "class A:\n" + function_of(101).replace("\n", "\n    ").replace("def", "    def", 1),
        "101",
    ),
    "seven parameters": ("wide.py", "def wide(a, b, c, d, e, f, g): ...\n", "7 parameters"),
    "seven with keywords": ("wide.py", "def wide(a, b, *, c, d, e, f, g): ...\n", "7 parameters"),
    "seven of a type": (
        "wide.py",
        "Flag = Annotated[bool, 'x']\ndef f(a: Flag, b: Flag, c: Flag, d: Flag, e: Flag, f: Flag, g: Flag): ...\n",
        "7 parameters",
    ),
    "a nested function": ("wide.py", "def f():\n    def g(a, b, c, d, e, f, g): ...\n", "7 parameters"),
    "a name that says nothing": ("utils.py", "", "is no name"),
    "a room that says nothing": ("helpers/clips.py", "", "is no name"),
}

FLAG = "Flag = Annotated[bool, typer.Option('--flag')]\n"

SMALL_ENOUGH = {
    "a full file": ("full.py", "x = 1\n" * 400),
    "a full function": ("full.py", function_of(100)),
    "a command with seven flags": ("full.py", "def f(ctx: typer.Context, a, b, c, d, e, f, g): ...\n"),
    "seven flags": ("full.py", FLAG + "def f(a: Flag, b: Flag, c: Flag, d: Flag, e: Flag, f: Flag, g: Flag): ...\n"),
    "six parameters and self": ("full.py", "class A:\n    def f(self, a, b, c, d, e, f): ...\n"),
}


@pytest.mark.parametrize("what", TOO_LARGE)
def test_too_large_fails(tmp_path: Path, what: str) -> None:
    place, text, message = TOO_LARGE[what]
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text(text)
    done = sizes(tmp_path)
    assert done.returncode == 1
    assert message in done.stdout
    assert place in done.stdout


@pytest.mark.parametrize("what", SMALL_ENOUGH)
def test_small_enough_passes(tmp_path: Path, what: str) -> None:
    place, text = SMALL_ENOUGH[what]
    (tmp_path / place).write_text(text)
    done = sizes(tmp_path)
    assert done.returncode == 0, done.stdout


def test_a_folder_that_is_not_there_is_an_error_not_a_pass(tmp_path: Path) -> None:
    assert sizes(tmp_path / "nowhere").returncode != 0


def test_the_house_as_it_stands_is_within_its_sizes() -> None:
    done = sizes()
    assert done.returncode == 0, done.stdout
