"""The training recipe. ``iter_train`` is the loop, read from top to bottom; the functions below it are its parts.

Shape legend: B batch, C latent channels, F latent frames, H W latent size, S tokens, L text tokens, D width.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import send_to_device

from ltxtrain.data.batches import Batch, BatchOrder
from ltxtrain.data.cache import EntryReader, Prepared
from ltxtrain.data.frames import write_video
from ltxtrain.errors import LtxtrainError
from ltxtrain.events import (
    CheckpointSaved,
    Event,
    Notice,
    RunFinished,
    StageDone,
    StageProgress,
    StageStarted,
    StepDone,
    VideoRendered,
)
from ltxtrain.facts.digests import sha256_of
from ltxtrain.files import write_atomically
from ltxtrain.learn.checkpoint import Checkpoint, checkpoint_name, prune_checkpoints, save_checkpoint
from ltxtrain.learn.device import DTYPES, check_dtype, find_device, memory_advice, peak_memory, release_memory
from ltxtrain.learn.draws import Place, dropout_seed
from ltxtrain.learn.metrics import append_step, truncate_metrics
from ltxtrain.learn.objective import add_noise, velocity_loss
from ltxtrain.learn.optimizer import (
    clip_gradients,
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
    set_learning_rate,
)
from ltxtrain.learn.resume import changed_settings, check_same_run, choose_checkpoint
from ltxtrain.learn.schedule import Curve, learning_rate
from ltxtrain.learn.sigmas import band_of, draw_sigma, shift_for
from ltxtrain.learn.signals import StopFlag
from ltxtrain.model.adapter import adapter_spec, adapter_weights, attach_adapter, load_adapter_weights
from ltxtrain.model.folder import (
    ModelFolder,
    load_scheduler,
    load_transformer,
    load_vae,
    locate_model,
    scheduler_config,
)
from ltxtrain.model.render import RenderSettings, make_render_pipeline, render_video
from ltxtrain.model.text import PromptEmbedding
from ltxtrain.model.transformer import predict_velocity
from ltxtrain.plan.folder import RunFolder, write_plan_files
from ltxtrain.plan.manifest import config_sha256, dataset_fingerprint, write_manifest
from ltxtrain.plan.prompts import ValidationVideo
from ltxtrain.plan.records import Plan

KEPT_IN_MEMORY_BYTES = 2 * 1024**3
# Sections whose values may change between two starts of one run; a change is told.
TOLD_SECTIONS = ("data", "precision", "memory", "objective", "optimizer", "schedule")


@dataclass(frozen=True)
class Run:
    """What training holds in memory."""

    plan: Plan
    prepared: Prepared
    folder: RunFolder
    model: ModelFolder
    device: torch.device
    dtype: torch.dtype
    transformer: Any
    parameters: dict[str, torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    order: BatchOrder
    reader: EntryReader
    scheduler: dict[str, Any]
    identity: dict[str, str]


def iter_train(plan: Plan, prepared: Prepared, stop: StopFlag) -> Generator[Event, None, None]:
    """Train as ``plan`` says, from the newest checkpoint if there is one. Raises ``Interrupted`` after saving.

    Every random draw is a function of the step, so a run that was killed ends with the same bytes as one that was not.
    """
    run = yield from _load(plan, prepared)
    done = yield from _resume(run)
    write_plan_files(plan, run.folder)
    _record(run, "resume" if done else "start", done)
    yield from _validate(run, done, stop, again=False)
    stop.check(f"checkpoints up to step {done} are kept" if done else "training has not begun")

    yield StageStarted("training", plan.steps, done, "steps")
    began = saved_at = time.monotonic()
    saved = done
    for step in range(done + 1, plan.steps + 1):
        event = _step(run, step)
        append_step(run.folder.metrics_jsonl, event)
        yield event
        if _checkpoint_due(plan, step, time.monotonic() - saved_at):
            yield _save(run, step)
            saved, saved_at = step, time.monotonic()
        if not stop.requested:
            yield from _validate(run, step, stop, again=True)
        if stop.requested:
            if saved != step:
                yield _save(run, step)
            _record(run, "interrupted", step)
            raise stop.leave(f"step {step} of {plan.steps} is saved")
    _record(run, "finished", plan.steps)
    yield StageDone("training", time.monotonic() - began, f"{plan.steps - done} steps")
    yield RunFinished(plan.steps, time.monotonic() - began)


def _load(plan: Plan, prepared: Prepared) -> Generator[Event, None, Run]:
    """Transformer, adapter and optimiser, in the fixed order: load, attach adapter, gradient checkpointing, place."""
    yield StageStarted("transformer")
    started = time.perf_counter()
    config = plan.config
    device = find_device(config.speed.torch_num_threads)
    dtype = check_dtype(device, config.precision.mixed_precision)
    model = locate_model(config.model, plan.cache_dir)
    transformer = load_transformer(model, dtype)
    parameters = attach_adapter(transformer, adapter_spec(config.adapter), config.model.seed)
    if config.memory.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
    with memory_advice("placing the transformer", "use a smaller preset, see: ltxtrain presets list"):
        transformer.to(device).train()
    run = Run(
        plan=plan,
        prepared=prepared,
        folder=RunFolder(plan.run_dir),
        model=model,
        device=device,
        dtype=dtype,
        transformer=transformer,
        parameters=parameters,
        optimizer=make_optimizer(list(parameters.values()), config.optimizer),
        order=BatchOrder(plan.samples, plan.batch_size, config.model.seed),
        reader=EntryReader(KEPT_IN_MEMORY_BYTES),
        scheduler=scheduler_config(model),
        identity=_identity(plan, prepared),
    )
    count = sum(parameter.numel() for parameter in parameters.values())
    yield StageDone("transformer", time.perf_counter() - started, f"{count:,} trainable parameters on {device}")
    return run


def _resume(run: Run) -> Generator[Event, None, int]:
    """Put the chosen checkpoint's state back and return how many steps are done."""
    checkpoint, told = choose_checkpoint(run.folder.checkpoints, run.plan.config.checkpoint.resume_from_checkpoint)
    for sentence in told:
        yield Notice(sentence, "warning")
    if checkpoint is None:
        truncate_metrics(run.folder.metrics_jsonl, 0)
        return 0
    check_same_run(checkpoint.state["identity"], run.identity, run.folder.root)
    changed = changed_settings(checkpoint.state["settings"], _settings(run.plan))
    load_adapter_weights(run.transformer, checkpoint.adapter)
    load_optimizer_tensors(run.optimizer, list(run.parameters), dict(checkpoint.optimizer))
    truncate_metrics(run.folder.metrics_jsonl, checkpoint.step)
    yield Notice(f"going on from step {checkpoint.step} of {run.plan.steps}")
    if changed:
        yield Notice("changed since the checkpoint: " + "; ".join(changed), "warning")
    return checkpoint.step


