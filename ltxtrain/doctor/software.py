"""The operating system, Python, the packages, and the image that all of them come in."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ltxtrain.doctor.findings import Finding, fault, ok, skipped, warning
from ltxtrain.facts.image import image_facts

OLDEST_PYTHON, FIRST_TOO_NEW_PYTHON = (3, 11), (3, 14)
OLDEST_GLIBC = (2, 28)  # torch's wheels are built for it
PROCESSORS = ("x86_64", "aarch64", "arm64", "amd64")


@dataclass(frozen=True)
class Package:
    """``name`` as it is installed, ``module`` as it is imported, ``oldest`` as pyproject.toml has it."""

    name: str
    module: str
    oldest: str


# A copy of pyproject's list, since an image holds no metadata of ltxtrain; a test holds the two together.
PACKAGES = (
    Package("accelerate", "accelerate", "1.12"),
    Package("av", "av", "16"),
    Package("bitsandbytes", "bitsandbytes", "0.48"),
    Package("datasets", "datasets", "5.0"),
    Package("diffusers", "diffusers", "0.40"),
    Package("httpx", "httpx", "0.28"),
    Package("huggingface-hub", "huggingface_hub", "1.32"),
    Package("numpy", "numpy", "2.0"),
    Package("opencv-python-headless", "cv2", "4.10"),
    Package("peft", "peft", "0.18"),
    Package("pillow", "PIL", "11"),
    Package("prodigyopt", "prodigyopt", "1.1"),
    Package("protobuf", "google.protobuf", "5"),
    Package("pyarrow", "pyarrow", "21"),
    Package("pydantic", "pydantic", "2.11"),
    Package("pydantic-settings", "pydantic_settings", "2.10"),
    Package("pytorch-optimizer", "pytorch_optimizer", "4.1"),
    Package("rich", "rich", "14"),
    Package("safetensors", "safetensors", "0.7"),
    Package("schedulefree", "schedulefree", "1.4"),
    Package("sentencepiece", "sentencepiece", "0.2"),
    Package("torch", "torch", "2.11"),
    Package("torch-optimi", "optimi", "0.3"),
    Package("torchao", "torchao", "0.15"),
    Package("transformers", "transformers", "5.0"),
    Package("typer", "typer", "0.19"),
)
# These import torch themselves, and so cannot be blamed while torch is broken.
ON_TORCH = (
    "accelerate",
    "bitsandbytes",
    "diffusers",
    "peft",
    "prodigyopt",
    "pytorch-optimizer",
    "schedulefree",
    "torch-optimi",
    "torchao",
    "transformers",
)


@dataclass(frozen=True)
class Installed:
    """What is there of a package. ``version`` is None where it does not tell one."""

    package: Package
    found: bool
    version: str | None


def check_system(system: str, machine: str, libc: tuple[str, str], release: str, cpu: str = "") -> Finding:
    """Linux with glibc on a 64-bit processor, or macOS on Apple silicon; values as ``platform`` gives them.

    ``cpu`` is the processor's own name: a Python for Intel runs translated on Apple's, and takes the machine for one.
    """
    says = f"{system} {release}, {machine}" + (f", {libc[0]} {libc[1]}" if libc[0] else "")
    if system == "Windows":
        return fault("system", "windows", says, "use WSL 2 with Ubuntu, or the container image in Docker Desktop")
    if system == "Darwin" and machine != "arm64" and "apple" in cpu.lower():
        fix = "remove .venv, then make setup PYTHON=... with a Python for arm64, such as /opt/homebrew/bin/python3.12"
        return fault("system", "python-for-intel", f"{says}, but the processor is {cpu}", fix)
    if system == "Darwin" and machine != "arm64":
        fix = "use a Mac with an M-series chip, or another computer: torch is no longer built for Intel Macs"
        return fault("system", "intel-mac", says, fix)
    if machine.lower() not in PROCESSORS:
        return fault("system", "processor-unknown", says, "use a 64-bit x86 or ARM computer: torch is built for these")
    if system == "Linux" and libc[0] != "glibc":
        return fault(
            "system", "no-glibc", f"{says}, not glibc", "use Debian, Ubuntu or another glibc system, not Alpine"
        )
    if system == "Linux" and _numbers(libc[1]) < OLDEST_GLIBC:
        fix = "use a newer system: Debian 10, Ubuntu 20.04 or RHEL 8 and later"
        return fault("system", "glibc-old", f"{says}; torch needs 2.28", fix)
    return ok("system", says)


def check_python(version: tuple[int, int, int]) -> Finding:
    says = ".".join(map(str, version))
    if OLDEST_PYTHON <= version[:2] < FIRST_TOO_NEW_PYTHON:
        return ok("python", says)
    fix = "make setup PYTHON=python3.12, after removing .venv"
    return fault("python", "python-unsupported", f"{says}; from 3.11 to 3.13 are supported", fix)


def installed_packages() -> tuple[Installed, ...]:
    """Nothing is imported: only looked for."""
    return tuple(_installed(package) for package in PACKAGES)


def _installed(package: Package) -> Installed:
    try:
        version = importlib.metadata.version(package.name)
    except importlib.metadata.PackageNotFoundError:
        version = None
    try:
        found = importlib.util.find_spec(package.module) is not None
    except (ImportError, ValueError):  # the package around a module is missing, or half of it
        found = False
    return Installed(package, found, version)


def check_packages(installed: Sequence[Installed], imports: Mapping[str, str], torch_works: bool) -> list[Finding]:
    """Missing, broken and old ones, each by its name. ``imports`` holds by module why it cannot be imported, or ''.

    Torch has a check of its own, but for its age.
    """
    findings = []
    for entry in installed:
        package = entry.package
        install = f'make setup, or: python -m pip install "{package.name}>={package.oldest}"'
        error = imports.get(package.module, "")
        if package.name == "torch":
            if entry.found and entry.version and _numbers(entry.version) < _numbers(package.oldest):
                says = f"torch {entry.version} is older than {package.oldest}"
                findings.append(warning("packages", "package-old", says, "make setup"))
        elif not entry.found:
            findings.append(fault("packages", "package-missing", f"{package.name} is not installed", install))
        elif error and (torch_works or package.name not in ON_TORCH):
            says = f"{package.name} cannot be imported: {error}"[:200]
            again = f'make setup, or: python -m pip install --force-reinstall "{package.name}>={package.oldest}"'
            findings.append(fault("packages", "package-broken", says, again))
        elif entry.version and _numbers(entry.version) < _numbers(package.oldest):
            says = f"{package.name} {entry.version} is older than {package.oldest}"
            findings.append(warning("packages", "package-old", says, install))
    return findings or [ok("packages", f"{len(installed)} in place")]


def _numbers(version: str) -> tuple[int, ...]:
    """``2.13.0+cu129`` -> ``(2, 13, 0)``: the numbers before any suffix."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found.group(0).split(".")) if found else ()


