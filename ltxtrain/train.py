"""The training recipe. ``iter_train`` is the loop, read from top to bottom; the functions below it are its parts.

Shape legend: B batch, C latent channels, F latent frames, H W latent size, S tokens, L text tokens, D width.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate.utils import send_to_device

from ltxtrain.data.frames import write_video
from ltxtrain.data.prepared import Prepared
from ltxtrain.events import (
    EVALUATIONS,
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
from ltxtrain.files import write_atomically
from ltxtrain.learn.batch import Clean, Drawn, DrawRule, draw_captions, draw_noise, read_batch
from ltxtrain.learn.checkpoint import Checkpoint, checkpoint_due, checkpoint_name, prune_checkpoints, save_checkpoint
from ltxtrain.learn.device import DTYPES, check_dtype, find_device, memory_advice, peak_memory, release_memory
from ltxtrain.learn.draws import Place, dropout_seed
from ltxtrain.learn.evaluation import Measuring, evaluate, inference_sigmas
from ltxtrain.learn.identity import about, identity_of, told_settings
from ltxtrain.learn.lock import only_process
from ltxtrain.learn.metrics import append_step, told_losses, truncate_metrics
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
    check_not_past,
    check_same_run,
    choose_checkpoint,
    peek_identity,
    put_aside_later,
)
from ltxtrain.learn.schedule import rate_of
from ltxtrain.learn.sigmas import shift_for
from ltxtrain.learn.signals import StopFlag
from ltxtrain.learn.videos import holds, index_of
from ltxtrain.model.adapter import adapter_off, adapter_spec, adapter_weights, attach_adapter, load_adapter_weights
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
from ltxtrain.plan.length import batches_of_run
from ltxtrain.plan.manifest import write_manifest
from ltxtrain.plan.order import Batch, BatchOrder, order_of
from ltxtrain.plan.prompts import validation_due
from ltxtrain.plan.records import DatasetPlan, Plan
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
    batches: int  # in all steps together
    datasets: dict[str, DatasetPlan]
    scheduler: dict[str, Any]
    identity: dict[str, str]
    about: dict[str, Any]


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
        yield from _evaluate(run, done, stop)
        yield from _validate(run, done, stop, again=False)
        stop.check(f"checkpoints up to step {done} are kept" if done else "training has not begun")
        yield from _steps(run, done, stop)


def _steps(run: Run, done: int, stop: StopFlag) -> Generator[Event, None, None]:
    """All steps after ``done``, with checkpoints and validation in between."""
    plan = run.plan
    yield StageStarted("training", plan.steps, done, "steps")
    began = saved_at = time.monotonic()
    saved = done
    first = done * plan.accumulation
    if done and first < run.batches:  # the first epoch's cuts may be left of caching, the last one's of a longer run
        for epoch in (0, run.order[first - 1].epoch):
            run.prepared.forget(run.order.outdated(epoch, run.order[first].epoch))
    for index in range(READ_AHEAD):
        _read_ahead(run, first + index)
    for step in range(done + 1, plan.steps + 1):
        event = _step(run, step)
        append_step(run.folder.metrics_jsonl, event)
        yield event
        yield from _after(run, step)
        if checkpoint_due(plan.config.checkpoint, step, plan.steps, time.monotonic() - saved_at):
            yield _save(run, step)
            saved, saved_at = step, time.monotonic()
        yield from _evaluate(run, step, stop)
        if not stop.requested:
            yield from _validate(run, step, stop, again=True)
        if stop.requested:
            if saved != step:
                yield _save(run, step)
            _record(run, "interrupted", step)
            raise stop.leave(f"step {step} of {plan.steps} is saved")
    yield from _told(run)
    run.prepared.release()
    if done < plan.steps:
        _record(run, "finished", plan.steps)
    yield StageDone("training", time.monotonic() - began, counted(plan.steps - done, "step"))
    yield RunFinished(plan.steps, time.monotonic() - began)


def check_run_folder(plan: Plan) -> None:
    """Raise ``CheckpointError`` before any work is done when the run folder is plainly another run's."""
    folder = RunFolder(plan.run_dir)
    saved = peek_identity(folder.checkpoints, plan.config.checkpoint.resume_from_checkpoint)
    if saved is not None:
        check_same_run(saved, identity_of(plan, adapter_spec(plan.config.adapter)), folder.root)


