"""``ltxtrain dataset split``: long videos, cut into their scenes."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from ltxtrain.errors import ConfigError, DataError, Fault

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder with the videos; nothing is written to it.")]
To = Annotated[Path | None, typer.Option("--to", metavar="OUT", help="The folder for the scenes.")]
MinSeconds = Annotated[float, typer.Option("--min-seconds", metavar="S", help="Shorter scenes are not written.")]
Threshold = Annotated[
    float | None, typer.Option("--threshold", metavar="T", help="How large a change is a cut: 27 for content, else 3.")
]
Detector = Annotated[
    Literal["content", "adaptive"], typer.Option("--detector", help="adaptive bears fast movement of the camera.")
]
Captions = Annotated[
    Literal["none", "copy"], typer.Option("--captions", help="copy: a video's .txt beside each of its scenes.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List the scenes, and write nothing.")]


def split(
    folder: Folder,
    to: To = None,
    min_seconds: MinSeconds = 1.0,
    threshold: Threshold = None,
    detector: Detector = "content",
    captions: Captions = "none",
    dry_run: DryRun = False,
) -> None:
    """Find the cuts in the videos of DIR and write a clip for each scene to OUT, without sound.

    A video without a cut is copied. OUT/scenes.jsonl tells from where to where each clip comes. Run again, it goes on.
    """
    from ltxtrain.cli.drive import drain
    from ltxtrain.listeners.console import console_listener
    from ltxtrain.prepare.scenes import Asked, SplitRule, iter_split
    from ltxtrain.units import counted, plain

    if to is None and not dry_run:
        raise ConfigError([Fault("--to", "is missing")], hint="name the folder for the scenes, or list them: --dry-run")
    asked = Asked(folder, None if dry_run else to, SplitRule(detector, threshold, min_seconds), captions == "copy")
    with console_listener() as console:
        done = drain(iter_split(asked), [console])
    if dry_run:
        for scene in done.scenes:
            kept = "" if scene.file else "  too short"
            print(plain(f"{scene.source}  {scene.start_s:.3f}-{scene.end_s:.3f} s  {scene.frames} frames{kept}"))
    else:
        short = sum(not scene.file for scene in done.scenes)
        print(f"{counted(len(done.scenes), 'scene')}, {short} of them too short to be written", file=sys.stderr)
        print(to)
        print(f"next: ltxtrain dataset inspect {shlex.quote(str(to))}", file=sys.stderr)
    if done.failed:
        names = sorted({rejected.name for rejected in done.failed})
        raise DataError(
            plain(f"{counted(len(names), 'video')} could not be cut: {', '.join(names[:5])}"),
            hint="re-encode them, or take them out; the others are done",
        )
