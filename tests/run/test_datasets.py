"""Runs over several data sets at once: batches, schedules, regularisation, redrawn cuts, and kills in between."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from ltxtrain.errors import CheckpointError
from ltxtrain.events import Event, Notice, StageStarted, StepDone
from ltxtrain.learn.draws import dropout_seed
from ltxtrain.learn.signals import StopFlag
from ltxtrain.plan.order import order_of
from ltxtrain.plan.records import Plan
from ltxtrain.precompute import iter_precompute
from ltxtrain.train import iter_train
from ltxtrain.training.feed import Feed, place_of
from ltxtrain.training.step import compare
from tests.run.driving import adapter_bytes, cached, drain, killed_after, losses, trained

PlanFor = Callable[..., Plan]
ListFor = Callable[..., Path]

SETS: dict[str, dict[str, Any]] = {
    "clips": {"probability": 0.7},
    "cut": {"crop": True, "crop_style": "random", "vae_cache_clear_each_epoch": True},
    "stills": {"dataset_type": "image", "start_step": 3, "end_step": 9},
    "late": {"start_epoch": 2, "train_batch_size": 1, "video": {"is_i2v": False, "num_frames": 9, "min_frames": 9}},
}
MANY = {"max_train_steps": 12, "checkpoint_step_interval": 5, "lora_dropout": 0.1}


def steps(events: list[Event]) -> list[StepDone]:
    return [event for event in events if isinstance(event, StepDone)]


@pytest.fixture
def four(plan_for: PlanFor, list_for: ListFor) -> Callable[[str], Plan]:
    listed = list_for(**SETS)
    return lambda output: plan_for(output=output, data_backend_config=listed, **MANY)


def test_every_step_says_which_data_set_it_was_drawn_from(four: Callable[[str], Plan]) -> None:
    plan = four("out")
    events = steps(trained(plan))
    order = order_of(plan)
    assert [event.dataset for event in events] == [order[index].dataset for index in range(12)]
    assert {event.dataset for event in events} == set(SETS)
    stills = [event.step for event in events if event.dataset == "stills"]
    assert stills and min(stills) >= 3 and max(stills) <= 9
    sizes = {event.dataset: set() for event in events}
    for event in events:
        sizes[event.dataset].add(round(event.samples_per_second * event.seconds))
        assert event.dataset_losses == {event.dataset: pytest.approx(event.loss)}
        assert 0 <= event.data_seconds <= event.seconds
    assert sizes["clips"] == {1, 2}, "three clips in batches of two: the last one is short"
    assert sizes["late"] == {1}
    lines = [json.loads(line) for line in (plan.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [(line["dataset"], line["dataset_losses"]) for line in lines] == [
        (event.dataset, event.dataset_losses) for event in events
    ]


def test_a_kill_at_any_step_changes_nothing_with_several_data_sets(four: Callable[[str], Plan]) -> None:
    straight = four("straight")
    expected = losses(trained(straight))
    broken = four("broken")
    for step in (3, 8):
        killed_after(broken, step)
    trained(broken)
    assert adapter_bytes(broken) == adapter_bytes(straight)
    lines = [json.loads(line) for line in (broken.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["loss"].hex() for line in lines] == expected


def test_each_epoch_of_a_redrawn_data_set_has_other_latents(plan_for: PlanFor, list_for: ListFor) -> None:
    options = {"max_train_steps": 6, "caption_dropout_probability": 0, "train_batch_size": 1}
    still = plan_for(
        output="a", data_backend_config=list_for(cut=SETS["cut"] | {"vae_cache_clear_each_epoch": False}), **options
    )
    plan = plan_for(output="b", data_backend_config=list_for(cut=SETS["cut"]), **options)
    assert plan.samples == still.samples and plan.datasets[0].cache.redrawn
    ours, theirs = losses(trained(plan)), losses(trained(still))
    assert ours[:3] == theirs[:3] and not set(ours[3:]) & set(theirs[3:])
    prepared, order = cached(plan), order_of(plan)
    first, second = ({s.id: s for index in part for s in order[index].samples} for part in (range(3), range(3, 6)))
    assert any(not torch.equal(prepared.latents(first[key]), prepared.latents(second[key])) for key in first)


def latents(cache: Path) -> int:
    return len(list((cache / "latents").rglob("*.safetensors")))


def test_a_run_that_goes_on_in_a_later_epoch_keeps_the_cuts_of_that_epoch_alone(
    plan_for: PlanFor, list_for: ListFor, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    options = {"cache_dir": cache, "train_batch_size": 1, "max_train_steps": 9, "checkpoint_step_interval": 4}
    plan = plan_for(data_backend_config=list_for(cut=SETS["cut"]), **options)
    killed_after(plan, 5)
    events: list[Event] = []
    cached(plan_for(output="other", data_backend_config=list_for(cut=SETS["cut"]), **options))
    before = latents(cache)
    prepared = drain(iter_precompute(plan, StopFlag()), events)
    assert [event.total for event in events if isinstance(event, StageStarted) and event.stage == "latents"] == [0]
    assert latents(cache) == before >= 5, (
        "the first epoch's cuts, which another run asked for, and some of the second's"
    )
    told = [event for event in iter_train(plan, prepared, StopFlag()) if isinstance(event, Notice)]
    assert latents(cache) == 3 and [event.level for event in told] == ["info"]
    longer = plan_for(data_backend_config=list_for(cut=SETS["cut"]), **options | {"max_train_steps": 11})
    trained(longer)
    assert latents(cache) <= 3


def test_cuts_of_a_data_set_that_begins_later_are_not_encoded_up_front(
    plan_for: PlanFor, list_for: ListFor, tmp_path: Path
) -> None:
    plan = plan_for(
        data_backend_config=list_for(
            late={"video": {"num_frames": 9, "min_frames": 9}}, cut=SETS["cut"] | {"start_epoch": 2}
        ),
        cache_dir=tmp_path / "cache",
        max_train_steps=8,
    )
    prepared = cached(plan)
    assert latents(tmp_path / "cache") == 5
    events = list(iter_train(plan, prepared, StopFlag()))
    assert "cut" in {event.dataset for event in steps(events)}
    assert not [event for event in events if isinstance(event, Notice)]
    assert latents(tmp_path / "cache") == 5 + 3


def test_each_sample_of_a_step_counts_the_same(plan_for: PlanFor, homes: dict[str, Path]) -> None:
    """A step of a batch of two and a batch of one: its gradient is the mean of three, not of two means."""
    plan = plan_for(data=homes["clips"], gradient_accumulation_steps=2, max_train_steps=1)
    training = iter_train(plan, cached(plan), StopFlag())
    for event in training:
        if isinstance(event, StageStarted) and event.stage == "training":
            break
    run = training.gi_frame.f_locals["run"]  # type: ignore[attr-defined]
    seen = []
    with closing(Feed(run, 0)) as feed:
        for batch in (run.order[0], run.order[1]):
            with dropout_seed(place_of(run, batch), run.device):
                loss_B = compare(run, feed.take(batch))
                (loss_B.sum() / 3).backward()
            seen += loss_B.tolist()
    norm = sum(float((parameter.grad**2).sum()) for parameter in run.parameters.values()) ** 0.5
    run.optimizer.zero_grad()
    step = steps(list(training))[0]
    assert len(seen) == 3
    assert step.loss == pytest.approx(sum(seen) / 3)
    assert step.grad_norm == pytest.approx(norm, rel=1e-5)


def test_a_run_of_epochs_ends_with_a_short_step_and_shows_nothing_once_more(
    plan_for: PlanFor, homes: dict[str, Path]
) -> None:
    options = {"max_train_steps": 0, "num_train_epochs": 3, "train_batch_size": 1, "gradient_accumulation_steps": 2}
    straight = plan_for(output="straight", data=homes["clips"], **options)
    events = steps(trained(straight))
    assert [round(event.samples_per_second * event.seconds) for event in events] == [2, 2, 2, 2, 1]
    assert events[-1].epoch == 2
    broken = plan_for(output="broken", data=homes["clips"], **options)
    killed_after(broken, 4)
    trained(broken)
    assert adapter_bytes(broken) == adapter_bytes(straight)


def test_regularisation_holds_the_model_where_it_was(plan_for: PlanFor, list_for: ListFor) -> None:
    """At the start the adapter changes nothing, so there is nothing to hold back; afterwards it is drawn back."""
    options = {"max_train_steps": 4, "checkpoint_step_interval": 0, "lr_scheduler": "constant"}
    alone = plan_for(output="alone", data_backend_config=list_for(clips={"is_regularisation_data": True}), **options)
    assert {event.loss for event in steps(trained(alone))} == {0.0}
    listed = list_for(clips={}, late={"is_regularisation_data": True, "start_step": 3, "probability": 9})
    events = steps(trained(plan_for(output="both", data_backend_config=listed, **options)))
    held = [event for event in events if event.dataset == "late"]
    assert held and all(0 < event.loss < 0.5 for event in held)
    assert min(event.loss for event in events if event.dataset == "clips") > 0.5


def test_a_timestep_offset_moves_the_noise_of_its_data_set_alone(plan_for: PlanFor, list_for: ListFor) -> None:
    def bands(name: str, **late: Any) -> dict[str, set[str]]:
        listed = list_for(clips={}, late={"train_batch_size": 1, **late})
        found: dict[str, set[str]] = {}
        for event in steps(trained(plan_for(output=name, data_backend_config=listed, max_train_steps=8))):
            found.setdefault(event.dataset, set()).update(event.sigma_bands)
        return found

    plain, moved = bands("plain"), bands("moved", timestep_sampling_offset=8)
    assert moved["late"] == {"0.75-1.00"} != plain["late"]
    assert moved["clips"] == plain["clips"]


def test_first_frame_conditioning_is_a_matter_of_each_data_set(plan_for: PlanFor, list_for: ListFor) -> None:
    def by_set(name: str, **options: Any) -> dict[str, list[float]]:
        sets = {"clips": {"video": {"is_i2v": True}}, "late": {"video": {"is_i2v": False}}}
        plan = plan_for(
            output=name, data_backend_config=list_for(**sets), max_train_steps=5, learning_rate=1e-9, **options
        )
        found: dict[str, list[float]] = {"clips": [], "late": []}
        for event in steps(trained(plan)):
            found[event.dataset].append(round(event.loss, 5))
        return found

    never, always = by_set("never", ltx_i2v_prob=0), by_set("always", ltx_i2v_prob=1)
    assert never["late"] == always["late"] != []
    assert not set(never["clips"]) & set(always["clips"])


def test_changed_settings_of_a_data_set_are_told(plan_for: PlanFor, list_for: ListFor) -> None:
    trained(plan_for(data_backend_config=list_for(clips={}, late={}), max_train_steps=2))
    changed = plan_for(data_backend_config=list_for(clips={"probability": 0.25}, late={}), max_train_steps=3)
    told = [event.message for event in trained(changed) if isinstance(event, Notice)]
    assert any("clips.schedule.weight 1.0 -> 0.25" in message for message in told)


def test_another_data_set_is_another_run(plan_for: PlanFor, list_for: ListFor) -> None:
    trained(plan_for(data_backend_config=list_for(clips={}), max_train_steps=1))
    with pytest.raises(CheckpointError, match="another set of clips"):
        trained(plan_for(data_backend_config=list_for(clips={}, late={}), max_train_steps=1))


def test_a_damaged_entry_met_in_training_is_encoded_again_and_told(plan_for: PlanFor, tmp_path: Path) -> None:
    plan = plan_for(cache_dir=tmp_path / "cache", max_train_steps=4)
    prepared = cached(plan)
    for path in (tmp_path / "cache" / "latents").rglob("*.safetensors"):
        content = bytearray(path.read_bytes())
        content[-9] ^= 1
        path.write_bytes(content)
    events = list(iter_train(plan, prepared, StopFlag()))
    told = [event.message for event in events if isinstance(event, Notice) and event.level == "warning"]
    assert len([message for message in told if "damaged and is encoded again" in message]) == 4
    undisturbed = plan_for(output="undisturbed", max_train_steps=4)
    trained(undisturbed)
    assert adapter_bytes(plan) == adapter_bytes(undisturbed)
