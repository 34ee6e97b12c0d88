"""Write docs/options.md, the reference of all options and keys, from the schema; docs/names.md from the tables of what
becomes of each name; docs/presets.md from the plan's estimate. ``--check`` only compares."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

from cards import presets_page
from names import names_page

DOCS = Path(__file__).resolve().parent.parent / "docs"
INTRODUCTION = """# Options

Every option, by section, and at the end [every key of a data set](#keys-of-a-data-set). An option's name is the key in
TOML and JSON, the flag (`--lora-rank 4` or `--lora_rank=4`) and, in capitals after `LTXTRAIN_`, the environment
variable. `ltxtrain options WORD` searches this list. Options marked *not built yet* are refused by name; those marked
*built in part* take only the values named under "built"; those marked *no effect here* are accepted, and the plan says
why they do nothing.

This page is written by `make docs` from the schema; do not edit it.
"""

KEYS = """## Keys of a data set

These stand in each entry of the list of data sets: in `[[datasets]]` of a TOML file, or in the JSON list that
`data_backend_config` names. They are no flags. Where the default is "as" an option, that option holds for every
data set that does not set the key; what a data set says itself is stronger, even than a flag. *Refused* keys are
known from the guides and answered with the reason. [datasets.md](datasets.md) tells how they work together.
"""
TITLES = {
    "caption_shuffle": "The table caption_shuffle",
    "video": "The table video",
    "parquet": "The tables parquet and jsonl",
    "huggingface": "The table huggingface, whose keys may also stand in the data set itself",
    "huggingface.filter_func": "The table filter_func, in huggingface or in the data set itself",
}


def page() -> str:
    words = [sys.executable, "-m", "ltxtrain", "options", "--json"]
    listed = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    options = [option for option in listed if "flag" in option]
    keys = [option for option in listed if "flag" not in option]
    parts = [INTRODUCTION]
    for section, group in groupby(options, key=lambda option: option["section"]):
        rows = "\n".join(_row(option) for option in group)
        parts.append(f"## {section}\n\n| option | default | takes | meaning |\n|---|---|---|---|\n{rows}\n")
    parts.append(KEYS)
    for table, group in groupby(keys, key=lambda key: key["name"].rpartition(".")[0]):
        rows = "\n".join(_row(key) for key in group)
        title = f"### {TITLES[table]}\n\n" if table else ""
        parts.append(f"{title}| key | default | takes | meaning |\n|---|---|---|---|\n{rows}\n")
    return "\n".join(parts)


def _row(option: dict[str, Any]) -> str:
    default = "not set" if option["default"] is None else _code(json.dumps(option["default"]).strip('"'))
    if option.get("general"):
        default = f"as {_code(option['general'])}"
    elif option["default"] in (None, {}):
        default = option.get("default_words", default)
    meaning = option["description"]
    if option.get("devices"):
        meaning += f" Only on {', '.join(option['devices'])}."
    if option["state"]:
        meaning += f" *{option['state'].capitalize()}.*"
    if option["built"]:
        meaning += f" Built: {', '.join(map(_code, option['built']))}."
    cells = (f"`{option['name'].rpartition('.')[2]}`", default, option["type"], meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _code(text: str) -> str:
    return f"`{text}`" if text else "empty"


def main() -> None:
    pages = {DOCS / "options.md": page(), DOCS / "names.md": names_page(), DOCS / "presets.md": presets_page()}
    if "--check" in sys.argv:
        stale = [path.name for path, text in pages.items() if not path.exists() or path.read_text("utf-8") != text]
        sys.exit(f"docs/{' and docs/'.join(stale)} out of date: make docs" if stale else 0)
    DOCS.mkdir(exist_ok=True)
    for path, text in pages.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