def tried_modules(installed: Sequence[Installed]) -> tuple[str, ...]:
    """The modules whose import is worth trying: those that are there."""
    return tuple(entry.package.module for entry in installed if entry.found and entry.package.name != "torch")


def read_image(env: Mapping[str, str]) -> dict[str, str] | None:
    """The facts that our images carry, or None outside of them; empty when the file cannot be read."""
    return image_facts({"LTX_IMAGE": env["LTX_IMAGE"]}).facts if env.get("LTX_IMAGE") else None


def check_image(facts: Mapping[str, str] | None, torch_version: str) -> list[Finding]:
    """Nothing outside of an image."""
    if facts is None:
        return []
    if not facts.get("kind"):
        return [warning("image", "image-unknown", "the image's facts cannot be read", "unset LTX_IMAGE")]
    says = f"{facts['kind']}, version {facts.get('version', 'unknown')}, commit {facts.get('revision', 'unknown')[:12]}"
    made_with = facts.get("torch", "")
    if made_with and torch_version and made_with != torch_version:
        differs = f"{says}; it was built with torch {made_with}, and {torch_version} is found"
        return [warning("image", "image-changed", differs, "leave PYTHONPATH and pip alone in it: start it afresh")]
    return [ok("image", says)]


def system_findings(
    installed: Sequence[Installed], imports: Mapping[str, str], torch_works: bool, cpu: str
) -> list[Finding]:
    """The checks of this file on this machine, but for the image."""
    version = (sys.version_info[0], sys.version_info[1], sys.version_info[2])
    system = check_system(platform.system(), platform.machine(), platform.libc_ver(), platform.release(), cpu)
    return [system, check_python(version), *check_packages(installed, imports, torch_works)]


def guarded(check: str, look: Callable[[], Finding | list[Finding]]) -> list[Finding]:
    """A check that the system, or a broken package, keeps from its work is told, and stops no other."""
    try:
        found = look()
    except (OSError, ValueError, ImportError) as error:
        first = (str(error).splitlines() or [""])[0]
        return [skipped(check, "check-failed", f"this check failed itself: {type(error).__name__}: {first}"[:200])]
    return found if isinstance(found, list) else [found]