def _load(plan: Plan, prepared: Prepared, stop: StopFlag) -> Generator[Event, None, Run]:
    """Transformer, adapter and optimiser, in the fixed order: load, attach adapter, gradient checkpointing, place."""
    yield StageStarted("transformer")
    started = time.perf_counter()
    config, spec = plan.config, adapter_spec(plan.config.adapter)
    device = find_device(config.speed.torch_num_threads)
    dtype = check_dtype(device, config.precision.mixed_precision, config.precision.vae_dtype)
    with stop.at_once("training has not begun"), memory_advice("placing the transformer", SMALLER_PRESET):
        model = locate_model(config.model, plan.cache_dir)
        transformer = load_transformer(model, dtype)
        parameters = attach_adapter(transformer, spec, config.model.seed)
        if config.memory.gradient_checkpointing:
            transformer.enable_gradient_checkpointing()
        transformer.to(device).train()
    order = order_of(plan)
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
        order=order,
        batches=batches_of_run(plan, order),
        datasets={dataset.id: dataset for dataset in plan.datasets},
        scheduler=scheduler_config(model),
        identity=identity_of(plan, spec) | {"base model": prepared.digests["transformer"]},
        about=about(plan, spec, model, prepared.digests["transformer"]),
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
        check_not_past(done, run.plan.steps, run.folder.root)
        load_adapter_weights(run.transformer, checkpoint.adapter)
        load_optimizer_tensors(run.optimizer, list(run.parameters), dict(checkpoint.optimizer))
        yield Notice(f"going on from step {done} of {run.plan.steps}")
        if changed := changed_settings(checkpoint.state["settings"], told_settings(run.plan)):
            yield Notice("changed since the checkpoint: " + "; ".join(changed), "warning")
    for path in (run.folder.metrics_jsonl, run.folder.root / EVALUATIONS):
        truncate_metrics(path, done)
    if wanted != "latest":
        put_aside_later(run.folder.samples, done)
    return done


def _step(run: Run, step: int) -> StepDone:
    """One optimiser step: accumulate, refuse what is not finite, clip, update. Each of its samples counts the same."""
    plan, section = run.plan, run.plan.config.optimizer
    began = time.perf_counter()
    rate = rate_of(section, plan.config.schedule, plan.steps, step)
    set_learning_rate(run.optimizer, rate)
    first = (step - 1) * plan.accumulation
    batches = [run.order[index] for index in range(first, min(first + plan.accumulation, run.batches))]
    count = sum(len(batch.samples) for batch in batches)
    losses: list[tuple[str, float, float]] = []  # data set, sigma and loss of each sample
    waited = 0.0
    for micro, batch in enumerate(batches):
        waited += _read_ahead(run, first + micro + READ_AHEAD)
        place = Place(plan.config.model.seed, step, micro)
        with dropout_seed(place, run.device), memory_advice(f"training on {batch.samples[0].bucket.key}", LESS_MEMORY):
            loss_B, sigmas, seconds = _losses(run, batch, place)
            (loss_B.mean() / (count / len(batch.samples))).backward()
        losses += [(batch.dataset, sigma, loss) for sigma, loss in zip(sigmas, loss_B.tolist(), strict=True)]
        waited += seconds
        refuse_non_finite(step, "loss", sum(loss_B.tolist()), batch.names)
    norm = clip_gradients(list(run.parameters.values()), section.grad_clip_method, section.max_grad_norm)
    refuse_non_finite(step, "gradient", norm, batch.names)
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    seconds = time.perf_counter() - began
    return StepDone(
        step=step,
        total=plan.steps,
        epoch=batch.epoch,
        lr=rate,
        grad_norm=norm,
        seconds=seconds,
        samples_per_second=count / seconds,
        memory_bytes=peak_memory(run.device),
        data_seconds=waited,
        **told_losses(losses),
    )


READ_AHEAD = 2  # batches
SMALLER_PRESET = "free the GPU of other programs, or use a smaller preset, see: ltxtrain presets list"
LESS_MEMORY = "lower train_batch_size, resolution or num_frames, or turn gradient_checkpointing on"


def _losses(run: Run, batch: Batch, place: Place) -> tuple[torch.Tensor, list[float], float]:
    """The loss of each sample [B], the sigma that each was noised with, and the seconds that reading them took."""
    config, dataset = run.plan.config, run.datasets[batch.dataset]
    captions = draw_captions(batch, place, config.data.caption_dropout_probability)
    began = time.perf_counter()
    clean = read_batch(run.prepared, batch.samples, captions)
    waited = time.perf_counter() - began
    shift = shift_for(config.objective, batch.samples[0].bucket.tokens, run.scheduler)
    rule = DrawRule(config.objective, shift, dataset.timestep_offset)
    drawn = draw_noise(batch, place, clean.latents_BCFHW.shape[1:], rule)
    return _compare(run, clean, drawn, with_base=dataset.regularisation), drawn.sigmas, waited


