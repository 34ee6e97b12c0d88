"""Write ``requirements/lock.txt`` and ``dev.txt``: every package pinned and hashed, one list for all machines.

Torch, its compiler and the libraries of its GPU builds are resolved with the rest, so that what they need is in the
list, and then left out: which build of torch is right depends on the machine, and a hash list that names torch at all
makes pip prefer the multi-gigabyte build of the package index to a CPU wheel at hand. Each build has a file of its own.

The lists name no index: where packages come from is the business of whoever installs them.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
TORCH_FAMILY = re.compile(r"(torch|triton|pytorch-triton.*|nvidia-.*|cuda-.*)$")

HEADER = """\
# Written by `make lock`; do not edit. {what}
# Install with: pip install --no-deps --require-hashes -r requirements/{name}
"""


def main() -> None:
    shared = resolve(["pyproject.toml", "requirements/base.in"], [])
    write("lock.txt", "All kinds of hardware, Python 3.11 to 3.13; torch has files of its own.", shared)
    tools = resolve(["requirements/dev.in"], ["--constraints", "requirements/lock.txt"])
    write("dev.txt", "Tools that build, check and test; what lock.txt holds is not repeated.", without(tools, shared))


def resolve(sources: list[str], extra: list[str]) -> dict[str, str]:
    """Package name -> its entry (pin, marker, hashes) for the newest versions that satisfy ``sources`` everywhere."""
    command = ["uv", "pip", "compile", *sources, *extra, "--universal", "--python-version", "3.11"]
    command += ["--generate-hashes", "--no-header", "--no-annotate", "--no-config", "--fork-strategy", "fewest"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    entries = re.split(r"\n(?=\S)", done.stdout.strip())
    found = {re.split(r"[=@ ]", entry, maxsplit=1)[0]: entry for entry in entries if not entry.startswith("#")}
    return {name: entry for name, entry in found.items() if not TORCH_FAMILY.match(name)}


def without(entries: dict[str, str], others: dict[str, str]) -> dict[str, str]:
    differing = [name for name in entries.keys() & others.keys() if pin(entries[name]) != pin(others[name])]
    if differing:
        sys.exit(f"the two lists disagree about {', '.join(sorted(differing))}")
    return {name: entry for name, entry in entries.items() if name not in others}


def pin(entry: str) -> str:
    return entry.split(maxsplit=1)[0]


def write(name: str, what: str, entries: dict[str, str]) -> None:
    text = HEADER.format(what=what, name=name) + "\n".join(entries.values()) + "\n"
    (REQUIREMENTS / name).write_text(text)
    print(f"requirements/{name}: {len(entries)} packages", file=sys.stderr)


if __name__ == "__main__":
    main()
