"""Write the lists in requirements/: every package pinned and hashed. `make lock` writes lock, dev and sbom.txt.

`lock.txt` and `dev.txt` hold for all machines. Torch, its compiler and the libraries of its GPU builds are resolved
with the rest, so that what they need is in the list, and then left out: which build of torch is right depends on the
machine, and a hash list that names torch at all makes pip prefer the multi-gigabyte build of the package index to a CPU
wheel at hand. `sbom.txt` is an environment of its own. ``--torch KIND`` writes the list of one build of torch instead;
most of them need PyTorch's own index for it.

The lists name no index: where packages come from is the business of whoever installs them.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import install_torch

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
TORCH_FAMILY = re.compile(r"(torch|triton|pytorch-triton.*|nvidia-.*|cuda-.*)$")

HEADER = """\
# Written by `{command}`; do not edit. {what}
# Install with: pip install --no-deps --require-hashes -r requirements/{name}
"""
BUILDS_OF_TORCH = {
    "cpu": "Torch for the CPU: Linux on x86-64 and ARM.",
    "cu126": "Torch for NVIDIA, CUDA 12.6 (driver 525 or later): Pascal to Hopper, no Blackwell.",
    "cu129": "Torch for NVIDIA, CUDA 12.9 (driver 525 or later; 570 for Blackwell).",
    "cu130": "Torch for NVIDIA, CUDA 13.0 (driver 580 or later): Turing to Blackwell.",
    "rocm72": "Torch for AMD, ROCm 7.2; ROCm's libraries are inside the wheel.",
    "mps": "Torch for Apple silicon: the ordinary build holds the Metal backend.",
}
SYSTEM = {"Linux": "x86_64-manylinux_2_28", "Darwin": "aarch64-apple-darwin"}
# What is resolved as if it had been asked for: uv takes a package from a named index only then.
FROM_TORCH_INDEX = {"rocm72": ["triton-rocm"]}
PROJECT = """\
[project]
name = "torch-list"
version = "0"
requires-python = ">=3.11"
dependencies = {dependencies}

[[tool.uv.index]]
name = "torch"
url = "{url}"
explicit = true

[tool.uv.sources]
{sources}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Resolve again and write requirements/*.txt. Needs the network.")
    parser.add_argument("--torch", choices=BUILDS_OF_TORCH, help="write the list of this build of torch instead")
    parser.add_argument("--index", default=install_torch.INDEX, help="where PyTorch's builds are served")
    arguments = parser.parse_args()
    if arguments.torch:
        return write_torch(arguments.torch, arguments.index)
    everywhere = ["--universal", "--python-version", "3.11", "--fork-strategy", "fewest"]
    shared = without_torch(resolve(["pyproject.toml", "requirements/base.in", *everywhere]))
    write("lock.txt", "All kinds of hardware, Python 3.11 to 3.13; torch has files of its own.", shared)
    after_lock = [*everywhere, "--constraints", "requirements/lock.txt"]
    with_torch = [*after_lock, "--constraints", "requirements/base.in"]
    tools = without(without_torch(resolve(["requirements/dev.in", *with_torch])), shared)
    write("dev.txt", "Tools that build, check and test; what lock.txt holds is not repeated.", tools)
    inventory = resolve(["requirements/sbom.in", *after_lock])
    write("sbom.txt", "The tool that lists what an image holds, in an environment of its own.", inventory)


def write_torch(kind: str, index: str) -> None:
    build = install_torch.BUILDS[kind]
    local = f"+{build.folder}" if build.folder else ""
    wanted = [f"torch=={torch_release()}{local}", *FROM_TORCH_INDEX.get(kind, [])]
    system = SYSTEM[build.machines[0].split()[0]]
    options = ["--python-version", "3.11", "--python-platform", system, "--constraints", "requirements/lock.txt"]
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "pyproject.toml"
        project.write_text(project_of(wanted, f"{index}/{build.folder}" if build.folder else None))
        found = resolve([str(project), *options])
    lock = names(REQUIREMENTS / "lock.txt")
    entries = {name: entry for name, entry in found.items() if name not in lock}
    # First of all torch: when its wheel is not to be had, pip finds out before it has fetched gigabytes.
    entries = {"torch": entries["torch"], **entries}
    write(f"torch-{kind}.txt", BUILDS_OF_TORCH[kind], entries, command=f"scripts/lock.py --torch {kind}")


def torch_release() -> str:
    found = re.search(r"^torch==(\S+)$", (REQUIREMENTS / "base.in").read_text(), flags=re.MULTILINE)
    return found.group(1) if found else sys.exit("error: requirements/base.in pins no torch")


def project_of(wanted: list[str], url: str | None) -> str:
    sources = [f'{re.split("=", name)[0]} = {{ index = "torch" }}' for name in wanted]
    text = PROJECT.format(dependencies=wanted, url=url, sources="\n".join(sources))
    return text if url else text.split("[[tool")[0]


def names(path: Path) -> set[str]:
    return set(re.findall(r"^([a-z0-9][^=@ ]*)==", path.read_text(), flags=re.MULTILINE))


def resolve(options: list[str]) -> dict[str, str]:
    """Package name -> its entry (pin, marker, hashes) for the newest versions that satisfy what is asked for."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv is None:
        sys.exit("error: uv is not there\nhint: make setup")
    command = [uv, "pip", "compile", *options, "--generate-hashes", "--no-header", "--no-annotate", "--no-config"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    entries = re.split(r"\n(?=\S)", done.stdout.strip())
    return {re.split(r"[=@ ]", entry, maxsplit=1)[0]: entry for entry in entries if not entry.startswith(("#", "-"))}


def without_torch(entries: dict[str, str]) -> dict[str, str]:
    return {name: entry for name, entry in entries.items() if not TORCH_FAMILY.match(name)}


def without(entries: dict[str, str], others: dict[str, str]) -> dict[str, str]:
    differing = [name for name in entries.keys() & others.keys() if pin(entries[name]) != pin(others[name])]
    if differing:
        sys.exit(f"the two lists disagree about {', '.join(sorted(differing))}")
    return {name: entry for name, entry in entries.items() if name not in others}


def pin(entry: str) -> str:
    return entry.split(maxsplit=1)[0]


def write(name: str, what: str, entries: dict[str, str], command: str = "make lock") -> None:
    unhashed = [entry.split()[0] for entry in entries.values() if "--hash=sha256:" not in entry]
    if unhashed:
        sys.exit(f"error: the index gives no hash of {', '.join(unhashed)}\nhint: nothing was written")
    text = HEADER.format(what=what, name=name, command=command) + "\n".join(entries.values()) + "\n"
    (REQUIREMENTS / name).write_text(text)
    print(f"requirements/{name}: {len(entries)} packages", file=sys.stderr)


if __name__ == "__main__":
    main()
