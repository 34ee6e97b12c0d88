"""The program itself, as a user starts it: one command from clips to LoRA, killed and started again."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import warm

pytestmark = pytest.mark.slow

OUTPUTS = ("pytorch_lora_weights.safetensors", "pytorch_lora_weights_bf16.safetensors", "smoke_comfyui.safetensors")
PATIENCE_S = 180
MASK = 0o027  # not the usual one, which a fixed mode of 0644 would pass


class Program:
    """``ltxtrain train --preset smoke`` with its own output and a cache, as a real process: a fork of one that has
    imported torch, or one that is started afresh."""

    def __init__(self, folder: Path, cache: Path, *options: str) -> None:
        self.run_dir = folder / "smoke"
        self.cache = cache
        self.words = ["train", "--preset", "smoke", "--made-clips", "12"]
        self.words += ["--output", str(folder), "--cache", str(cache), *options]

    def finish(self) -> subprocess.CompletedProcess[str]:
        return warm.run(warm.PROGRAM, *self.words)

    def finish_afresh(self, umask: int = -1) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "ltxtrain", *self.words]
        return subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False, umask=umask)

    def stop_when(self, ready: Callable[[], bool], number: int) -> tuple[int, str]:
        process = warm.start(warm.PROGRAM, *self.words)
        deadline = time.monotonic() + PATIENCE_S
        while not ready():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        _, told = process.communicate()
        return process.returncode or 0, told

    def cached_latents(self) -> int:
        return len(list((self.cache / "latents").glob("*/*.safetensors")))

    def has_checkpoint(self, step: int) -> bool:
        return (self.run_dir / "checkpoints" / f"step-{step:08d}").is_dir()

    def exported(self) -> list[bytes]:
        return [(self.run_dir / "export" / name).read_bytes() for name in OUTPUTS]


@dataclass(frozen=True)
class Undisturbed:
    program: Program
    done: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """A run from its start to its end, started afresh as a user does. Nothing in its folders is ever changed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    program = Program(folder / "out", folder / "cache")
    return Undisturbed(program, program.finish_afresh(MASK))


def test_the_command_ends_with_its_files_which_it_names(undisturbed: Undisturbed) -> None:
    done = undisturbed.done
    assert done.returncode == 0, done.stderr
    named = [Path(line.split(": ", 1)[1].strip()) for line in done.stdout.splitlines()]
    assert [path.suffix for path in named] == [".safetensors", ".safetensors", ".mp4", ".html"]
    assert all(path.is_file() for path in named)
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr


def test_files_and_folders_follow_the_umask(undisturbed: Undisturbed) -> None:
    """In a mounted folder, somebody else has to read them."""
    assert undisturbed.done.returncode == 0, undisturbed.done.stderr
    folder = undisturbed.program.cache.parent
    made = [path for place in ("out", "cache") for path in (folder / place).rglob("*")]
    wrong = {
        str(path.relative_to(folder)): oct(mode)
        for path in made
        if (mode := stat.S_IMODE(path.stat().st_mode)) != (0o777 if path.is_dir() else 0o666) & ~MASK
    }
    assert wrong == {}
    kinds = {path.suffix for path in made if path.is_file()}
    assert {".safetensors", ".json", ".jsonl", ".toml", ".txt", ".mp4", ".png", ".html", ".md"} <= kinds
    assert {"export", "checkpoints", "samples", "latents", "prompts", "models", "clips"} <= {path.name for path in made}


def test_the_runs_folder_says_which_base_model_and_which_sizes_a_sample_has(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    for expected in ("sample.mp4", "sample-2.mp4"):
        adapter = undisturbed.program.run_dir
        rendered = warm.run(warm.PROGRAM, "sample", "a red square", "--adapter", adapter, "--to", tmp_path)
        assert rendered.returncode == 0, rendered.stderr
        assert Path(rendered.stdout.strip()) == tmp_path / expected


def test_killed_in_caching_and_in_training_it_ends_with_the_same_files(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    killed = Program(tmp_path / "killed", tmp_path / "cache")
    killed.stop_when(lambda: killed.cached_latents() >= 2, signal.SIGKILL)
    assert not (killed.run_dir / "export").exists()
    killed.stop_when(lambda: killed.has_checkpoint(10), signal.SIGKILL)
    assert not killed.has_checkpoint(30) and not (killed.run_dir / "export").exists()
    end = killed.finish()
    assert end.returncode == 0, end.stderr
    assert "going on from step" in end.stderr and "12 of them there already" in end.stderr
    assert killed.exported() == undisturbed.program.exported()


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
    done = Program(blocked / "below", tmp_path / "cache").finish_afresh()
    assert done.returncode == 4, done.stderr
    assert "nothing can be written" in done.stderr and "--output" in done.stderr and "defect" not in done.stderr
    assert "loading torch" not in done.stderr
