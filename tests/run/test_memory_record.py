"""What each phase takes is measured beside its estimate; what does not fit is known at once, and a way out is told."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from ltxtrain.caching import encoders
from ltxtrain.errors import CheckpointError, OutOfMemoryError
from ltxtrain.events import MemoryMeasured, StepDone
from ltxtrain.learn.device import memory_advice
from ltxtrain.learn.optimizers import make_optimizer
from ltxtrain.learn.shortage import needs
from ltxtrain.learn.signals import StopFlag
from ltxtrain.plan.records import Plan
from ltxtrain.train import iter_train
from ltxtrain.training import step as training_step
from ltxtrain.training import trial
from ltxtrain.training.memory import measured_loading
from ltxtrain.units import format_bytes
from tests.allocations import Allocations
from tests.run.driving import adapter_bytes, cached, drain, killed_after, losses, trained

PlanFor = Callable[..., Plan]
MIB = 1024**2
CPU = torch.device("cpu")


def recorded(plan: Plan) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (plan.run_dir / "memory.jsonl").read_text().splitlines()]


def test_every_phase_stands_in_the_run_folder_beside_its_estimate(plan_for: PlanFor, tmp_path: Path) -> None:
    plan = plan_for(cache_dir=tmp_path / "cache", max_train_steps=2, validation_disable="false")
    events = trained(plan)
    lines = recorded(plan)
    phases = ["text embeddings", "latents", "training", "validation"]
    assert [(line["phase"], line["where"]) for line in lines if line["where"] == "probe"] == [
        (phase, "probe") for phase in phases[:3]
    ]
    assert {line["phase"] for line in lines if line["where"] == "run"} == set(phases)
    estimates = {phase.phase: phase.total for phase in plan.memory}
    for line in lines:
        assert line["estimate"] == estimates[line["phase"]] and line["device"] == "cpu"
        assert line["allocated"] is None and line["reserved"] is None, "torch does not count on the CPU"
        assert 100 * MIB < line["device_used"] < 64 * 1024 * MIB
    told = [(event.phase, event.where) for event in events if isinstance(event, MemoryMeasured)]
    assert told == [("training", "probe"), ("validation", "run"), ("training", "run")], "caching told its own before"
    details = {line["phase"]: line["detail"] for line in lines if line["where"] == "probe"}
    assert details["text embeddings"] == "1 caption" and re.fullmatch(r"1 x \d+x\d+@\d+", details["latents"])
    tried = next(line for line in lines if (line["phase"], line["where"]) == ("training", "probe"))
    bucket, clips = trial.largest_batch(plan)
    assert tried["detail"] == f"{clips} x {bucket.key}"


def test_the_trial_leaves_nothing_changed(plan_for: PlanFor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a bit of the weights, of what is learned, nor of anybody's random state."""
    options = {"lora_dropout": 0.2, "gradient_accumulation_steps": 2, "optimizer": "adamw_bf16", "max_train_steps": 2}
    tried = plan_for(output="tried", **options)
    trained(tried)
    before = torch.get_rng_state()
    looked: list[bool] = []
    real = trial.release_memory

    def look(device: torch.device) -> None:
        looked.append(torch.equal(before, torch.get_rng_state()))
        real(device)

    monkeypatch.setattr(trial, "release_memory", look)
    again = plan_for(output="again", **options)
    trained(again)
    assert looked == [True]
    monkeypatch.setattr("ltxtrain.train.try_largest", lambda run, stop: iter(()))
    monkeypatch.setattr("ltxtrain.train.recorded", lambda folder, found: iter(()))
    untried = plan_for(output="untried", **options)
    trained(untried)
    assert adapter_bytes(tried) == adapter_bytes(again) == adapter_bytes(untried)


def test_the_trial_takes_what_the_largest_step_takes(plan_for: PlanFor) -> None:
    """By count of all tensors: the peak of the trial is the peak of the steps after it."""
    plan = plan_for(max_train_steps=3, checkpoint_step_interval=0, ltx_i2v_prob=1.0)
    prepared = cached(plan)
    with Allocations() as counted:
        run = iter_train(plan, prepared, StopFlag())
        peaks: dict[str, int] = {}
        for event in run:
            if isinstance(event, MemoryMeasured) and event.where == "probe":
                peaks["trial"] = counted.peak
                counted.reset_peak()
            if isinstance(event, StepDone):
                peaks["steps"] = max(peaks.get("steps", 0), counted.peak)
    assert peaks["trial"] == pytest.approx(peaks["steps"], rel=0.05)


def test_a_phase_leaves_no_tensor_behind(plan_for: PlanFor, tmp_path: Path) -> None:
    """After caching no model is left; after a validation training holds what it held before."""
    plan = plan_for(cache_dir=tmp_path / "cache", max_train_steps=2, validation_disable="false")
    with Allocations() as counted:
        prepared = cached(plan)
        assert counted.live < 2 * MIB < counted.peak
        held: list[int] = []
        for event in iter_train(plan, prepared, StopFlag()):
            if isinstance(event, MemoryMeasured) and event.where == "run":
                held.append(counted.live)
            if isinstance(event, StepDone):
                held.append(counted.live)
    assert max(held) - min(held) < 1.5 * MIB, held


