"""The training recipe. ``iter_train`` is the loop, read from top to bottom; its parts stand below it, in training/."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing

from ltxtrain.data.prepared import Prepared
from ltxtrain.events import (
    EVALUATIONS,
    TRAINING,
    CheckpointSaved,
    Event,
    MemoryMeasured,
    Notice,
    RunFinished,
    StageDone,
    StageStarted,
)
from ltxtrain.learn.checkpoint import Checkpoint, checkpoint_due, checkpoint_name, prune_checkpoints, save_checkpoint
from ltxtrain.learn.device import memory_advice
from ltxtrain.learn.identity import identity_of, told_settings
from ltxtrain.learn.lock import only_process
from ltxtrain.learn.metrics import append_memory, drop_torn_lines, truncate_metrics
from ltxtrain.learn.optimizers import check_owner, evaluating, load_optimizer_tensors, optimizer_tensors
from ltxtrain.learn.resume import (
    changed_settings,
    check_not_past,
    check_same_run,
    choose_checkpoint,
    peek_state,
    peek_step,
    put_aside_later,
)
from ltxtrain.learn.shortage import needs
from ltxtrain.learn.signals import StopFlag
from ltxtrain.model.adapter import adapter_spec, adapter_weights, load_adapter_weights
from ltxtrain.plan.folder import RunFolder, write_plan_files
from ltxtrain.plan.manifest import write_manifest
from ltxtrain.plan.records import Plan
from ltxtrain.training.feed import Feed
from ltxtrain.training.memory import measured, recorded
from ltxtrain.training.run import Run, load_run
from ltxtrain.training.step import Steps
from ltxtrain.training.trial import try_largest
from ltxtrain.training.validation import is_looked_at, measure_held_out, validate
from ltxtrain.units import counted


def iter_train(plan: Plan, prepared: Prepared, stop: StopFlag) -> Generator[Event, None, None]:
    """Train as ``plan`` says, from the newest checkpoint if there is one. Raises ``Interrupted`` after saving.

    Every random draw is a function of the step, so a run that was killed ends with the same bytes as one that was not.
    """
    with only_process(plan.run_dir):
        run, loading = yield from load_run(plan, prepared, stop)
        tried = yield from _try(run, stop)
        done = yield from _resume(run)
        if done < plan.steps or not run.folder.run_json.exists():  # a finished run keeps the record of what made it
            write_plan_files(plan, run.folder)
            _record(run, "resume" if done else "start", done)
            append_memory(run.folder.memory_jsonl, prepared.measured)  # told when it was measured
            yield from recorded(run.folder, [*loading, *tried])
        if done and not (run.folder.checkpoints / checkpoint_name(done)).exists():
            yield _save(run, done)  # taken over from another run: from here on it is this one's
        yield from measure_held_out(run, done, stop)
        yield from _told(run)
        yield from validate(run, done, stop, again=False)
        stop.check(f"checkpoints up to step {done} are kept" if done else "training has not begun")
        _forget_cuts_left_over(run, done)
        with closing(Feed(run, done * plan.accumulation)) as feed:
            yield from _steps(run, Steps(run, feed), done, stop)


def _steps(run: Run, steps: Steps, done: int, stop: StopFlag) -> Generator[Event, None, None]:
    """All steps after ``done``, with checkpoints and validation in between.

    What a step gave is known once the next one is launched; it is asked for at once where its weights are used for
    anything else, so nothing is saved or rendered of a step that came out with NaN.
    """
    plan = run.plan
    yield StageStarted(TRAINING, plan.steps, done, "steps")
    began = saved_at = time.monotonic()
    saved = done
    for step in range(done + 1, plan.steps + 1):
        yield from steps.launch(step)
        yield from _after(run, step)
        due = checkpoint_due(plan.config.checkpoint, step, plan.steps, time.monotonic() - saved_at)
        if not (due or stop.requested or is_looked_at(run, step)):
            continue
        yield from steps.settle()
        if due:
            yield _save(run, step)
            saved, saved_at = step, time.monotonic()
        yield from measure_held_out(run, step, stop)
        yield from _told(run)
        if not stop.requested:
            yield from validate(run, step, stop, again=True)
        if stop.requested:
            if saved != step:
                yield _save(run, step)
            _record(run, "interrupted", step)
            yield from recorded(run.folder, [measured(plan, TRAINING, run.meter)])
            raise stop.leave(f"step {step} of {plan.steps} is saved")
    yield from _told(run)
    run.prepared.release()
    if done < plan.steps:
        _record(run, "finished", plan.steps)
        yield from recorded(run.folder, [measured(plan, TRAINING, run.meter)])
    yield StageDone(TRAINING, time.monotonic() - began, counted(plan.steps - done, "step"))
    yield RunFinished(plan.steps, time.monotonic() - began)


def check_run_folder(plan: Plan) -> None:
    """Raise ``CheckpointError`` before any work is done when the run folder is plainly another run's."""
    folder = RunFolder(plan.run_dir)
    saved = peek_state(folder.checkpoints, plan.config.checkpoint.resume_from_checkpoint)
    if saved is not None:
        check_same_run(saved["identity"], identity_of(plan, adapter_spec(plan.config.adapter)), folder.root)
        optimizer = plan.config.optimizer.optimizer
        check_owner(saved["settings"].get("optimizer", optimizer), optimizer)


