"""``ltxtrain sample``: a prompt, rendered with an adapter."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ltxtrain.cli.options import Configs, Context, Presets, SetAside, read_config

Prompt = Annotated[str, typer.Argument(metavar="PROMPT", help="What to render.")]
Adapter = Annotated[
    Path | None,
    typer.Option("--adapter", metavar="FILE", help="An exported LoRA in diffusers' layout, or a run's folder."),
]
To = Annotated[Path, typer.Option("--to", metavar="DIR", help="The folder for the video and its poster.")]
Name = Annotated[str, typer.Option("--name", metavar="NAME", help="The video's file name, without .mp4.")]


def sample(
    ctx: Context,
    prompt: Prompt,
    adapter: Adapter = None,
    to: To = Path("samples"),
    name: Name = "sample",
    preset: Presets = None,
    config: Configs = None,
    set_aside_unbuilt: SetAside = False,
) -> None:
    """Render PROMPT with an adapter, at the validation settings (--validation-resolution, --validation-seed, ...).

    With a run's folder as the adapter, its own configuration (base model, precision, sizes) is where this one begins.
    A video that is there already is kept: the new one gets the next free number.
    """
    from ltxtrain.cli.surroundings import look_around, tell_offload
    from ltxtrain.errors import ModelError
    from ltxtrain.facts.machine import probe_machine
    from ltxtrain.learn.signals import StopFlag, watch_signals
    from ltxtrain.listeners.heartbeat import heartbeat_listener
    from ltxtrain.plan.folder import RunFolder
    from ltxtrain.plan.places import check_offload
    from ltxtrain.plan.prompts import validation_videos
    from ltxtrain.plan.support import check_support

    files = list(config or ())
    if adapter is not None and adapter.is_dir():
        run = RunFolder(adapter)
        files[:0] = [run.config_toml] if run.config_toml.exists() else []
        adapter = run.export / "pytorch_lora_weights.safetensors"
    loaded = read_config(ctx, preset, files, set_aside_unbuilt)
    if adapter is not None and not adapter.is_file():
        raise ModelError(f"there is no adapter {adapter}", hint="name an exported file, or a run's folder")
    asked = {"validation_prompt": prompt, "user_prompt_library": None, "validation_disable": False}
    section = loaded.config.validation.model_copy(update=asked)
    videos = validation_videos(section, loaded.config.model.seed)
    videos = tuple(replace(video, name=_free(to, video.name.replace("validation", name, 1))) for video in videos)
    with watch_signals(stop := StopFlag()), heartbeat_listener() as heartbeat:
        look_around()
        if loaded.config.memory.memory_budget_gb is not None:
            print(
                "note: memory_budget_gb chooses nothing here; what it chose for a run stays (--adapter FOLDER)",
                file=sys.stderr,
            )
        machine = probe_machine()
        check_support(loaded.config, machine, training=False)
        check_offload(loaded.config.memory, loaded.sources)
        tell_offload(loaded.config.memory, machine.device)
        print("loading torch and diffusers ...", file=sys.stderr)
        from ltxtrain.cli.drive import drain
        from ltxtrain.listeners.console import console_listener
        from ltxtrain.sample import iter_sample

        with console_listener() as console:
            written = drain(iter_sample(loaded.config, videos, adapter, to, stop), [heartbeat, console])
    for path in written:
        print(path)


def _free(folder: Path, name: str) -> str:
    """``name``, or the first of ``name-2``, ``name-3``, ... for which there is no video yet."""
    number = 1
    while (folder / f"{name if number == 1 else f'{name}-{number}'}.mp4").exists():
        number += 1
    return name if number == 1 else f"{name}-{number}"
