"""Several hundred hand-made bad configurations: one line for each fault, exit code 2, no traceback, no secret."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from ltxtrain.cli.app import run
from ltxtrain.config.catalogue import options
from ltxtrain.config.unbuilt import UNBUILT

BAD = Path(__file__).parent / "bad"


@dataclass(frozen=True)
class Expected:
    line: str
    key: str
    words: str

    def fits(self, told: str, file: str) -> bool:
        """Whether ``told`` is ``error: FILE:LINE: KEY: ...`` of this fault."""
        place = file if self.line == "-" else f"{file}:{self.line}"
        start = f"error: {place}: " if self.key == "-" else f"error: {place}: {self.key}"
        return told.startswith(start) and self.words in told

    @property
    def is_out_of_date(self) -> bool:
        """Whether the option has been built since, and so left the list of what is not."""
        return self.words.endswith("is not built yet") and self.key in options() and self.key not in UNBUILT


@dataclass(frozen=True)
class Case:
    name: str
    kind: str
    faults: tuple[Expected, ...]
    text: str


def read_cases() -> list[Case]:
    """All cases but those that are good configurations by now, because what they ask for has been built."""
    cases = []
    for path in sorted(BAD.glob("*.cases")):
        for block in re.split(r"^### ", path.read_bytes().decode(), flags=re.MULTILINE)[1:]:
            lines = block.split("\n")
            name, kind = lines[0].split()
            told = [line for line in lines[1:] if line.startswith("-> ")]
            text = "\n".join(lines[1 + len(told) :])
            faults = [re.fullmatch(r"-> (\S+) (.*?): (.*)", line) for line in told]
            assert faults and all(faults), f"{path.name}: {name}"
            expected = [Expected(*fault.groups()) for fault in faults if fault]
            current = tuple(fault for fault in expected if not fault.is_out_of_date)
            if current:
                cases.append(Case(f"{path.stem}/{name}-{kind}", kind, current, text))
    return cases


CASES = read_cases()


def written(case: Case, folder: Path) -> tuple[str, list[str]]:
    """Write the case into ``folder``; the file's name, and the words that make the program read it."""
    name = {"json": "case.json", "toml": "case.toml", "entries": "backend.json"}[case.kind]
    (folder / name).write_bytes(case.text.encode())
    flag = "--data-backend-config" if case.kind == "entries" else "--config"
    return name, ["validate", flag, name]


@pytest.fixture(autouse=True)
def in_a_clean_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CASE_WORD", "sixteen")
    monkeypatch.setenv("CASE_TOKEN", "hf_SECRETVALUE1abcdefgh")
    monkeypatch.setenv("CASE_HARMLESS", "hf_SECRETVALUE1abcdefgh")
    monkeypatch.setenv("CASE_HALF", "SECRETVALUE1abcdefgh")
    monkeypatch.setenv("CASE_PASSWORD", "SECRET")


def assert_told(case: Case, file: str, code: int, out: str, err: str) -> None:
    assert code == 2, err
    assert "Traceback" not in err + out
    assert "SECRET" not in err + out
    told = [line for line in err.splitlines() if line.startswith("error: ")]
    rest = [line for line in err.splitlines() if not line.startswith(("error: ", "hint: "))]
    assert not rest, "every line is an error or a hint"
    for expected in case.faults:
        assert any(expected.fits(line, file) for line in told), f"{expected} is not among {told}"
    assert len(told) == len(case.faults), told


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_bad_configuration_is_refused_with_one_line_for_each_fault(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, words = written(case, tmp_path)
    code = run(words)
    out, err = capsys.readouterr()
    assert_told(case, file, code, out, err)


@pytest.mark.parametrize("case", CASES[::70], ids=lambda case: case.name)
def test_the_program_itself_refuses_in_the_same_words(case: Case, tmp_path: Path) -> None:
    file, words = written(case, tmp_path)
    done = subprocess.run([sys.executable, "-m", "ltxtrain", *words], capture_output=True, text=True, timeout=60)
    assert_told(case, file, done.returncode, done.stdout, done.stderr)


def test_the_collection_is_large_and_every_case_is_its_own() -> None:
    assert len(CASES) >= 300
    assert len({case.name for case in CASES}) == len(CASES)
    assert len({(case.kind, case.text) for case in CASES}) == len(CASES)