def _try(run: Run, stop: StopFlag) -> Generator[Event, None, list[MemoryMeasured]]:
    """What a trial of the largest batch takes; none is made for a run that is finished already."""
    done = peek_step(run.folder.checkpoints, run.plan.config.checkpoint.resume_from_checkpoint)
    return [(yield from try_largest(run, stop))] if done < run.plan.steps else []


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
        with memory_advice("putting the checkpoint's state back", needs(run.plan, TRAINING, run.device)):
            load_adapter_weights(run.transformer, checkpoint.adapter)
            load_optimizer_tensors(run.optimizer, list(run.parameters), dict(checkpoint.optimizer))
        if run.loss_scale is not None:
            run.loss_scale.restore(checkpoint.state.get("loss_scale"))
        yield Notice(f"going on from step {done} of {run.plan.steps}")
        if changed := changed_settings(checkpoint.state["settings"], told_settings(run.plan)):
            yield Notice("changed since the checkpoint: " + "; ".join(changed), "warning")
    for path in (run.folder.metrics_jsonl, run.folder.root / EVALUATIONS):
        truncate_metrics(path, done)
    drop_torn_lines(run.folder.memory_jsonl)
    if wanted != "latest":
        put_aside_later(run.folder.samples, done)
    return done


def _after(run: Run, step: int) -> Generator[Event, None, None]:
    """Tell what reading the step's data met, and drop the cuts of an epoch that is over."""
    yield from _told(run)
    if step < run.plan.steps:
        before, after = (run.order[number * run.plan.accumulation].epoch for number in (step - 1, step))
        for epoch in range(before, after):
            run.prepared.forget(run.order.outdated(epoch, after))


def _forget_cuts_left_over(run: Run, done: int) -> None:
    """Those of the first epoch may be left of caching, and the last epoch's of a run that was longer."""
    first = done * run.plan.accumulation
    if done and first < run.batches:
        for epoch in (0, run.order[first - 1].epoch):
            run.prepared.forget(run.order.outdated(epoch, run.order[first].epoch))


def _told(run: Run) -> Generator[Notice, None, None]:
    yield from (Notice(sentence, "warning") for sentence in run.prepared.told())


def _save(run: Run, step: int) -> CheckpointSaved:
    """Commit a checkpoint, then remove the ones beyond ``checkpoints_total_limit``."""
    started = time.perf_counter()
    optimizer = optimizer_tensors(run.optimizer, list(run.parameters))
    state = {"identity": run.identity, "settings": told_settings(run.plan), "about": run.about}
    if run.loss_scale is not None:
        state["loss_scale"] = run.loss_scale.state()
    with evaluating(run.optimizer):
        checkpoint = Checkpoint(step, adapter_weights(run.transformer), optimizer, state)
    path, size = save_checkpoint(run.folder.checkpoints, checkpoint)
    prune_checkpoints(run.folder.checkpoints, run.plan.config.checkpoint.checkpoints_total_limit)
    return CheckpointSaved(step, str(path.relative_to(run.folder.root)), size, time.perf_counter() - started)


def _record(run: Run, event: str, step: int) -> None:
    """Write run.json, with one more line in its history."""
    model = {"name": run.model.name, "revision": run.model.revision, "sha256": dict(run.prepared.digests)}
    write_manifest(run.plan, run.folder, model, {"event": event, "step": step}, run.identity["set of clips"])
