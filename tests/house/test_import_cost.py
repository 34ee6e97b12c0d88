"""What the quick commands import. Read from Python's own import log of the real command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "diffusers", "transformers", "peft", "accelerate", "pydantic_settings"}
TORCH = HEAVY - {"pydantic_settings"}
TABLES = {"datasets", "pyarrow", "pandas", "cv2", "scenedetect"}  # for data sets that ask for them


def imported_by(cwd: Path, *arguments: str) -> set[str]:
    """The top-level packages that ``ltxtrain ARGUMENTS`` imports; the command must succeed."""
    command = [sys.executable, "-X", "importtime", "-m", "ltxtrain", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stderr
    log = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rsplit("|", 1)[1].strip().split(".")[0] for line in log[1:]}


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]], ids=" ".join)
def test_help_imports_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    packages = imported_by(tmp_path, *arguments)
    assert "ltxtrain" in packages
    assert packages & (HEAVY | TABLES) == set()


def test_validate_imports_no_torch(tmp_path: Path) -> None:
    packages = imported_by(tmp_path, "validate", "--preset", "smoke")
    assert "pydantic" in packages
    assert packages & TORCH == set()


def test_plan_imports_no_torch(tmp_path: Path, clip: Path) -> None:
    packages = imported_by(tmp_path, "plan", "--preset", "smoke", "--data", str(clip.parent))
    assert "pydantic" in packages  # clips are opened by children: what decodes is imported there
    assert packages & (TORCH | TABLES) == set()


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A real clip of one second with its caption."""
    import av
    import numpy as np

    path = tmp_path / "clips" / "ball.mp4"
    path.parent.mkdir()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "30"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for shade in np.linspace(20, 220, 25).astype(np.uint8):
            frame = av.VideoFrame.from_ndarray(np.full((96, 128, 3), shade, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    path.with_suffix(".txt").write_text("a grey field that brightens\n")
    return path
