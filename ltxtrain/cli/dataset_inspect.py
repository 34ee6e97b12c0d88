"""``ltxtrain dataset inspect``: a page that shows every clip, what a run does with it, and what is odd about it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ltxtrain.cli.options import AsJson, Configs, Context, Presets, SetAside, read_config

Folder = Annotated[
    Path | None,
    typer.Argument(metavar="DIR", help="A folder of clips; without it, the configured data sets.", show_default=False),
]
Page = Annotated[Path, typer.Option("--page", metavar="FILE", help="Where the page is written.")]


def inspect(
    ctx: Context,
    folder: Folder = None,
    preset: Presets = None,
    config: Configs = None,
    set_aside_unbuilt: SetAside = False,
    as_json: AsJson = False,
) -> None:
    """Show each clip, and what a run with the same options does with it."""
    read_config(ctx, preset, config, set_aside_unbuilt)
