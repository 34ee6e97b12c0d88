"""A full disk is told with its place and the room that is needed, whichever library hits it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests import warm

SHORT = "Lightricks/LTX-Video-0.9.5"
ENTRY = """
import sys; from pathlib import Path; import torch
from ltxtrain.data.cache import write_entry
from ltxtrain.data.store import entry_path
from ltxtrain.errors import MachineError
try:
    write_entry(entry_path(Path(sys.argv[1]), "latents", "ab" * 32), "ab" * 32, {"latents": torch.ones(2_000_000)})
except MachineError as error:
    print(error.message, error.hint, sep="\\n")
"""
EXPORT = """
import sys; from pathlib import Path; import torch
from ltxtrain import export
from ltxtrain.errors import MachineError
try:
    export._write(Path(sys.argv[1], "lora.safetensors"), {"a": torch.ones(2_000_000)}, {}, "diffusers fp32")
except MachineError as error:
    print(error.message, error.hint, sep="\\n")
"""
DOWNLOAD = """
import errno, sys; from pathlib import Path
from ltxtrain.errors import MachineError
from ltxtrain.model import folder
def full(*words, **more):
    raise {error}
folder.snapshot_download = full
try:
    folder._download("key", "Lightricks/LTX-Video-0.9.5", None, [])
except MachineError as error:
    print(error.message, error.hint, sep="\\n")
"""


def on_small_disk(folder: Path, size: str, code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A process with mounts of its own, which nobody else sees."""
    folder.mkdir()
    if os.geteuid() or subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs root and a mount namespace of its own")
    return warm.run(warm.own_mounts(f"mount -t tmpfs -o size={size} tmpfs {folder}") + code, *words)


@pytest.mark.parametrize("size", ["1m", "2m", "4m"])
def test_a_cache_too_small_for_the_tiny_model(tmp_path: Path, size: str) -> None:
    places = ["--cache", str(tmp_path / "cache"), "--output", str(tmp_path / "out")]
    done = on_small_disk(tmp_path / "cache", size, warm.PROGRAM, "train", "--preset", "smoke", *places)
    assert done.returncode == 4, done.stderr
    assert f"error: there is no room left at {tmp_path}/cache" in done.stderr and "defect" not in done.stderr
    assert "the tiny model needs about 10.0 MiB" in done.stderr and "hint: make room there" in done.stderr


def test_an_output_too_small_for_the_exported_files(tmp_path: Path) -> None:
    done = on_small_disk(tmp_path / "out", "1m", EXPORT, str(tmp_path / "out"))
    problem, hint = done.stdout.splitlines()
    assert problem.startswith(f"there is no room left at {tmp_path}/out (No space left on device)"), done.stderr
    assert "lora.safetensors needs about 7.6 MiB" in problem and hint.startswith("make room there")


def test_a_cache_too_small_for_an_entry(tmp_path: Path) -> None:
    done = on_small_disk(tmp_path / "cache", "1m", ENTRY, str(tmp_path / "cache"))
    problem, hint = done.stdout.splitlines()
    assert problem.startswith(f"there is no room left at {tmp_path}/cache (No space left on device)")
    assert "about 7.6 MiB" in problem and hint.startswith("make room there")


@pytest.mark.parametrize(
    "error", ['OSError(errno.ENOSPC, "No space left on device")', 'RuntimeError("I/O error: (os error 28)")']
)
def test_a_download_that_fills_the_disk_is_no_matter_of_the_network(tmp_path: Path, error: str) -> None:
    done = warm.run(DOWNLOAD.format(error=error), env=os.environ | {"HF_HOME": str(tmp_path / "home")})
    assert done.returncode == 0, done.stderr
    problem, hint = done.stdout.splitlines()
    assert f"no room left at {tmp_path}/home/hub for {SHORT} (it needs about" in problem
    assert "HF_HOME" in hint
