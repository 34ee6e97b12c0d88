"""The training recipe. ``iter_train`` is the loop, read from top to bottom; the functions below it are its parts.

Shape legend: B batch, C latent channels, F latent frames, H W latent size, S tokens, L text tokens, D width.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device

from ltxtrain.data.batches import Batch, BatchOrder
from ltxtrain.data.frames import write_video
from ltxtrain.data.prepared import Prepared
from ltxtrain.errors import CheckpointError
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
from ltxtrain.learn.checkpoint import (
    Checkpoint,
    checkpoint_due,
    checkpoint_name,
    prune_checkpoints,
    save_checkpoint,
)
from ltxtrain.learn.device import DTYPES, check_dtype, find_device, memory_advice, peak_memory, release_memory
from ltxtrain.learn.draws import Place, dropout_seed
from ltxtrain.learn.lock import only_process
from ltxtrain.learn.metrics import append_step, truncate_metrics
from ltxtrain.learn.objective import add_noise, refuse_non_finite, velocity_loss
from ltxtrain.learn.optimizer import (
    clip_gradients,
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
    set_learning_rate,
)
from ltxtrain.learn.resume import (
    changed_settings,
    check_same_run,
    choose_checkpoint,
    peek_identity,
    put_aside_later,
    told_settings,
)
from ltxtrain.learn.schedule import curve_of, learning_rate
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
from ltxtrain.plan.prompts import ValidationVideo, validation_due
from ltxtrain.plan.records import Plan
from ltxtrain.units import counted


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
    scheduler: dict[str, Any]
    identity: dict[str, str]


def iter_train(plan: Plan, prepared: Prepared, stop: StopFlag) -> Generator[Event, None, None]:
    """Train as ``plan`` says, from the newest checkpoint if there is one. Raises ``Interrupted`` after saving.

    Every random draw is a function of the step, so a run that was killed ends with the same bytes as one that was not.
    """
    with only_process(plan.run_dir):
        run = yield from _load(plan, prepared, stop)
        done = yield from _resume(run)
        if done < plan.steps or not run.folder.run_json.exists():  # a finished run keeps the record of what made it
            write_plan_files(plan, run.folder)
            _record(run, "resume" if done else "start", done)
        if done and not (run.folder.checkpoints / checkpoint_name(done)).exists():
            yield _save(run, done)  # taken over from another run: from here on it is this one's
        yield from _validate(run, done, stop, again=False)
        stop.check(f"checkpoints up to step {done} are kept" if done else "training has not begun")
        yield from _steps(run, done, stop)


def _steps(run: Run, done: int, stop: StopFlag) -> Generator[Event, None, None]:
    """All steps after ``done``, with checkpoints and validation in between."""
    plan = run.plan
    yield StageStarted("training", plan.steps, done, "steps")
    began = saved_at = time.monotonic()
    saved = done
    for step in range(done + 1, plan.steps + 1):
        event = _step(run, step)
        append_step(run.folder.metrics_jsonl, event)
        yield event
        if checkpoint_due(plan.config.checkpoint, step, plan.steps, time.monotonic() - saved_at):
            yield _save(run, step)
            saved, saved_at = step, time.monotonic()
        if not stop.requested:
            yield from _validate(run, step, stop, again=True)
        if stop.requested:
            if saved != step:
                yield _save(run, step)
            _record(run, "interrupted", step)
            raise stop.leave(f"step {step} of {plan.steps} is saved")
    if done < plan.steps:
        _record(run, "finished", plan.steps)
    yield StageDone("training", time.monotonic() - began, counted(plan.steps - done, "step"))
    yield RunFinished(plan.steps, time.monotonic() - began)


def check_run_folder(plan: Plan) -> None:
    """Raise ``CheckpointError`` before any work is done when the run folder is plainly another run's."""
    folder = RunFolder(plan.run_dir)
    saved = peek_identity(folder.checkpoints, plan.config.checkpoint.resume_from_checkpoint)
    if saved is not None:
        check_same_run(saved, _identity(plan), folder.root)


