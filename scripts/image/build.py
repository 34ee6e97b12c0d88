"""Build one image with its labels: `make image-cuda` and its kin. Standard library only, so that it runs
before setup, with any Python from 3.9 on.

What the labels and image.json say is read here from the checkout, because a build does not see the repository.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TORCH_OF_KIND = {"cpu": ("cpu",), "cuda": ("cu129", "cu126", "cu130"), "rocm": ("rocm72",)}  # the first is the default
STAGES = ("plain", "cloud", "sage")


@dataclass(frozen=True)
class Build:
    """What is built. ``wheels`` is a folder that stands in for the package indexes; ``options`` go to docker build."""

    kind: str
    torch: str
    stage: str = "plain"
    base: str | None = None
    wheels: Path | None = None
    options: tuple[str, ...] = ()
    name: str = "ltxtrain"

    @property
    def tag(self) -> str:
        return f"{self.name}:{self.kind}" if self.stage == "plain" else f"{self.name}:{self.kind}-{self.stage}"


def main() -> None:
    arguments, options = read_arguments()
    torches = TORCH_OF_KIND[arguments.kind]
    torch = arguments.torch or torches[0]
    if torch not in torches:
        sys.exit(f"error: torch {torch} is not for {arguments.kind}\nhint: TORCH is one of {', '.join(torches)}")
    if arguments.stage == "sage" and arguments.kind != "cuda":
        sys.exit("error: the stage sage is only for NVIDIA\nhint: make image-cuda STAGE=sage")
    build = Build(arguments.kind, torch, arguments.stage, arguments.base, arguments.wheels, tuple(options))
    if shutil.which("docker") is None:
        sys.exit("error: there is no docker\nhint: install Docker 23 or later with buildx, or add it to PATH")
    if build.wheels and not any(build.wheels.glob("*.whl")):
        sys.exit(f"error: {build.wheels} holds no wheels\nhint: scripts/image/wheels.sh {build.wheels} {torch}")
    done = subprocess.run(build_command(build), cwd=ROOT, env=environment(), check=False)
    if done.returncode:
        sys.exit(f"error: the image {build.tag} could not be built\nhint: the lines above say which step failed")
    if not writes_elsewhere(build):
        print(f"{build.tag} is ready: {image_size(build.tag) / 1e9:.2f} GB")


def read_arguments() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description="Build an image. Words that are not known here go to docker build.", allow_abbrev=False
    )
    parser.add_argument("kind", choices=TORCH_OF_KIND)
    parser.add_argument(
        "--stage", choices=STAGES, default="plain", help="plain, with sshd for clouds, or with SageAttention"
    )
    parser.add_argument("--torch", help="build of torch: cu129, cu126 or cu130 for cuda")
    parser.add_argument("--base", help="base image instead of the pinned one: NAME:TAG@sha256:...")
    parser.add_argument(
        "--wheels",
        type=lambda word: Path(word).absolute(),
        help="take packages from this folder instead of the network",
    )
    return parser.parse_known_args()


def build_command(build: Build) -> list[str]:
    """The ``docker buildx build`` line. An argument that is not given keeps the Dockerfile's default."""
    values = {"TORCH": build.torch, "TORCH_VERSION": torch_version(build.torch), **labels()}
    if build.base:
        values["BASE_IMAGE"] = build.base
    command = ["docker", "buildx", "build", "--file", f"Dockerfile.{build.kind}", "--tag", build.tag]
    if not writes_elsewhere(build):
        command += ["--load"]
    if build.stage != "plain":
        command += ["--target", build.stage]
    for name, value in values.items():
        command += ["--build-arg", f"{name}={value}"]
    if build.wheels:
        command += ["--build-context", f"wheels={build.wheels}"]
    if network := os.environ.get("BUILD_NETWORK"):
        command += [f"--network={network}"]
    return [*command, *build.options, "."]


def writes_elsewhere(build: Build) -> bool:
    """Whether the image goes to a file or a registry (``--output``, ``--push``) and not to the engine."""
    return any(option.split("=")[0] in ("--output", "-o", "--push") for option in build.options)


def environment() -> dict[str, str]:
    """The builder puts this time into what it makes, so that two builds of one commit are the same bytes."""
    return {**os.environ, "SOURCE_DATE_EPOCH": str(commit_time())}


def labels() -> dict[str, str]:
    revision = git("rev-parse", "HEAD")
    changed = git(
        "status", "--porcelain", "--", "ltxtrain", "presets", "entrypoint", "requirements", "scripts", "Dockerfile.*"
    )
    return {
        "VERSION": version(),
        "REVISION": f"{revision}+changes" if revision and changed else revision or "unknown",
        "CREATED": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(commit_time())) if revision else "unknown",
        "LOCK_SHA256": hashlib.sha256((ROOT / "requirements/lock.txt").read_bytes()).hexdigest(),
    }


def version() -> str:
    found = re.search(r'^__version__ = "(.+)"$', (ROOT / "ltxtrain/__init__.py").read_text(), flags=re.MULTILINE)
    return found.group(1) if found else "unknown"


def torch_version(torch: str) -> str:
    text = (ROOT / f"requirements/torch-{torch}.txt").read_text()
    found = re.search(r"^torch==([^\s;\\]+)", text, flags=re.MULTILINE)
    if not found:
        return "unknown"
    # The package index has one build of each release, named without its CUDA; torch itself says it.
    return found.group(1) if "+" in found.group(1) else f"{found.group(1)}+{torch}"


def commit_time() -> int:
    seconds = git("log", "-1", "--format=%ct")
    return int(seconds) if seconds else 0


def git(*words: str) -> str:
    """What git says; nothing where there is no git, or no repository."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def image_size(tag: str) -> int:
    command = ["docker", "image", "inspect", "--format", "{{.Size}}", tag]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    main()
