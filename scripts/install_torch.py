"""Install one build of torch with its libraries: into an environment for `make setup`, into a folder for an image.
With --download it only fetches the wheels, for a build without a network.

Standard library only: this runs before anything is installed. Every build has a complete list in requirements/,
``torch-KIND.txt``. A list with hashes may take its wheels from anywhere, one without only from PyTorch's own index.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
INDEX = "https://download.pytorch.org/whl"


@dataclass(frozen=True)
class Build:
    """``folder`` of PyTorch's own index; none where the ordinary package index has it. ``machines`` that it is for."""

    folder: str | None
    machines: tuple[str, ...]


BUILDS = {
    "cpu": Build("cpu", ("Linux x86_64", "Linux aarch64")),
    "cu126": Build("cu126", ("Linux x86_64",)),
    "cu129": Build("cu129", ("Linux x86_64",)),
    "cu130": Build(None, ("Linux x86_64", "Linux aarch64")),
    "rocm72": Build("rocm7.2", ("Linux x86_64",)),
    "mps": Build(None, ("Darwin arm64",)),
}


@dataclass(frozen=True)
class Place:
    """Where it goes and where it comes from. ``target``: a folder instead of the environment that ``python`` has."""

    python: Path
    target: Path | None = None
    wheels: Path | None = None
    index: str = INDEX


def main() -> None:
    parser = argparse.ArgumentParser(description="Install one build of torch with its libraries.", allow_abbrev=False)
    parser.add_argument("kind", choices=BUILDS)
    parser.add_argument("--target", type=Path, help="the folder to install into (default: this Python's environment)")
    parser.add_argument("--wheels", type=Path, help="a folder that stands in for all indexes, if it holds wheels")
    parser.add_argument("--index", default=INDEX, help="where PyTorch's builds are served")
    parser.add_argument("--download", type=Path, help="put the wheels into this folder; further words go to pip")
    arguments, options = parser.parse_known_args()
    kind, place = arguments.kind, Place(Path(sys.executable), arguments.target, arguments.wheels, arguments.index)
    if arguments.download:
        return fetch(kind, pip("download", kind, place, "--dest", str(arguments.download), *options), place)
    if options:
        parser.error(f"not known: {' '.join(options)}")
    return install(kind, place)


def install(kind: str, place: Place) -> None:
    """Install the list of ``kind`` for this machine."""
    check_machine(kind)
    into = [] if place.target is None else ["--no-compile", "--target", str(place.target)]
    fetch(kind, pip("install", kind, place, *into), place)


def fetch(kind: str, command: list[str], place: Place) -> None:
    """Run pip. Says what it takes from where; ends the program with pip's words when it cannot."""
    if place.wheels and any(place.wheels.glob("*.whl")):
        say(f"installing torch {kind} from {place.wheels}")
        return run([*command, "--no-index", "--find-links", str(place.wheels)])
    folder = BUILDS[kind].folder
    if folder is None:
        say(f"installing torch {kind}")
        return run(command)
    served = f"{place.index}/{folder}"
    if not hashed(kind):
        say(f"installing torch {kind} from {served}, without hashes: nobody has measured its wheels for this list yet")
        return run([*command, "--index-url", served])
    say(f"installing torch {kind}")
    # A wheel at hand has no hash in its address, so pip would prefer a served one. So what is at hand comes first.
    # Torch stands first in its list, so that nothing else has been fetched when it turns out not to be there.
    first = subprocess.run(command, capture_output=True, text=True, check=False)
    if first.returncode == 0:
        return None
    if "No matching distribution found for torch==" not in first.stderr:
        sys.exit(first.stderr)
    say(f"torch is in none of pip's configured places: taking it from {served}")
    return run([*command, "--extra-index-url", served])


def check_machine(kind: str) -> None:
    machine = f"{platform.system()} {platform.machine()}"
    if machine in BUILDS[kind].machines:
        return
    fitting = [other for other, build in BUILDS.items() if machine in build.machines]
    hint = f"for this machine: {', '.join(fitting)}" if fitting else "no build of torch is listed for this machine"
    sys.exit(f"error: torch {kind} is for {' and '.join(BUILDS[kind].machines)}, not for {machine}\nhint: {hint}")


def pip(verb: str, kind: str, place: Place, *options: str) -> list[str]:
    command = [str(place.python.absolute()), "-m", "pip", verb, "-qq", "--disable-pip-version-check", "--no-input"]
    return [*command, "--no-deps", *(["--require-hashes"] if hashed(kind) else []), "-r", str(list_of(kind)), *options]


def list_of(kind: str) -> Path:
    return REQUIREMENTS / f"torch-{kind}.txt"


def hashed(kind: str) -> bool:
    """Whether each requirement of the list has a hash; pip refuses a list where only some have."""
    lines = list_of(kind).read_text().replace("\\\n", " ").splitlines()
    return all("--hash=sha256:" in line for line in lines if line.strip() and not line.startswith("#"))


def run(command: list[str]) -> None:
    if subprocess.run(command, check=False).returncode:
        sys.exit(f"error: this failed: {' '.join(command)}\nhint: the lines above are pip's")


def say(line: str) -> None:
    print(f"setup: {line}", flush=True)


if __name__ == "__main__":
    main()
