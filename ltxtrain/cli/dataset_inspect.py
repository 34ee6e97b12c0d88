"""``ltxtrain dataset inspect``: a page that shows every clip, what a run does with it, and what is odd about it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ltxtrain.cli.options import AsJson, Configs, Context, Presets, SetAside, read_config
from ltxtrain.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ltxtrain.config import Dataset, LoadedConfig
    from ltxtrain.prepare.inspect_records import Inspection

Folder = Annotated[
    Path | None,
    typer.Argument(metavar="DIR", help="A folder of clips; without it, the configured data sets.", show_default=False),
]
Page = Annotated[
    Path | None,
    typer.Option("--page", metavar="FILE", help="Where the page goes; else inspect.html in --output.", dir_okay=False),
]
Thumbnails = Annotated[
    int, typer.Option("--thumbnails", metavar="N", min=0, help="How many clips get pictures on the page.")
]
NoPictures = Annotated[bool, typer.Option("--no-pictures", help="Look at captions and facts alone; much faster.")]


def inspect(
    ctx: Context,
    folder: Folder = None,
    preset: Presets = None,
    config: Configs = None,
    set_aside_unbuilt: SetAside = False,
    page: Page = None,
    thumbnails: Thumbnails = 500,
    no_pictures: NoPictures = False,
    as_json: AsJson = False,
) -> int:
    """Show each clip on one page, and what a run with the same options does with it.

    The page holds pictures, the plan's verdict, how sizes and lengths are spread, and findings: captions that are
    missing, double, too short or too long, and clips that are black, stand still, have bars, or look alike. With --json
    everything goes to stdout, and a page is written only where --page names one. No file of a data set is changed. The
    exit code is 3 when no run could begin with these clips.
    """
    if folder is not None:  # outranks every data set that a file names, as the flag does
        ctx.obj = [*(ctx.obj or ()), f"--data={folder}"]
    loaded = read_config(ctx, preset, config, set_aside_unbuilt)
    from ltxtrain.cli.plan import made_clips_folder

    data_dir = made_clips_folder(loaded.config, loaded.sources)
    place = page or (None if as_json else loaded.config.checkpoint.output_dir / "inspect.html")
    written = {"--cache": loaded.config.cache.cache_dir} | ({"--page": place} if place else {})
    from ltxtrain.plan.places import keep_out

    keep_out(written, _datasets(loaded, data_dir))
    found = _inspected(loaded, data_dir, thumbnails if place else 0, not no_pictures)
    if as_json:
        from ltxtrain.prepare.inspect_json import to_json

        json.dump(to_json(found), sys.stdout, indent=1, ensure_ascii=True)
        print()
    if place is not None:
        from ltxtrain.files import write_atomically
        from ltxtrain.prepare.page import render_page

        write_atomically(place, render_page(found))
    return _tell(found, place)


def _datasets(loaded: LoadedConfig, data_dir: Path | None) -> Sequence[Dataset]:
    import os

    from ltxtrain.config import resolve_datasets
    from ltxtrain.facts.container import no_clips

    if data_dir is not None:
        return ()  # made by the program itself, in its cache
    data = loaded.config.data
    if not (data.instance_data_dir or data.datasets or data.data_backend_config) and (told := no_clips(os.environ)):
        raise told
    return resolve_datasets(data, loaded.config.cache, loaded.config.validation)


def _inspected(loaded: LoadedConfig, data_dir: Path | None, thumbnails: int, pictures: bool) -> Inspection:
    from ltxtrain.cli.drive import drain
    from ltxtrain.listeners.console import console_listener
    from ltxtrain.model.tokens import token_counter
    from ltxtrain.prepare.inspect import InspectRule, iter_inspect

    rule = InspectRule(
        loaded=loaded,
        data_dir=data_dir,
        pictures=pictures,
        thumbnails=thumbnails,
        count_tokens=token_counter(loaded.config.model, loaded.config.cache.cache_dir),
    )
    with console_listener() as console:
        return drain(iter_inspect(rule), [console])


def _tell(found: Inspection, place: Path | None) -> int:
    """A short summary on stderr, the page's path last."""
    from ltxtrain.prepare.inspect_text import summary

    for line in summary(found):
        print(line, file=sys.stderr)
    if place is not None:
        print(f"page: {place}", file=sys.stderr)
    if found.verdicts.problem:
        raise DataError(found.verdicts.problem, hint=found.verdicts.hint or None)
    return 0
