"""``ltxtrain plan``: what a run would do, before it costs anything."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ltxtrain.cli.options import AsJson, Configs, Context, Presets, SetAside, read_config

if TYPE_CHECKING:
    from ltxtrain.config import LoadedConfig, TrainConfig
    from ltxtrain.plan.records import Plan


def plan(
    ctx: Context,
    preset: Presets = None,
    config: Configs = None,
    set_aside_unbuilt: SetAside = False,
    as_json: AsJson = False,
) -> None:
    """Show what train would do with the same options: clips, buckets, steps, memory and disk.

    Nothing is trained or downloaded, and the run's folder is not touched.
    """
    made = plan_of(read_config(ctx, preset, config, set_aside_unbuilt))
    if as_json:
        json.dump(made.to_json(), sys.stdout, indent=1, ensure_ascii=False)
        print()
        return
    from ltxtrain.plan.text import render_plan

    print(render_plan(made), end="")


def plan_of(loaded: LoadedConfig) -> Plan:
    """The plan of a configuration. Clips that the run makes itself are made first, into the cache, if not there yet."""
    from ltxtrain.cli.opening import OpeningTold
    from ltxtrain.plan.make import make_plan

    with OpeningTold() as told:
        return make_plan(loaded, data_dir=made_clips_folder(loaded.config, loaded.sources), progress=told)


def made_clips_folder(config: TrainConfig, sources: Mapping[str, str]) -> Path | None:
    """The folder of the clips that are made because no data is named; None when data is named, or none asked for."""
    data = config.data
    if not data.made_clips or data.instance_data_dir or data.datasets or data.data_backend_config:
        return None
    from ltxtrain.data.made import make_clips
    from ltxtrain.plan.places import check_places

    check_places(config.cache.cache_dir, None, sources)
    return make_clips(config.cache.cache_dir / "clips", data.made_clips)
