"""Make the virtual environment and install the locked packages, torch and this project into it. Standard library only.

What was installed is remembered in the environment by a digest of the requirement files, so that a second call with
nothing changed does nothing and needs no network.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import install_torch

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
PYTHONS = ((3, 11), (3, 12), (3, 13))
STAMP = "ltxtrain-setup"


def main() -> None:
    arguments = read_arguments()
    if sys.version_info[:2] not in PYTHONS:
        sys.exit(f"error: Python {platform.python_version()} is not supported\nhint: make setup PYTHON=python3.12")
    python = arguments.venv / "bin" / "python"
    stamp = arguments.venv / STAMP
    # The kind that was chosen once stays: `make test` after `make setup TORCH=cu129` must not put the CPU build back.
    kind_before, digest_before = read_stamp(stamp)
    kind = arguments.torch or kind_before or ("mps" if sys.platform == "darwin" else "cpu")
    digest = digest_of_inputs(kind)
    if python.exists():
        check_same_python(arguments.venv)
        if (kind, digest) == (kind_before, digest_before):
            print(f"{arguments.venv} is up to date")
            return
    else:
        say(f"making {arguments.venv} with Python {platform.python_version()}")
        run([sys.executable, "-m", "venv", str(arguments.venv)])
    install_torch.check_machine(kind)
    stamp.write_text(f"{kind} unfinished\n")
    started = time.monotonic()
    say("installing the locked packages")
    pip(python, "--no-deps", "--require-hashes", "-r", "requirements/lock.txt", "-r", "requirements/dev.txt")
    install_torch.install(kind, install_torch.Place(python, index=arguments.torch_index))
    say("installing ltxtrain itself")
    pip(python, "--no-deps", "--no-build-isolation", "--no-index", "--editable", ".")
    stamp.write_text(f"{kind} {digest}\n")
    say(f"{arguments.venv} is ready ({time.monotonic() - started:.0f} s)")


def read_stamp(stamp: Path) -> tuple[str | None, str | None]:
    """Kind of torch and digest of what was installed; nothing when the file is absent or was cut off."""
    words = stamp.read_text().split() if stamp.exists() else []
    return (words[0], words[1]) if len(words) == 2 and words[0] in install_torch.BUILDS else (None, None)


def check_same_python(venv: Path) -> None:
    """``PYTHON=`` for an environment that has another one cannot be met; it must not go unheard either."""
    settings = (venv / "pyvenv.cfg").read_text().splitlines()
    (has,) = [line.split("=")[1].strip() for line in settings if line.startswith("version ")]
    asked = platform.python_version()
    if has.split(".")[:2] != asked.split(".")[:2]:
        sys.exit(f"error: {venv} has Python {has}, not {asked}\nhint: remove {venv} first, or leave PYTHON= out")


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make the virtual environment that the other make targets use.")
    parser.add_argument("--venv", type=Path, default=Path(".venv"))
    parser.add_argument(
        "--torch", choices=sorted(install_torch.BUILDS), help="default: as before, else mps on a Mac, else cpu"
    )
    parser.add_argument("--torch-index", default=install_torch.INDEX, help="where PyTorch's builds are served")
    return parser.parse_args()


def digest_of_inputs(torch: str) -> str:
    """Changes whenever something would be installed differently: lists, own metadata, kind of torch, Python, place."""
    files = ["lock.txt", "dev.txt", f"torch-{torch}.txt"]
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    own = {"project": metadata["project"], "build": metadata["build-system"], "hatch": metadata["tool"]["hatch"]}
    summary = hashlib.sha256(json.dumps([own, torch, platform.python_version(), str(ROOT)], sort_keys=True).encode())
    for name in files:
        summary.update((REQUIREMENTS / name).read_bytes())
    return summary.hexdigest()


def pip_command(python: Path, *options: str) -> list[str]:
    quiet = ["-qq", "--disable-pip-version-check", "--no-input"]
    return [str(python.absolute()), "-m", "pip", "install", *quiet, *options]


def pip(python: Path, *options: str) -> None:
    run(pip_command(python, *options))


def run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(f"error: this failed: {' '.join(command)}")


def say(line: str) -> None:
    print(f"setup: {line}", flush=True)


if __name__ == "__main__":
    main()
