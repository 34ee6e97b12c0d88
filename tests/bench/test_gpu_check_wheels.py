"""Packages that a bare machine lacks: which they are, made smaller, and installed without a network."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bench import gpu_check_wheels
from bench.gpu_check_wheels import install, missing, slim

TAGS = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def make_wheel(folder: Path, name: str, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    about = f"{name}-1.0.dist-info"
    files = {
        **files,
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{about}/WHEEL": TAGS,
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{about}/RECORD"])
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in {**files, f"{about}/RECORD": record}.items():
            archive.writestr(path, text)
    return wheel


def test_what_torch_transformers_peft_and_accelerate_bring_is_not_brought_again() -> None:
    names = missing()
    assert {"av", "diffusers", "pydantic", "pydantic-core", "bitsandbytes", "typer"} <= names
    assert names.isdisjoint({"torch", "transformers", "peft", "accelerate", "numpy", "safetensors", "huggingface-hub"})


def test_libraries_for_other_accelerators_are_left_out(tmp_path: Path) -> None:
    files = {f"bitsandbytes/libbitsandbytes_{kind}.so": kind for kind in ("cpu", "cuda126", "cuda130", "rocm72")}
    wheel = make_wheel(tmp_path, "bitsandbytes", {**files, "bitsandbytes/__init__.py": ""})
    slim(wheel, "130")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        record = archive.read("bitsandbytes-1.0.dist-info/RECORD").decode()
    assert [name for name in names if name.endswith(".so")] == [
        "bitsandbytes/libbitsandbytes_cpu.so",
        "bitsandbytes/libbitsandbytes_cuda130.so",
    ]
    assert "cuda126" not in record and "cuda130" in record and "__init__.py" in record
    with pytest.raises(SystemExit, match="no library for CUDA 126"):
        slim(wheel, "126")


def test_an_environment_has_the_wheels_this_checkout_and_the_packages_around_it(tmp_path: Path) -> None:
    make_wheel(tmp_path / "wheels", "broughtalong", {"broughtalong.py": "HERE = __file__\n"})
    install(tmp_path / "wheels", tmp_path / "venv")
    script = (
        "import broughtalong, bench, pydantic; print(broughtalong.HERE, bench.__file__, pydantic.__file__, sep='\\n')"
    )
    done = subprocess.run(
        [str(tmp_path / "venv" / "bin" / "python"), "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"},
    )
    brought, bench, around = done.stdout.splitlines()
    assert Path(brought).is_relative_to(tmp_path / "venv")
    assert Path(bench).parent == Path(gpu_check_wheels.__file__).parent
    assert Path(around).is_relative_to(Path(sys.prefix))


def test_installing_needs_no_package_at_all() -> None:
    """It runs on a machine where nothing of the project is installed yet."""
    script = f"import sys; sys.argv = ['x', '--help']; exec(open({str(gpu_check_wheels.__file__)!r}).read())"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True)
    assert done.returncode in (0, 1) and "ModuleNotFoundError" not in done.stderr, done.stderr