def _load(plan: Plan, prepared: Prepared, stop: StopFlag) -> Generator[Event, None, Run]:
    """Transformer, adapter and optimiser, in the fixed order: load, attach adapter, gradient checkpointing, place."""
    yield StageStarted("transformer")
    started = time.perf_counter()
    config = plan.config
    device = find_device(config.speed.torch_num_threads)
    dtype = check_dtype(device, config.precision.mixed_precision, config.precision.vae_dtype)
    with stop.at_once("training has not begun"), memory_advice("placing the transformer", SMALLER_PRESET):
        model = locate_model(config.model, plan.cache_dir)
        transformer = load_transformer(model, dtype)
        parameters = attach_adapter(transformer, adapter_spec(config.adapter), config.model.seed)
        if config.memory.gradient_checkpointing:
            transformer.enable_gradient_checkpointing()
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
        scheduler=scheduler_config(model),
        identity=_identity(plan) | {"base model": prepared.digests["transformer"]},
    )
    count = sum(parameter.numel() for parameter in parameters.values())
    yield StageDone("transformer", time.perf_counter() - started, f"{count:,} trainable parameters on {device}")
    return run


def _resume(run: Run) -> Generator[Event, None, int]:
    """Put the chosen checkpoint's state back and return how many steps are done."""
    wanted = run.plan.config.checkpoint.resume_from_checkpoint
    checkpoint, told = choose_checkpoint(run.folder.checkpoints, wanted, run.identity)
    for sentence in told:
        yield Notice(sentence, "warning")
    done = checkpoint.step if checkpoint else 0
    if checkpoint:
        check_same_run(checkpoint.state["identity"], run.identity, run.folder.root)
        if done > run.plan.steps:
            raise CheckpointError(
                f"{run.folder.root} is at step {done} already, past the {run.plan.steps} steps of this plan",
                hint=f"ask for more steps, or go back with --resume-from-checkpoint {run.plan.steps}",
            )
        load_adapter_weights(run.transformer, checkpoint.adapter)
        load_optimizer_tensors(run.optimizer, list(run.parameters), dict(checkpoint.optimizer))
        yield Notice(f"going on from step {done} of {run.plan.steps}")
        if changed := changed_settings(checkpoint.state["settings"], told_settings(run.plan)):
            yield Notice("changed since the checkpoint: " + "; ".join(changed), "warning")
    truncate_metrics(run.folder.metrics_jsonl, done)
    if wanted != "latest":
        put_aside_later(run.folder.samples, done)
    return done


def _step(run: Run, step: int) -> StepDone:
    """One optimiser step: accumulate, refuse what is not finite, clip, update."""
    plan, section = run.plan, run.plan.config.optimizer
    began = time.perf_counter()
    rate = learning_rate(
        plan.config.schedule.lr_scheduler, curve_of(section, plan.config.schedule, plan.steps), step - 1
    )
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
        refuse_non_finite(step, "loss", sum(losses), batch.names)
    parameters = list(run.parameters.values())
    norm = clip_gradients(parameters, section.grad_clip_method, section.max_grad_norm)
    refuse_non_finite(step, "gradient", norm, batch.names)
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


SMALLER_PRESET = "free the GPU of other programs, or use a smaller preset, see: ltxtrain presets list"
LESS_MEMORY = "lower train_batch_size, resolution or num_frames, or turn gradient_checkpointing on"


def _losses(run: Run, batch: Batch, place: Place) -> tuple[torch.Tensor, list[float]]:
    """The loss of each sample [B], and the sigma that each was noised with."""
    objective, data = run.plan.config.objective, run.plan.config.data
    shift = shift_for(objective, batch.samples[0].bucket.tokens, run.scheduler)
    first_frame = objective.ltx_i2v_prob if objective.ltx_train_mode == "i2v" else 0.0
    latents, noise, embeds, masks, sigmas, conditioned = [], [], [], [], [], []
    for index, sample in enumerate(batch.samples):
        label = f"{index}:{sample.id}"  # a short bucket may show one sample twice in a batch
        latents.append(run.prepared.latents(sample).float())
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
    tensors = run.prepared.prompt(text)
    return PromptEmbedding(tensors["embeds"].to(run.dtype), tensors["mask"], 0)


