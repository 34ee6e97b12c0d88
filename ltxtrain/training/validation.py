"""What is measured and rendered in between: the loss on clips that are held out, and validation videos.

Neither changes a weight or a random state of training.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import torch

from ltxtrain.data.frames import write_video
from ltxtrain.events import (
    EVALUATION,
    EVALUATIONS,
    TRAINING,
    VALIDATION,
    Event,
    StageDone,
    StageProgress,
    StageStarted,
    VideoRendered,
)
from ltxtrain.files import write_atomically
from ltxtrain.learn.batch import Clean, Drawn
from ltxtrain.learn.checkpoint import checkpoint_name
from ltxtrain.learn.device import DTYPES, memory_advice
from ltxtrain.learn.evaluation import Measuring, evaluate, inference_sigmas, sets_due
from ltxtrain.learn.memory import release_memory
from ltxtrain.learn.optimizers import evaluating
from ltxtrain.learn.shortage import needs
from ltxtrain.learn.signals import StopFlag
from ltxtrain.learn.videos import holds, index_of
from ltxtrain.model.assemble import Place, assemble_vae
from ltxtrain.model.attention import set_attention
from ltxtrain.model.folder import load_scheduler
from ltxtrain.model.offload import taking_turns
from ltxtrain.model.render import RenderSettings, make_render_pipeline, render_video
from ltxtrain.model.text import PromptEmbedding
from ltxtrain.plan.prompts import ValidationVideo, validation_due
from ltxtrain.training.feed import made_ready
from ltxtrain.training.memory import is_news, measured, recorded
from ltxtrain.training.run import Run
from ltxtrain.training.step import compare
from ltxtrain.units import counted

Wanted = list[tuple[ValidationVideo, RenderSettings]]


def is_looked_at(run: Run, step: int) -> bool:
    """Whether anything is measured or rendered after that step."""
    return _renders(run, step) or bool(sets_due(run.plan, run.order, step))


def measure_held_out(run: Run, step: int, stop: StopFlag) -> Generator[Event, None, None]:
    """Measure the data sets that are held out, if that is due."""

    def losses(clean: Clean, drawn: Drawn) -> torch.Tensor:
        run.transformer.eval()
        with memory_advice("evaluating", needs(run.plan, EVALUATION, run.device)):
            loss_B = compare(run, made_ready(run, clean, drawn))
        run.transformer.train()
        return loss_B

    def sigmas_of(tokens: int) -> list[float]:
        count = run.plan.config.validation.eval_timesteps
        return inference_sigmas(load_scheduler(run.model), run.scheduler, count, tokens)

    if sets := sets_due(run.plan, run.order, step):
        measuring = Measuring(run.prepared, sigmas_of, losses, run.folder.root / EVALUATIONS)
        yield from _phase(run, EVALUATION, evaluate(measuring, run.plan, sets, step, stop))


def validate(run: Run, step: int, stop: StopFlag, *, again: bool) -> Generator[Event, None, None]:
    """Render the validation videos of ``step`` if they are due.

    index.json is written last and says what was rendered, so what it lists is complete; with ``again`` it is rendered
    even so. Leaves early, without it, when ``stop`` is set.
    """
    if not _renders(run, step):
        return
    config = run.plan.config
    rate, cache = config.data.framerate, config.cache
    wanted = [(video, RenderSettings.of(video, config.validation, rate, cache)) for video in run.plan.videos]
    complete = run.folder.samples / checkpoint_name(step) / "index.json"
    if again or not holds(complete, index_of(wanted)):
        yield from _phase(run, VALIDATION, _render(run, wanted, step, stop))


def _renders(run: Run, step: int) -> bool:
    return bool(run.plan.videos) and validation_due(run.plan.config.validation, step, run.plan.steps)


def _render(run: Run, wanted: Wanted, step: int, stop: StopFlag) -> Generator[Event, None, None]:
    config, folder = run.plan.config, run.folder.samples / checkpoint_name(step)
    yield StageStarted(VALIDATION, len(wanted), 0, "videos")
    started = time.perf_counter()
    prompts = {video.prompt: _prompt(run, video.prompt) for video, _ in wanted}
    negative = _prompt(run, config.validation.validation_negative_prompt)
    run.prepared.release()
    advice = needs(run.plan, VALIDATION, run.device)
    with memory_advice("placing the VAE", advice):
        place = Place(run.device, DTYPES[config.precision.vae_dtype])
        vae, vae_offload = assemble_vae(run.model, config.memory, place, "decoder")
    pipeline = make_render_pipeline(run.transformer, vae, load_scheduler(run.model))
    done = 0
    for video, settings in wanted:
        began = time.perf_counter()
        doing = f"rendering {video.width}x{video.height}@{video.frames}"
        with memory_advice(doing, advice), _rendering(run), taking_turns(run.offload, vae_offload):
            frames_FHWC = render_video(pipeline, prompts[video.prompt], negative, settings, lambda: stop.requested)
        if frames_FHWC is None:
            break
        done += 1
        path = folder / f"{video.name}.mp4"
        write_video(path, frames_FHWC, config.data.framerate)
        shown = (str(file.relative_to(run.folder.root)) for file in (path, path.with_suffix(".png")))
        yield StageProgress(VALIDATION, done, video.name)
        yield VideoRendered(step, video.name, video.prompt, *shown, time.perf_counter() - began)
    if done == len(wanted):
        write_atomically(folder / "index.json", index_of(wanted))
    del vae, pipeline
    release_memory(run.device)
    yield StageDone(VALIDATION, time.perf_counter() - started, f"{counted(done, 'video')} of step {step}")


@contextmanager
def _rendering(run: Run) -> Iterator[None]:
    """Inside, the transformer attends as it is asked to without gradients."""
    set_attention(run.transformer, run.plan.config.speed, training=False)
    try:
        yield
    finally:
        set_attention(run.transformer, run.plan.config.speed, training=True)


def _phase(run: Run, name: str, events: Generator[Event, None, None]) -> Generator[Event, None, None]:
    """``events`` of a phase in between, of the weights that the optimiser stands for, and what the phase took when that
    is more than it ever did."""
    before, anything = run.meter.known(name), False
    run.meter.enter(name)
    with evaluating(run.optimizer):
        for event in events:
            anything = True
            yield event
    now = run.meter.peak(name)
    run.meter.enter(TRAINING)
    if anything and is_news(before, now):
        yield from recorded(run.folder, [measured(run.plan, name, run.meter)])


def _prompt(run: Run, text: str) -> PromptEmbedding:
    tensors = run.prepared.prompt(text)
    return PromptEmbedding(tensors["embeds"].to(run.dtype), tensors["mask"], 0)