def _step(run: Run, step: int) -> StepDone:
    """One optimiser step: accumulate, refuse what is not finite, clip, update."""
    plan, section = run.plan, run.plan.config.optimizer
    began = time.perf_counter()
    rate = learning_rate(plan.config.schedule.lr_scheduler, _curve(plan), step - 1)
    set_learning_rate(run.optimizer, rate)
    losses: list[float] = []
    bands: dict[str, list[float]] = {}
    for micro in range(plan.accumulation):
        batch = run.order[(step - 1) * plan.accumulation + micro]
        place = Place(plan.config.model.seed, step, micro)
        with dropout_seed(place, run.device), memory_advice(f"training on {batch.samples[0].bucket.key}", LESS_MEMORY):
            loss_B, sigmas = _losses(run, batch, place)
            (loss_B.mean() / plan.accumulation).backward()
        for loss, sigma in zip(loss_B.tolist(), sigmas, strict=True):
            losses.append(loss)
            bands.setdefault(band_of(sigma), []).append(loss)
        _refuse_non_finite(run, step, "loss", sum(losses), batch)
    parameters = list(run.parameters.values())
    norm = clip_gradients(parameters, section.grad_clip_method, section.max_grad_norm)
    _refuse_non_finite(run, step, "gradient", norm, batch)
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    seconds = time.perf_counter() - began
    return StepDone(
        step=step,
        total=plan.steps,
        epoch=batch.epoch,
        loss=sum(losses) / len(losses),
        lr=rate,
        grad_norm=norm,
        seconds=seconds,
        samples_per_second=len(losses) / seconds,
        sigma_bands={band: sum(values) / len(values) for band, values in sorted(bands.items())},
        memory_bytes=peak_memory(run.device),
    )


