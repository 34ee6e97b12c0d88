"""The program itself, as a user starts it: one command from clips to LoRA, killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

OUTPUTS = ("pytorch_lora_weights.safetensors", "pytorch_lora_weights_bf16.safetensors", "smoke_comfyui.safetensors")
PATIENCE_S = 180


class Program:
    """``ltxtrain train --preset smoke`` with its own output and a cache, as a real process."""

    def __init__(self, folder: Path, cache: Path, *options: str) -> None:
        self.run_dir = folder / "smoke"
        self.cache = cache
        self.words = [sys.executable, "-m", "ltxtrain", "train", "--preset", "smoke", "--made-clips", "12"]
        self.words += ["--output", str(folder), "--cache", str(cache), *options]

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(self.words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)

    def finish(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.words, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    def stop_when(self, ready: Callable[[], bool], number: int) -> tuple[int, str]:
        process = self.start()
        deadline = time.monotonic() + PATIENCE_S
        while not ready():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        _, told = process.communicate(timeout=PATIENCE_S)
        return process.returncode, told

    def cached_latents(self) -> int:
        return len(list((self.cache / "latents").glob("*/*.safetensors")))

    def has_checkpoint(self, step: int) -> bool:
        return (self.run_dir / "checkpoints" / f"step-{step:08d}").is_dir()

    def exported(self) -> list[bytes]:
        return [(self.run_dir / "export" / name).read_bytes() for name in OUTPUTS]


def test_killed_in_caching_and_in_training_it_ends_with_the_same_files(tmp_path: Path) -> None:
    undisturbed = Program(tmp_path / "undisturbed", tmp_path / "cache-1")
    done = undisturbed.finish()
    assert done.returncode == 0, done.stderr
    named = [Path(line.split(": ", 1)[1].strip()) for line in done.stdout.splitlines()]
    assert [path.suffix for path in named] == [".safetensors", ".safetensors", ".mp4", ".html"]
    assert all(path.is_file() for path in named)
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr

    for expected in ("sample.mp4", "sample-2.mp4"):  # the run's folder says which base model and which sizes
        words = ["sample", "a red square", "--adapter", str(undisturbed.run_dir), "--to", str(tmp_path / "samples")]
        rendered = subprocess.run([*undisturbed.words[:3], *words], capture_output=True, text=True, check=False)
        assert rendered.returncode == 0, rendered.stderr
        assert Path(rendered.stdout.strip()) == tmp_path / "samples" / expected

    killed = Program(tmp_path / "killed", tmp_path / "cache-2")
    killed.stop_when(lambda: killed.cached_latents() >= 2, signal.SIGKILL)
    assert not (killed.run_dir / "export").exists()
    killed.stop_when(lambda: killed.has_checkpoint(10), signal.SIGKILL)
    assert not killed.has_checkpoint(30) and not (killed.run_dir / "export").exists()
    end = killed.finish()
    assert end.returncode == 0, end.stderr
    assert "going on from step" in end.stderr and "12 of them there already" in end.stderr
    assert killed.exported() == undisturbed.exported()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_leaves(tmp_path: Path, number: int, code: int) -> None:
    program = Program(tmp_path / "out", tmp_path / "cache", "--max-train-steps", "4000", "--checkpoint-step-interval=0")
    metrics = program.run_dir / "metrics.jsonl"
    left, told = program.stop_when(lambda: metrics.exists() and metrics.read_text().count("\n") > 3, number)
    assert left == code
    assert "is saved" in told and "start the same command again" in told and "Traceback" not in told
    saved = [path.name for path in (program.run_dir / "checkpoints").iterdir()]
    assert len(saved) == 1 and saved[0].startswith("step-")


def test_a_signal_in_caching_leaves_with_what_is_encoded(tmp_path: Path) -> None:
    program = Program(tmp_path / "out", tmp_path / "cache")
    left, told = program.stop_when(lambda: program.cached_latents() >= 1, signal.SIGTERM)
    assert left == 143, told
    assert "start the same command again" in told and "Traceback" not in told


def test_a_place_that_cannot_be_written_is_told_before_any_work(tmp_path: Path) -> None:
    blocked = tmp_path / "a-file"
    blocked.write_text("")
    done = Program(blocked / "below", tmp_path / "cache").finish()
    assert done.returncode == 4, done.stderr
    assert "nothing can be written" in done.stderr and "--output" in done.stderr and "defect" not in done.stderr
    assert "loading torch" not in done.stderr
