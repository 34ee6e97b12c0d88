"""Run ``ltxtrain train --preset smoke`` in a temporary folder, and check that every promised file is there."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

EXPECTED = (
    "run.json",
    "config.toml",
    "plan.json",
    "plan.txt",
    "dataset.jsonl",
    "metrics.jsonl",
    "checkpoints/step-*/MANIFEST.json",
    "samples/step-*/*.mp4",
    "samples/step-*/*.png",
    "export/pytorch_lora_weights.safetensors",
    "export/*_comfyui.safetensors",
    "report.html",
    "README.md",
)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ltxtrain-smoke-") as folder:
        started = time.monotonic()
        command = [sys.executable, "-m", "ltxtrain", "train", "--preset", "smoke"]
        done = subprocess.run(command, cwd=folder, check=False)
        if done.returncode:
            sys.exit(f"smoke: {' '.join(command[1:])} left with code {done.returncode}")
        run_folder = Path(folder, "output", "smoke")
        missing = [pattern for pattern in EXPECTED if not any(file.stat().st_size for file in run_folder.glob(pattern))]
        if missing:
            sys.exit(f"smoke: missing or empty: {', '.join(missing)}")
        print(f"smoke: all {len(EXPECTED)} kinds of file are there, {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()