LESS_MEMORY = "lower train_batch_size, resolution or num_frames, or turn gradient_checkpointing on"


def _losses(run: Run, batch: Batch, place: Place) -> tuple[torch.Tensor, list[float]]:
    """The loss of each sample [B], and the sigma that each was noised with."""
    objective, data = run.plan.config.objective, run.plan.config.data
    shift = shift_for(objective, batch.samples[0].bucket.tokens, run.scheduler)
    first_frame = objective.ltx_i2v_prob if objective.ltx_train_mode == "i2v" else 0.0
    latents, noise, embeds, masks, sigmas, conditioned = [], [], [], [], [], []
    for index, sample in enumerate(batch.samples):
        label = f"{index}:{sample.id}"  # a short bucket may show one sample twice in a batch
        entry = run.prepared.latents[sample.id]
        latents.append(run.reader.read(entry.path, entry.key)["latents"].float())
        noise.append(place.noise("noise", label, tuple(latents[-1].shape)))
        sigmas.append(draw_sigma(place, label, objective, shift))
        conditioned.append(place.happens("first frame", label, first_frame if sample.i2v else 0.0))
        choice = int(place.scalars("caption", label).integers(len(sample.captions)))
        dropped = place.happens("caption dropout", label, data.caption_dropout_probability)
        prompt = _prompt(run, "" if dropped else sample.captions[choice])
        embeds.append(prompt.embeds_LD)
        masks.append(prompt.mask_L)
    stacked = tuple(torch.stack(tensors) for tensors in (latents, noise, embeds, masks))
    latents_BCFHW, noise_BCFHW, embeds_BLD, mask_BL = send_to_device(stacked, run.device)
    noised = add_noise(latents_BCFHW, noise_BCFHW, sigmas, conditioned)
    with torch.autocast(run.device.type, dtype=run.dtype, enabled=run.dtype != torch.float32):
        velocity_BCFHW = predict_velocity(
            run.transformer, noised.noisy_BCFHW.to(run.dtype), noised.sigma, embeds_BLD, mask_BL, data.framerate
        )
    return velocity_loss(velocity_BCFHW, noised), sigmas


def _prompt(run: Run, text: str) -> PromptEmbedding:
    entry = run.prepared.prompts[text]
    tensors = run.reader.read(entry.path, entry.key)
    return PromptEmbedding(tensors["embeds"].to(run.dtype), tensors["mask"], 0)


def _refuse_non_finite(run: Run, step: int, what: str, value: float, batch: Batch) -> None:
    if math.isfinite(value):
        return
    clips = ", ".join(sorted({sample.id for sample in batch.samples}))
    raise LtxtrainError(
        f"the {what} of step {step} is {value}: stopped before the update, no weight has changed (last batch: {clips})",
        hint="lower learning_rate, or look at these clips; the next start goes on from the last checkpoint",
    )


def _curve(plan: Plan) -> Curve:
    optimizer, schedule = plan.config.optimizer, plan.config.schedule
    return Curve(
        optimizer.learning_rate,
        schedule.lr_end,
        schedule.lr_warmup_steps,
        plan.steps,
        schedule.lr_power,
        schedule.lr_num_cycles,
    )


def _checkpoint_due(plan: Plan, step: int, seconds_since: float) -> bool:
    section = plan.config.checkpoint
    by_steps = section.checkpoint_step_interval and step % section.checkpoint_step_interval == 0
    by_time = section.checkpoint_minutes and seconds_since >= section.checkpoint_minutes * 60
    return bool(by_steps or by_time or step == plan.steps)


def _save(run: Run, step: int) -> CheckpointSaved:
    """Commit a checkpoint, then remove the ones beyond ``checkpoints_total_limit``."""
    started = time.perf_counter()
    optimizer = optimizer_tensors(run.optimizer, list(run.parameters))
    state = {"identity": run.identity, "settings": _settings(run.plan), "about": _about(run)}
    checkpoint = Checkpoint(step, adapter_weights(run.transformer), optimizer, state)
    path, size = save_checkpoint(run.folder.checkpoints, checkpoint)
    prune_checkpoints(run.folder.checkpoints, run.plan.config.checkpoint.checkpoints_total_limit)
    return CheckpointSaved(step, str(path.relative_to(run.folder.root)), size, time.perf_counter() - started)


