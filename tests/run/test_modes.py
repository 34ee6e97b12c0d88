"""Every file of a run has the mode that the umask gives: in a mounted folder, somebody else has to read them."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

MASK = 0o027  # not the usual one, which a fixed mode of 0644 would pass


@pytest.mark.slow
def test_files_and_folders_follow_the_umask(tmp_path: Path) -> None:
    words = ["train", "--preset", "smoke", "--made-clips", "2", "--max-train-steps", "2"]
    words += ["--output", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    command = [sys.executable, "-m", "ltxtrain", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, umask=MASK, check=False)
    assert done.returncode == 0, done.stderr
    made = [path for place in ("out", "cache") for path in (tmp_path / place).rglob("*")]
    wrong = {
        str(path.relative_to(tmp_path)): oct(mode)
        for path in made
        if (mode := stat.S_IMODE(path.stat().st_mode)) != (0o777 if path.is_dir() else 0o666) & ~MASK
    }
    assert wrong == {}
    kinds = {path.suffix for path in made if path.is_file()}
    assert {".safetensors", ".json", ".jsonl", ".toml", ".txt", ".mp4", ".png", ".html", ".md"} <= kinds
    assert {"export", "checkpoints", "samples", "latents", "prompts", "models", "clips"} <= {path.name for path in made}
