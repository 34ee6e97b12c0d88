"""The packages that a bare CUDA machine lacks, brought along as wheels.

Where there is a network: ``python -m bench.gpu_check_wheels gather FOLDER --python 3.12`` downloads the locked wheels.
On the machine, with any Python that has torch, transformers, peft, accelerate and Pillow:
``python3 bench/gpu_check_wheels.py install FOLDER VENV`` makes an environment of its own from them, which sees the
machine's packages as well, and ``VENV/bin/python -m bench.gpu_check`` runs. Installing needs pip alone.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
THERE = ("torch", "transformers", "peft", "accelerate", "pillow")
# What training on a CUDA device imports. Tables, faces and downloads of data sets are not checked there.
NEEDED = (
    "annotated-types",
    "av",
    "bitsandbytes",
    "diffusers",
    "prodigyopt",
    "pydantic",
    "pydantic-core",
    "pydantic-settings",
    "rich",
    "schedulefree",
    "sentencepiece",
    "torch-optimi",
    "torchao",
    "typer",
    "typing-extensions",
    "typing-inspection",
)
# Tags of wheels that glibc 2.28 and newer takes; pip wants each named.
NEWER = tuple(f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 26, 24, 17, 12, 5))
PLATFORMS = (*NEWER, "manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64")
FOR_OTHERS = re.compile(r"/lib\w+_(cuda|rocm|xpu)(\d+)\.so$")


def main() -> None:
    arguments = read_arguments()
    if arguments.what == "gather":
        gather(arguments.folder, arguments.python, arguments.cuda)
    else:
        install(arguments.folder, arguments.venv)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_check_wheels", description="Wheels for a bare machine.")
    ways = parser.add_subparsers(dest="what", required=True)
    down = ways.add_parser("gather", help="download the locked wheels that a bare machine lacks")
    down.add_argument("folder", type=Path)
    down.add_argument("--python", default="3.12", help="the machine's Python")
    down.add_argument(
        "--cuda", default="", help="keep libraries for this CUDA alone, such as 130 for 13.0: far smaller"
    )
    up = ways.add_parser("install", help="make an environment of the machine's packages and the wheels")
    up.add_argument("folder", type=Path)
    up.add_argument("venv", type=Path)
    return parser.parse_args()


def gather(folder: Path, python: str, cuda: str) -> None:
    """Download into ``folder``, each package alone: what they need is in the list, or on the machine."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = sorted(f"{name}=={importlib.metadata.version(name)}" for name in missing())
    options = ["--no-deps", "--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    words = [sys.executable, "-m", "pip", "download", "--quiet", *options, *platforms, "--dest", str(folder), *wanted]
    subprocess.run(words, check=True)
    if cuda:
        for wheel in folder.glob("bitsandbytes-*.whl"):
            slim(wheel, cuda)
    size = sum(path.stat().st_size for path in folder.glob("*.whl"))
    print(f"{len(wanted)} wheels in {folder}, {size / 2**20:.0f} MiB")


def missing() -> set[str]:
    """Names of distributions that training needs and that need not be there on a bare machine.

    Read from what is installed here, so it is run in the project's own environment: the versions are the locked ones.
    """
    return set(NEEDED) | (closure(NEEDED) - closure(THERE))


def closure(names: Iterable[str]) -> set[str]:
    """These distributions and all that they require, without extras, as far as they are installed here."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = plain(waiting.pop())
        if name in found:
            continue
        try:
            required = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # for another Python, or another system
            continue
        found.add(name)
        waiting += [word for line in required if "extra ==" not in line for word in re.findall(r"^[\w.-]+", line)]
    return found


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def slim(wheel: Path, cuda: str) -> None:
    """Leave out the libraries for other accelerators, and their lines in the wheel's record."""

    def kept(name: str) -> bool:
        found = FOR_OTHERS.search(name)
        return found is None or found.groups() == ("cuda", cuda)

    with zipfile.ZipFile(wheel) as whole:
        if not any(found and found.groups() == ("cuda", cuda) for found in map(FOR_OTHERS.search, whole.namelist())):
            sys.exit(f"error: {wheel.name} has no library for CUDA {cuda}\nhint: leave --cuda out")
        held = {item.filename: whole.read(item) for item in whole.infolist() if kept(item.filename)}
    smaller = wheel.with_suffix(".part")
    with zipfile.ZipFile(smaller, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in held.items():
            if name.endswith(".dist-info/RECORD"):
                lines = content.decode().splitlines(keepends=True)
                content = "".join(line for line in lines if kept(line.split(",")[0])).encode()
            archive.writestr(name, content)
    smaller.replace(wheel)


def install(folder: Path, home: Path) -> None:
    """An environment at ``home`` with the wheels and this checkout, on top of the packages of the running Python.

    Those are named in a path file: where the running Python is in an environment itself, one that is made from it
    would see the packages of the system instead.
    """
    venv.EnvBuilder(system_site_packages=True, with_pip=False, symlinks=True).create(home)
    python = home / "bin" / "python"
    words = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip())
    wheels = sorted(str(path) for path in folder.glob("*.whl"))
    options = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--upgrade", "--target", str(packages)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *wheels], check=True)
    beside = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (packages / "ltxtrain-gpu-check.pth").write_text("".join(f"{path}\n" for path in (ROOT, *beside)))
    print(f"{len(wheels)} wheels installed; run {python} -m bench.gpu_check")


if __name__ == "__main__":
    main()
