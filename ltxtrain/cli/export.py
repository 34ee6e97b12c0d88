"""``ltxtrain export``: the adapter of a run as files for diffusers and ComfyUI."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

RunDir = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The run's folder, such as output/bf16.")]
Dtype = Annotated[
    Literal["fp32", "bf16", "fp16"],
    typer.Option("--dtype", help="The number format of the second pair of files; the first pair is float32."),
]
FromCheckpoint = Annotated[
    Path | None, typer.Option("--checkpoint", metavar="DIR", help="Export this checkpoint instead of the newest one.")
]


def export(run_dir: RunDir, dtype: Dtype = "bf16", checkpoint: FromCheckpoint = None) -> None:
    """Write a run's adapter into RUN_DIR/export and print the files' names."""
    from ltxtrain.cli.drive import drain
    from ltxtrain.errors import CheckpointError
    from ltxtrain.events import Exported, Notice

    if not run_dir.is_dir():
        raise CheckpointError(f"there is no folder {run_dir}", hint="name a run's folder, such as output/bf16")
    from ltxtrain.export import iter_export

    def tell(event: object) -> None:
        if isinstance(event, Exported):
            print(event.path)
        elif isinstance(event, Notice):
            print(f"{event.level}: {event.message}", file=sys.stderr)

    drain(iter_export(run_dir, dtype=dtype, checkpoint=checkpoint), [tell])
