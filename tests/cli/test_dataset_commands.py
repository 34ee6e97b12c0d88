"""A command with commands of its own: help, mistyped names, exit codes, and what it imports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ltxtrain.cli.app import run
from ltxtrain.cli.dataset import COMMANDS

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def in_a_clean_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("LTXTRAIN_")]:
        monkeypatch.delenv(name)


def told(capsys: Captured, *words: str) -> tuple[int, str, str]:
    code = run(words)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_its_help_lists_all_of_its_commands(capsys: Captured, word: str) -> None:
    code, out, err = told(capsys, "dataset", word)
    assert (code, err) == (0, "")
    assert out.startswith("usage: ltxtrain dataset COMMAND")
    assert all(f"  {name} " in out and command.summary in out for name, command in COMMANDS.items())


def test_alone_it_shows_its_help_and_the_exit_code_is_2(capsys: Captured) -> None:
    help_text = told(capsys, "dataset", "--help")[1]
    assert told(capsys, "dataset") == (2, help_text, "")


def test_a_mistyped_command_inside_is_answered_with_the_right_one(capsys: Captured) -> None:
    code, out, err = told(capsys, "dataset", "inspct", "clips")
    assert (code, out) == (2, "")
    assert err == "error: there is no command dataset 'inspct'\nhint: did you mean dataset inspect?\n"


def test_a_word_that_is_near_to_nothing_is_answered_with_where_to_look(capsys: Captured) -> None:
    code, _, err = told(capsys, "dataset", "xyzxyzxyz")
    assert code == 2
    assert err.splitlines()[1] == "hint: `ltxtrain dataset --help` lists the commands"


def test_an_option_in_front_of_the_inner_command_is_answered_with_the_order(capsys: Captured) -> None:
    code, _, err = told(capsys, "dataset", "--preset", "smoke", "inspect")
    assert code == 2
    assert err == "error: options come after the command\nhint: such as `ltxtrain dataset inspect ...`\n"


def test_an_inner_command_has_its_own_help_under_its_whole_name(capsys: Captured) -> None:
    code, out, _ = told(capsys, "dataset", "inspect", "--help")
    assert code == 0 and "ltxtrain dataset inspect" in out


def test_a_mistyped_flag_of_an_inner_command_is_answered_like_any_other(capsys: Captured, tmp_path: Path) -> None:
    code, out, err = told(capsys, "dataset", "inspect", str(tmp_path), "--resoluton", "640")
    assert (code, out) == (2, "")
    assert "did you mean --resolution?" in err


@pytest.mark.parametrize("words", [["dataset", "--help"], ["dataset", "inspect", "--help"]], ids=" ".join)
def test_its_help_imports_nothing_heavy(words: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "ltxtrain", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in done.stderr.splitlines()[1:] if "|" in line}
    assert "ltxtrain" in imported
    assert imported & {"torch", "diffusers", "transformers", "av", "cv2", "numpy", "pydantic_settings"} == set()
