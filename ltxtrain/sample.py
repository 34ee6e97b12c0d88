"""Rendering one prompt with an exported adapter, through diffusers' own loading of it."""

from __future__ import annotations

import time
from collections.abc import Generator
from pathlib import Path

from ltxtrain.config import TrainConfig
from ltxtrain.data.frames import write_video
from ltxtrain.events import Event, Notice, StageDone, StageProgress, StageStarted
from ltxtrain.learn.device import DTYPES, check_dtype, find_device, memory_advice
from ltxtrain.learn.memory import release_memory
from ltxtrain.learn.signals import StopFlag
from ltxtrain.model.arithmetic import set_tf32
from ltxtrain.model.assemble import Place, assemble_pipeline, assemble_text_pipeline
from ltxtrain.model.folder import locate_model
from ltxtrain.model.offload import taking_turns
from ltxtrain.model.render import RenderSettings, render_video
from ltxtrain.model.text import encode_prompt
from ltxtrain.plan.prompts import ValidationVideo
from ltxtrain.units import counted


def iter_sample(
    config: TrainConfig, videos: tuple[ValidationVideo, ...], adapter: Path | None, folder: Path, stop: StopFlag
) -> Generator[Event, None, list[Path]]:
    """Render ``videos`` into ``folder`` with the validation settings of ``config``; returns the files.

    ``adapter`` is an exported file in diffusers' layout; None renders with the base model alone. The text encoder is
    gone before the transformer is loaded.
    """
    device = find_device(config.speed.torch_num_threads)
    dtype = check_dtype(device, config.precision.mixed_precision, config.precision.vae_dtype)
    set_tf32(disabled=config.precision.disable_tf32)  # before anything computes
    place = Place(device, dtype)
    model = locate_model(config.model, config.cache.cache_dir)
    with memory_advice("encoding the prompt", "free the GPU of other programs"):
        text, _ = assemble_text_pipeline(model, config.precision, config.memory, place)
        prompts = {video.prompt: encode_prompt(text, video.prompt) for video in videos}
        negative = encode_prompt(text, config.validation.validation_negative_prompt)
    del text
    release_memory(device)
    stop.check("nothing was rendered yet")
    with memory_advice("placing the transformer and the VAE", "free the GPU of other programs"):
        vae_dtype = DTYPES[config.precision.vae_dtype]
        pipeline, offloads = assemble_pipeline(model, config, place, adapter, vae_dtype)
    if adapter is not None:
        yield Notice(f"adapter {adapter}")
    yield StageStarted("rendering", len(videos), 0, "videos")
    started = time.perf_counter()
    written: list[Path] = []
    for video in videos:
        settings = RenderSettings.of(video, config.validation, config.data.framerate, config.cache)
        doing = f"rendering {video.width}x{video.height}@{video.frames}"
        with memory_advice(doing, "lower validation_resolution"), taking_turns(*offloads):
            frames_FHWC = render_video(pipeline, prompts[video.prompt], negative, settings, lambda: stop.requested)
        if frames_FHWC is None:
            raise stop.leave(f"{len(written)} of {len(videos)} videos are written")
        path = folder / f"{video.name}.mp4"
        write_video(path, frames_FHWC, config.data.framerate)
        written.append(path)
        yield StageProgress("rendering", len(written), video.name)
    yield StageDone("rendering", time.perf_counter() - started, counted(len(written), "video"))
    return written