def _identity(plan: Plan, prepared: Prepared) -> dict[str, str]:
    """What must be the same for a checkpoint to be of this run, in words that an error message can use."""
    spec = adapter_spec(plan.config.adapter)
    return {
        "base model": prepared.digests["transformer"],
        "adapter": sha256_of(spec.rank, spec.alpha, sorted(spec.targets)),
        "set of clips": dataset_fingerprint(plan),
    }


def _about(run: Run) -> dict[str, Any]:
    """What an exported file says of itself. Nothing here depends on when or where the run took place."""
    spec = adapter_spec(run.plan.config.adapter)
    return {
        "run": run.plan.run_name,
        "base_model": run.model.name,
        "base_model_revision": run.model.revision,
        "base_model_sha256": run.prepared.digests["transformer"],
        "rank": spec.rank,
        "alpha": spec.alpha,
        "peft_config": spec.peft_config(),
        "config_sha256": config_sha256(run.plan.config),
        "resolutions": sorted(planned.bucket.key for planned in run.plan.buckets),
    }


def _record(run: Run, event: str, step: int) -> None:
    """Write run.json, with one more line in its history."""
    model = {"name": run.model.name, "revision": run.model.revision, "sha256": dict(run.prepared.digests)}
    write_manifest(run.plan, run.folder, model, {"event": event, "step": step})


def _settings(plan: Plan) -> dict[str, Any]:
    sections = plan.config.model_dump(mode="json", include=set(TOLD_SECTIONS))
    return {name: value for section in sections.values() for name, value in section.items()}


def _validation_due(plan: Plan, step: int) -> bool:
    section = plan.config.validation
    if step == 0:
        return section.validation_on_startup or not section.disable_benchmark
    by_steps = section.validation_step_interval and step % section.validation_step_interval == 0
    return step == plan.steps or bool(by_steps and step >= (section.validate_after_step or 0))


def _validate(run: Run, step: int, stop: StopFlag, *, again: bool) -> Generator[Event, None, None]:
    """Render the validation videos of ``step`` if they are due. Changes no weight and no random state of training.

    index.json is written last, so its presence says that the step's videos are complete; with ``again`` they are
    rendered even so. Leaves early, without it, when ``stop`` is set.
    """
    folder = run.folder.samples / checkpoint_name(step)
    if not run.plan.videos or not _validation_due(run.plan, step) or (not again and (folder / "index.json").exists()):
        return
    config = run.plan.config
    section = config.validation
    yield StageStarted("validation", len(run.plan.videos), 0, "videos")
    started = time.perf_counter()
    vae = load_vae(run.model, DTYPES[config.precision.vae_dtype]).to(run.device)
    pipeline = make_render_pipeline(run.transformer.eval(), vae, load_scheduler(run.model))
    index = []
    for done, video in enumerate(run.plan.videos, 1):
        began = time.perf_counter()
        settings = RenderSettings.of(video, section, config.data.framerate, tiled=config.cache.vae_enable_tiling)
        negative = _prompt(run, section.validation_negative_prompt)
        with memory_advice(f"rendering {video.width}x{video.height}", "lower validation_resolution"):
            frames_FHWC = render_video(pipeline, _prompt(run, video.prompt), negative, settings, lambda: stop.requested)
        if frames_FHWC is None:
            break
        path = folder / f"{video.name}.mp4"
        write_video(path, frames_FHWC, config.data.framerate)
        index.append(_index_line(video, path.name, settings))
        relative = str(path.relative_to(run.folder.root))
        poster = relative.removesuffix(".mp4") + ".png"
        yield StageProgress("validation", done, video.name)
        yield VideoRendered(step, video.name, video.prompt, relative, poster, time.perf_counter() - began)
    else:
        write_atomically(folder / "index.json", json.dumps(index, indent=1, ensure_ascii=False))
    run.transformer.train()
    del vae, pipeline
    release_memory(run.device)
    yield StageDone("validation", time.perf_counter() - started, f"{len(index)} videos of step {step}")


def _index_line(video: ValidationVideo, file: str, settings: RenderSettings) -> dict[str, Any]:
    return {
        "name": video.name,
        "prompt": video.prompt,
        "video": file,
        "poster": file.removesuffix(".mp4") + ".png",
        "width": video.width,
        "height": video.height,
        "frames": video.frames,
        "seed": video.seed,
        "steps": settings.inference_steps,
        "guidance": settings.guidance,
    }
