"""Write docs/options.md, the reference of all options, from the schema. ``--check`` only compares."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent.parent / "docs" / "options.md"
INTRODUCTION = """# Options

Every option, by section. The same name is the key in TOML and JSON, the flag (`--lora-rank 4` or `--lora_rank=4`) and,
in capitals after `LTXTRAIN_`, the environment variable. `ltxtrain options WORD` searches this list. Options marked
*not built yet* are refused by name; those marked *built in part* take only the values named under "built";
those marked *no effect here* are accepted, and the plan says why they do nothing.

This page is written by `make docs` from the schema; do not edit it.
"""


def page() -> str:
    words = [sys.executable, "-m", "ltxtrain", "options", "--json"]
    options = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    parts = [INTRODUCTION]
    for section, group in groupby(options, key=lambda option: option["section"]):
        rows = "\n".join(_row(option) for option in group)
        parts.append(f"## {section}\n\n| option | default | takes | meaning |\n|---|---|---|---|\n{rows}\n")
    return "\n".join(parts)


def _row(option: dict[str, Any]) -> str:
    default = "not set" if option["default"] is None else _code(json.dumps(option["default"]).strip('"'))
    meaning = option["description"]
    if option["devices"]:
        meaning += f" Only on {', '.join(option['devices'])}."
    if option["state"]:
        meaning += f" *{option['state'].capitalize()}.*"
    if option["built"]:
        meaning += f" Built: {', '.join(map(_code, option['built']))}."
    cells = (f"`{option['name']}`", default, option["type"], meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _code(text: str) -> str:
    return f"`{text}`" if text else "empty"


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(PAGE.read_text(encoding="utf-8") != page() and "docs/options.md is out of date: make docs")
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