def _save(run: Run, step: int) -> CheckpointSaved:
    """Commit a checkpoint, then remove the ones beyond ``checkpoints_total_limit``."""
    started = time.perf_counter()
    optimizer = optimizer_tensors(run.optimizer, list(run.parameters))
    state = {"identity": run.identity, "settings": told_settings(run.plan), "about": _about(run)}
    checkpoint = Checkpoint(step, adapter_weights(run.transformer), optimizer, state)
    path, size = save_checkpoint(run.folder.checkpoints, checkpoint)
    prune_checkpoints(run.folder.checkpoints, run.plan.config.checkpoint.checkpoints_total_limit)
    return CheckpointSaved(step, str(path.relative_to(run.folder.root)), size, time.perf_counter() - started)


def _identity(plan: Plan) -> dict[str, str]:
    """What must be the same for a checkpoint to be of this run, in words that an error message can use."""
    spec = adapter_spec(plan.config.adapter)
    return {
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
    write_manifest(run.plan, run.folder, model, {"event": event, "step": step}, run.identity["set of clips"])


def _validate(run: Run, step: int, stop: StopFlag, *, again: bool) -> Generator[Event, None, None]:
    """Render the validation videos of ``step`` if they are due. Changes no weight and no random state of training.

    index.json is written last and says what was rendered, so what it lists is complete; with ``again`` it is rendered
    even so. Leaves early, without it, when ``stop`` is set.
    """
    folder = run.folder.samples / checkpoint_name(step)
    config = run.plan.config
    rate, tiled = config.data.framerate, config.cache.vae_enable_tiling
    wanted = [(video, RenderSettings.of(video, config.validation, rate, tiled=tiled)) for video in run.plan.videos]
    index = json.dumps([_index_line(*pair) for pair in wanted], indent=1, ensure_ascii=False)
    if (
        not wanted
        or not validation_due(config.validation, step, run.plan.steps)
        or (not again and _holds(folder / "index.json", index))
    ):
        return
    yield StageStarted("validation", len(wanted), 0, "videos")
    started = time.perf_counter()
    with memory_advice("placing the VAE", "turn validation off with --validation-disable"):
        vae = load_vae(run.model, DTYPES[config.precision.vae_dtype]).to(run.device)
    pipeline = make_render_pipeline(run.transformer, vae, load_scheduler(run.model))
    negative = _prompt(run, config.validation.validation_negative_prompt)
    done = 0
    for video, settings in wanted:
        began = time.perf_counter()
        with memory_advice(f"rendering {video.width}x{video.height}", "lower validation_resolution"):
            frames_FHWC = render_video(pipeline, _prompt(run, video.prompt), negative, settings, lambda: stop.requested)
        if frames_FHWC is None:
            break
        done += 1
        path = folder / f"{video.name}.mp4"
        write_video(path, frames_FHWC, rate)
        shown = (str(file.relative_to(run.folder.root)) for file in (path, path.with_suffix(".png")))
        yield StageProgress("validation", done, video.name)
        yield VideoRendered(step, video.name, video.prompt, *shown, time.perf_counter() - began)
    if done == len(wanted):
        write_atomically(folder / "index.json", index)
    del vae, pipeline
    release_memory(run.device)
    yield StageDone("validation", time.perf_counter() - started, f"{counted(done, 'video')} of step {step}")


def _holds(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


def _index_line(video: ValidationVideo, settings: RenderSettings) -> dict[str, Any]:
    return {
        "name": video.name,
        "prompt": video.prompt,
        "video": f"{video.name}.mp4",
        "poster": f"{video.name}.png",
        "width": video.width,
        "height": video.height,
        "frames": video.frames,
        "seed": video.seed,
        "steps": settings.inference_steps,
        "guidance": settings.guidance,
    }