def test_a_batch_that_does_not_fit_is_told_before_the_first_step(
    plan_for: PlanFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_for()
    prepared = cached(plan)

    def full(*given: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(training_step, "predict_velocity", full)
    with pytest.raises(OutOfMemoryError) as told:
        drain(iter_train(plan, prepared, StopFlag()))
    bucket, clips = trial.largest_batch(plan)
    message = told.value.message
    assert f"train on {clips} x {bucket.key}" in message and "\n" not in message
    needed = next(phase.total for phase in plan.memory if phase.phase == "training")
    assert f"needs about {format_bytes(needed)}, " in message and "could be had" in message
    assert told.value.exit_code == 6 and told.value.hint
    assert not (plan.run_dir / "metrics.jsonl").exists()


def test_what_would_help_most_is_told_with_what_it_saves(plan_for: PlanFor) -> None:
    """Of the released model: by name, nothing of it is loaded."""
    plan = plan_for(
        pretrained_model_name_or_path="Lightricks/LTX-Video-0.9.5", gradient_checkpointing="false", resolution=480
    )
    with pytest.raises(OutOfMemoryError) as told, memory_advice("training on it", needs(plan, "training", CPU)):
        raise torch.OutOfMemoryError("CUDA out of memory")
    options = re.findall(r"(?:set|lower) (\w+)[^,]* \(saves about [\d.]+ [MG]iB\)", told.value.hint or "")
    assert len(options) == 2 and options[0] != options[1], told.value.hint
    needed = next(phase.total for phase in plan.memory if phase.phase == "training")
    assert f"(it needs about {format_bytes(needed)}, " in told.value.message


def test_a_clip_that_does_not_fit_is_the_first_that_is_encoded(
    plan_for: PlanFor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[str] = []
    real = encoders.Encoders.clips

    def noted(self: encoders.Encoders, shape: str, clips: Any, **pieces: bool) -> Any:
        shapes.append(shape)
        return real(self, shape, clips, **pieces)

    monkeypatch.setattr(encoders.Encoders, "clips", noted)
    plan = plan_for(cache_dir=tmp_path / "cache")
    cached(plan)
    sizes = {sample.bucket.key: sample.bucket.tokens for sample in plan.samples}
    assert sizes[shapes[0]] == max(sizes.values())


def as_on_a_gpu(plan: Plan, device: torch.device) -> list[MemoryMeasured]:
    """There what loading takes of main memory is told apart from what the device holds."""
    return measured_loading(plan, torch.device("cuda", 0))


def test_a_finished_run_is_not_tried_again(plan_for: PlanFor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ltxtrain.training.run.measured_loading", as_on_a_gpu)
    plan = plan_for(max_train_steps=1)
    assert losses(trained(plan))
    before = recorded(plan)
    assert [line["phase"] for line in before].count("loading") == 1
    trained(plan)
    assert recorded(plan) == before


def test_another_runs_folder_is_not_written_to(plan_for: PlanFor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ltxtrain.training.run.measured_loading", as_on_a_gpu)
    plan = plan_for(max_train_steps=1)
    trained(plan)
    before = recorded(plan)
    other = plan_for(max_train_steps=2, lora_rank=2)
    assert other.run_dir == plan.run_dir
    with pytest.raises(CheckpointError):
        trained(other)
    assert recorded(plan) == before


def test_a_line_that_a_kill_cut_off_does_not_spoil_the_next(plan_for: PlanFor) -> None:
    plan = plan_for(max_train_steps=2)
    killed_after(plan, 1)
    file = plan.run_dir / "memory.jsonl"
    whole = recorded(plan)
    file.write_text(file.read_text() + '{"phase": "trai')
    trained(plan)
    assert recorded(plan)[: len(whole)] == whole and recorded(plan)[-1]["phase"] == "training"


def fails_at(number: int, real: Callable[..., Any]) -> Callable[..., Any]:
    """``real``, until it is called for the ``number``-th time."""
    calls = count(1)

    def call(*given: Any, **named: Any) -> Any:
        if next(calls) == number:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return real(*given, **named)

    return call


def test_an_update_that_does_not_fit_is_told_like_all_else(plan_for: PlanFor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial takes two steps; the third one is the run's first. Clipping is part of it."""
    plan = plan_for(max_train_steps=2)
    prepared = cached(plan)
    with monkeypatch.context() as patched:
        patched.setattr(torch.optim.AdamW, "step", fails_at(3, torch.optim.AdamW.step))
        with pytest.raises(OutOfMemoryError, match="while training on "):
            drain(iter_train(plan, prepared, StopFlag()))
    with monkeypatch.context() as patched:
        patched.setattr(training_step, "clip_gradients", fails_at(1, training_step.clip_gradients))
        with pytest.raises(OutOfMemoryError, match="while training on "):
            drain(iter_train(plan, prepared, StopFlag()))


def test_a_state_that_does_not_fit_when_a_run_goes_on_is_told(
    plan_for: PlanFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(plan_for(max_train_steps=1))
    monkeypatch.setattr("ltxtrain.train.load_optimizer_tensors", fails_at(1, iter))
    with pytest.raises(OutOfMemoryError, match="while putting the checkpoint's state back"):
        trained(plan_for(max_train_steps=2))


def test_the_trial_pages_nothing(plan_for: PlanFor, monkeypatch: pytest.MonkeyPatch) -> None:
    """bitsandbytes keeps what it has paged for as long as the process lives."""
    pytest.importorskip("bitsandbytes")
    paged: list[bool] = []

    def made(*given: Any) -> Any:
        optimizer = make_optimizer(*given)
        optimizer.is_paged = True  # as it is on a GPU
        optimizer.register_step_pre_hook(lambda paging, args, kwargs: paged.append(paging.is_paged))
        return optimizer

    monkeypatch.setattr(trial, "make_optimizer", made)
    trained(plan_for(max_train_steps=1, optimizer="bnb-adamw8bit-paged"))
    assert paged == [False, False]
