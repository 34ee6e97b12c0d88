"""docs/doctor.md holds every code that a check can give, and enough of them are planted."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOM = ROOT / "ltxtrain" / "doctor"
CODE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)+|windows|offline")
PLANTING = (
    "test_planted_machine",
    "test_planted_run",
    "test_rules",
    "test_places",
    "test_data_sets",
    "test_containers",
    "test_process",
    "test_hub",
)


def given_codes() -> dict[str, str]:
    """Code and state of every call in the room that names a code, and the entries of its tables of codes."""
    found: dict[str, str] = {}
    for path in sorted(ROOM.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for code, state in _codes_of(node):
                found.setdefault(code, state)
    return found


def _codes_of(node: ast.AST) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Call) and len(node.args) >= 3:
        name = node.func.id if isinstance(node.func, ast.Name) else "worse"
        texts = [part for part in ast.walk(node.args[1]) if isinstance(part, ast.Constant)]
        for text in texts:
            if name in ("fault", "warning", "skipped", "worse") and _is_code(text.value):
                yield text.value, name


def _is_code(value: object) -> bool:
    return isinstance(value, str) and CODE.fullmatch(value) is not None


def planted_codes() -> set[str]:
    codes = set()
    for name in PLANTING:
        for entry in importlib.import_module(f"tests.doctor.{name}").PLANTED:
            codes.add(entry if isinstance(entry, str) else entry[2])
    return codes


def documented() -> dict[str, list[str]]:
    """The rows of the tables: the code in backquotes, and the other cells."""
    rows = {}
    for line in (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8").splitlines():
        found = re.match(r"\| `([a-z][a-z0-9-]+)` \|", line)
        if found:
            assert found.group(1) not in rows, f"{found.group(1)} stands there twice"
            rows[found.group(1)] = [cell.strip() for cell in line.strip(" |").split(" | ")[1:]]
    return rows


def test_every_code_stands_in_the_documentation_with_what_to_do() -> None:
    given, rows = given_codes(), documented()
    needed = {code for code, state in given.items() if state != "skipped"} | planted_codes()
    assert len(needed) > 60
    assert sorted(needed - rows.keys()) == []
    assert all(len(cells) >= 2 and all(cells[:2]) for code, cells in rows.items() if code in needed)


def test_every_reason_for_leaving_out_a_check_stands_there_too() -> None:
    left_out = {code for code, state in given_codes().items() if state == "skipped"}
    assert sorted(left_out - documented().keys()) == []


def test_nothing_stands_there_that_no_check_gives() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in ROOM.glob("*.py"))
    assert [code for code in documented() if f'"{code}"' not in text] == []


def test_more_than_25_faults_are_planted() -> None:
    assert len(planted_codes()) >= 25


def test_every_code_of_the_machine_is_planted() -> None:
    """The checks of the places tell theirs in tests of their own."""
    ours = ("device", "wheels", "software", "needs")
    codes = set()
    for name in ours:
        for node in ast.walk(ast.parse((ROOM / f"{name}.py").read_text(encoding="utf-8"))):
            codes |= {code for code, state in _codes_of(node) if state != "skipped"}
    assert sorted(codes - planted_codes()) == []
