"""``python -m bench``: measure and print one table. ``--only`` takes one part, ``--save`` keeps it in bench/results."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import tempfile
from pathlib import Path

from bench import caching, decoding, help_time, job, planning, train_job
from bench.process import watch

RESULTS = Path(__file__).parent / "results"
PARTS = {
    "help": help_time.measure,
    "train": train_job.measure,
    "cache": caching.measure,
    "decoding": decoding.measure,
    "planning": planning.measure,
}
PACKAGES = ("torch", "diffusers", "transformers", "peft", "accelerate", "av")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", choices=list(PARTS), help="measure this part alone")
    parser.add_argument(
        "--vae", choices=job.VAES, default=job.VAES[0], help="whose VAE training's rows use, at a quarter of its width"
    )
    parser.add_argument("--save", action="store_true", help="write the table to bench/results")
    arguments = parser.parse_args()
    wanted = [arguments.only] if arguments.only else list(PARTS)
    rows = []
    with tempfile.TemporaryDirectory(prefix="ltxtrain-bench-") as name:
        folder = Path(name)
        if set(wanted) - {"help", "planning", "decoding"}:
            print(watch(["-m", "bench.job", ".", arguments.vae], folder).output, end="", flush=True)
        for part in wanted:
            rows += PARTS[part](folder)
    table = text_of(rows, arguments.vae)
    print(table)
    if arguments.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"cpu-vae-{arguments.vae}.md").write_text(table)


def text_of(rows: list[tuple[str, str, str]], vae: str) -> str:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    lines = [
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, {versions}; "
        f"one thread except where two are named. VAEs have a quarter of their width and all of their depth; training "
        f"runs with the VAE of {vae}. The aims were set for the one of 0.9.1. The encoder of 0.9.5, which the default "
        "model has, takes longer, so caching is measured with both, beside each encoder alone.",
        "",
        "| what | measured | aim |",
        "|---|---|---|",
        *(f"| {what} | {measured} | {aim} |" for what, measured, aim in rows),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