def _compare(run: Run, clean: Clean, drawn: Drawn, *, with_base: bool = False) -> torch.Tensor:
    """The loss of each sample [B]: against the true velocity, or ``with_base`` against the untouched model's answer."""
    stacked = (clean.latents_BCFHW, drawn.noise_BCFHW, clean.embeds_BLD.to(run.dtype), clean.mask_BL)
    latents_BCFHW, noise_BCFHW, embeds_BLD, mask_BL = send_to_device(stacked, run.device)
    noised = add_noise(latents_BCFHW, noise_BCFHW, drawn.sigmas, drawn.conditioned)
    noisy_BCFHW, framerate = noised.noisy_BCFHW.to(run.dtype), run.plan.config.data.framerate
    given = (run.transformer, noisy_BCFHW, noised.sigma, embeds_BLD, mask_BL, framerate)
    with torch.autocast(run.device.type, dtype=run.dtype, enabled=run.dtype != torch.float32):
        if with_base:
            with torch.no_grad(), adapter_off(run.transformer):
                noised = replace(noised, target_BCFHW=predict_velocity(*given))
        velocity_BCFHW = predict_velocity(*given)
    return velocity_loss(velocity_BCFHW, noised)


def _read_ahead(run: Run, index: int) -> float:
    """Begin to read what the batch with that number needs, if the run gets so far. Returns the seconds it took."""
    began = time.perf_counter()
    if index < run.batches:
        run.prepared.ahead(run.order[index].samples)
    return time.perf_counter() - began


def _after(run: Run, step: int) -> Generator[Event, None, None]:
    """Tell what reading the step's data met, and drop the cuts of an epoch that is over."""
    yield from _told(run)
    if step < run.plan.steps:
        before, after = (run.order[number * run.plan.accumulation].epoch for number in (step - 1, step))
        for epoch in range(before, after):
            run.prepared.forget(run.order.outdated(epoch, after))


def _told(run: Run) -> Generator[Notice, None, None]:
    yield from (Notice(sentence, "warning") for sentence in run.prepared.told())


def _evaluate(run: Run, step: int, stop: StopFlag) -> Generator[Event, None, None]:
    """Measure the data sets that are held out, if that is due. Changes no weight and no random state."""

    def losses(clean: Clean, drawn: Drawn) -> torch.Tensor:
        run.transformer.eval()
        with memory_advice("evaluating", LESS_MEMORY):
            loss_B = _compare(run, clean, drawn)
        run.transformer.train()
        return loss_B

    def sigmas_of(tokens: int) -> list[float]:
        count = run.plan.config.validation.eval_timesteps
        return inference_sigmas(load_scheduler(run.model), run.scheduler, count, tokens)

    measuring = Measuring(run.prepared, sigmas_of, losses, run.folder.root / EVALUATIONS)
    yield from evaluate(measuring, run.plan, run.order, step, stop)
    yield from _told(run)


def _prompt(run: Run, text: str) -> PromptEmbedding:
    tensors = run.prepared.prompt(text)
    return PromptEmbedding(tensors["embeds"].to(run.dtype), tensors["mask"], 0)


def _save(run: Run, step: int) -> CheckpointSaved:
    """Commit a checkpoint, then remove the ones beyond ``checkpoints_total_limit``."""
    started = time.perf_counter()
    optimizer = optimizer_tensors(run.optimizer, list(run.parameters))
    state = {"identity": run.identity, "settings": told_settings(run.plan), "about": run.about}
    checkpoint = Checkpoint(step, adapter_weights(run.transformer), optimizer, state)
    path, size = save_checkpoint(run.folder.checkpoints, checkpoint)
    prune_checkpoints(run.folder.checkpoints, run.plan.config.checkpoint.checkpoints_total_limit)
    return CheckpointSaved(step, str(path.relative_to(run.folder.root)), size, time.perf_counter() - started)


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
    index = index_of(wanted)
    if (
        not wanted
        or not validation_due(config.validation, step, run.plan.steps)
        or (not again and holds(folder / "index.json", index))
    ):
        return
    yield StageStarted("validation", len(wanted), 0, "videos")
    started = time.perf_counter()
    prompts = {video.prompt: _prompt(run, video.prompt) for video, _ in wanted}
    negative = _prompt(run, config.validation.validation_negative_prompt)
    run.prepared.release()
    with memory_advice("placing the VAE", "turn validation off with --validation-disable"):
        vae = load_vae(run.model, DTYPES[config.precision.vae_dtype]).to(run.device)
    pipeline = make_render_pipeline(run.transformer, vae, load_scheduler(run.model))
    done = 0
    for video, settings in wanted:
        began = time.perf_counter()
        with memory_advice(f"rendering {video.width}x{video.height}", "lower validation_resolution"):
            frames_FHWC = render_video(pipeline, prompts[video.prompt], negative, settings, lambda: stop.requested)
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
