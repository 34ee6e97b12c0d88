"""A run that is killed, at whatever instant, ends with the bytes of one that was not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ltxtrain.errors import CheckpointError, Interrupted
from ltxtrain.events import CheckpointSaved, Notice, RunFinished, StageStarted, StepDone, VideoRendered
from ltxtrain.learn.lock import only_process
from ltxtrain.learn.signals import StopFlag
from ltxtrain.plan.records import Plan
from ltxtrain.train import check_run_folder, iter_train
from tests.run.driving import adapter_bytes, cached, drain, killed_after, losses, trained

PlanFor = Callable[..., Plan]
MANY = {
    "max_train_steps": 7,
    "checkpoint_step_interval": 3,
    "lora_dropout": 0.1,
    "lr_scheduler": "cosine",
    "lr_warmup_steps": 2,
}


@pytest.fixture(scope="module")
def undisturbed() -> dict[int, tuple[bytes, list[str]]]:
    """The adapter and the losses of each accumulation, trained once."""
    return {}


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("killed_at", [1, 3, 4, 6])
def test_a_killed_run_ends_with_the_same_bytes_and_losses(
    plan_for: PlanFor, undisturbed: dict[int, tuple[bytes, list[str]]], killed_at: int, accumulation: int
) -> None:
    options = MANY | {"gradient_accumulation_steps": accumulation}
    if accumulation not in undisturbed:
        whole = plan_for(output="undisturbed", **options)
        found = losses(trained(whole))
        undisturbed[accumulation] = adapter_bytes(whole), found
    adapter, expected = undisturbed[accumulation]

    disturbed = plan_for(output="disturbed", **options)
    killed_after(disturbed, killed_at)
    trained(disturbed)

    assert adapter_bytes(disturbed) == adapter
    lines = [json.loads(line) for line in (disturbed.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 8)), "one line a step, none twice, none missing"
    assert [line["loss"].hex() for line in lines] == expected


def test_a_kill_changes_nothing_where_sets_are_held_out_on_demand_and_redrawn_and_steps_accumulate(
    plan_for: PlanFor, list_for: Callable[..., Path], tmp_path: Path
) -> None:
    """Each history has a cache of its own, so that what one of them encodes late is not there for the other."""
    short = {"num_frames": 9, "min_frames": 9}
    sets = {
        "clips": {"probability": 0.7, "repeats": 1},
        "cut": {"crop": True, "crop_style": "random", "train_batch_size": 1, "video": short},
        "late": {"start_epoch": 2, "vae_cache_ondemand": True, "text_cache_ondemand": True, "video": short},
        "held": {"dataset_type": "eval", "crop": True, "video": short},
    }
    listed = list_for(**sets)
    options = {
        "max_train_steps": 0,
        "num_train_epochs": 2,
        "gradient_accumulation_steps": 2,
        "lora_dropout": 0.1,
        "eval_steps_interval": 3,
        "eval_timesteps": 2,
        "num_eval_images": 1,
    }

    def plan_of(output: str) -> Plan:
        return plan_for(output=output, cache_dir=tmp_path / f"cache-{output}", data_backend_config=listed, **options)

    def lines(plan: Plan, name: str) -> list[dict[str, object]]:
        taken = ("seconds", "samples_per_second", "data_seconds", "memory_bytes", "tflops", "mfu")
        found = [json.loads(line) for line in (plan.run_dir / name).read_text().splitlines()]
        return [{key: value for key, value in line.items() if key not in taken} for line in found]

    straight, broken = plan_of("straight"), plan_of("broken")
    seen = {event.dataset for event in trained(straight) if isinstance(event, StepDone)}
    assert {"clips", "cut", "late"} <= set(", ".join(seen).split(", ")) and straight.steps == 8
    for step in (straight.steps // 2 + 1, straight.steps):
        killed_after(broken, step)
    trained(broken)
    assert adapter_bytes(broken) == adapter_bytes(straight)
    for name in ("metrics.jsonl", "evaluations.jsonl"):
        assert lines(broken, name) == lines(straight, name)
    names = [
        sorted(path.name for path in (tmp_path / f"cache-{n}").rglob("*.safetensors")) for n in ("straight", "broken")
    ]
    assert names[0] == names[1], "and the same entries are left"


def test_a_run_that_is_killed_again_and_again_still_ends_the_same(plan_for: PlanFor) -> None:
    undisturbed = plan_for(output="undisturbed", max_train_steps=6, checkpoint_step_interval=1)
    trained(undisturbed)
    disturbed = plan_for(output="disturbed", max_train_steps=6, checkpoint_step_interval=1)
    for step in (1, 3, 4, 5):
        killed_after(disturbed, step)
    trained(disturbed)
    assert adapter_bytes(disturbed) == adapter_bytes(undisturbed)


def test_a_stop_saves_the_step_it_came_in(plan_for: PlanFor) -> None:
    """When the third step is told, the fourth is under way."""
    plan = plan_for(max_train_steps=6, checkpoint_step_interval=100)
    stop = StopFlag()
    with pytest.raises(Interrupted, match="step 4 of 6 is saved") as stopped:
        for event in iter_train(plan, cached(plan), stop):
            if isinstance(event, StepDone) and event.step == 3:
                stop.request(15)
    assert stopped.value.exit_code == 143
    assert (plan.run_dir / "checkpoints" / "step-00000004" / "MANIFEST.json").exists()
    lines = [json.loads(line)["step"] for line in (plan.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert lines == [1, 2, 3, 4]
    history = [entry["event"] for entry in json.loads((plan.run_dir / "run.json").read_text())["events"]]
    assert history == ["start", "interrupted"]

    straight = plan_for(output="straight", max_train_steps=6, checkpoint_step_interval=100)
    trained(straight)
    trained(plan)
    assert adapter_bytes(plan) == adapter_bytes(straight)


def test_a_stop_in_validation_loses_no_step(plan_for: PlanFor) -> None:
    plan = plan_for(
        max_train_steps=4, checkpoint_step_interval=100, validation_disable="false", validation_step_interval=2
    )
    stop = StopFlag()
    seen = []
    with pytest.raises(Interrupted):
        for event in iter_train(plan, cached(plan), stop):
            seen.append(event)
            in_validation = isinstance(event, StageStarted) and event.stage == "validation"
            if in_validation and any(isinstance(e, StepDone) and e.step == 2 for e in seen):
                stop.request(2)
    assert [event.step for event in seen if isinstance(event, CheckpointSaved)] == [2], "though none was due"
    assert not any(isinstance(event, VideoRendered) and event.step == 2 for event in seen)

    events = trained(plan)
    assert {event.step for event in events if isinstance(event, VideoRendered)} == {2, 4}, (
        "what was left out is made up"
    )


def test_validation_changes_no_weight(plan_for: PlanFor) -> None:
    without = plan_for(output="without", lora_dropout=0.1)
    trained(without)
    every_step = plan_for(
        output="with",
        lora_dropout=0.1,
        validation_disable="false",
        validation_step_interval=1,
        disable_benchmark="false",
    )
    events = trained(every_step)
    assert len([event for event in events if isinstance(event, VideoRendered)]) == 1 + every_step.steps
    assert adapter_bytes(every_step) == adapter_bytes(without)


def test_a_finished_run_started_again_trains_nothing(plan_for: PlanFor) -> None:
    plan = plan_for()
    trained(plan)
    before = adapter_bytes(plan)
    events = trained(plan)
    assert not [event for event in events if isinstance(event, StepDone)]
    assert adapter_bytes(plan) == before


def test_a_longer_run_goes_on_from_a_finished_one(plan_for: PlanFor) -> None:
    trained(plan_for(max_train_steps=2))
    longer = plan_for(max_train_steps=4)
    events = trained(longer)
    assert [event.step for event in events if isinstance(event, StepDone)] == [3, 4]
    told = [event.message for event in events if isinstance(event, Notice)]
    assert any("max_train_steps 2 -> 4" in message for message in told)


def test_changed_settings_are_told_and_apply(plan_for: PlanFor) -> None:
    options = {"lr_scheduler": "constant", "lr_warmup_steps": 0}
    trained(plan_for(max_train_steps=2, learning_rate=0.001, **options))
    events = trained(plan_for(max_train_steps=4, learning_rate=0.0007, **options))
    assert any("learning_rate 0.001 -> 0.0007" in e.message for e in events if isinstance(e, Notice))
    assert {event.lr for event in events if isinstance(event, StepDone)} == {0.0007}


def test_other_clips_in_the_same_run_folder_are_refused(plan_for: PlanFor, shared: Path, tmp_path: Path) -> None:
    trained(plan_for())
    fewer = tmp_path / "fewer"
    shutil.copytree(next((shared / "clips").iterdir()), fewer)
    next(fewer.glob("*.mp4")).unlink()
    other = plan_for(data=fewer)
    plan_json = other.run_dir / "plan.json"
    before = plan_json.read_bytes()
    with pytest.raises(CheckpointError, match="another set of clips"):
        trained(other)
    assert plan_json.read_bytes() == before, "the run that is there is left as it was"


@pytest.mark.parametrize(("option", "value", "part"), [("lora_rank", 4, "adapter"), ("lora_alpha", 3, "adapter")])
def test_another_adapter_in_the_same_run_folder_is_refused(
    plan_for: PlanFor, option: str, value: int, part: str
) -> None:
    trained(plan_for())
    with pytest.raises(CheckpointError, match=f"another {part}"):
        trained(plan_for(**{option: value}))


def test_an_empty_resume_starts_afresh_and_keeps_what_was_there(plan_for: PlanFor) -> None:
    trained(plan_for())
    again = plan_for(resume_from_checkpoint="")
    events = trained(again)
    assert [event.step for event in events if isinstance(event, StepDone)] == [1, 2, 3, 4]
    aside = [path.name for path in (again.run_dir / "checkpoints").iterdir() if path.name.startswith("superseded")]
    assert len(aside) == 2


def test_a_damaged_newest_checkpoint_is_put_aside_and_the_one_before_is_used(plan_for: PlanFor) -> None:
    undisturbed = plan_for(output="undisturbed", max_train_steps=6)
    trained(undisturbed)
    plan = plan_for(max_train_steps=6)
    killed_after(plan, 5)
    weights = plan.run_dir / "checkpoints" / "step-00000004" / "adapter.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    events = trained(plan)
    told = [event.message for event in events if isinstance(event, Notice)]
    assert any("step-00000004 is damaged" in message for message in told)
    assert next(event.step for event in events if isinstance(event, StepDone)) == 3
    assert adapter_bytes(plan) == adapter_bytes(undisturbed)


def test_old_checkpoints_are_removed_only_beyond_the_limit(plan_for: PlanFor) -> None:
    plan = plan_for(max_train_steps=6, checkpoint_step_interval=1, checkpoints_total_limit=2)
    trained(plan)
    assert sorted(path.name for path in (plan.run_dir / "checkpoints").iterdir()) == ["step-00000005", "step-00000006"]


def test_a_checkpoint_is_also_due_by_time(plan_for: PlanFor) -> None:
    plan = plan_for(max_train_steps=3, checkpoint_step_interval=0, checkpoint_minutes=0.00001)
    events = trained(plan)
    assert [event.step for event in events if isinstance(event, CheckpointSaved)] == [1, 2, 3]


def test_a_listener_gets_the_whole_story_in_order(plan_for: PlanFor) -> None:
    plan = plan_for()
    events: list[object] = []
    drain(iter_train(plan, cached(plan), StopFlag()), events)  # type: ignore[arg-type]
    names = [type(event).__name__ for event in events]
    assert names[:3] == ["StageStarted", "StageDone", "StageStarted"]
    assert names[-1] == "RunFinished"
    assert names.index("StepDone") < names.index("CheckpointSaved")


def checkpoints(plan: Plan) -> list[str]:
    return sorted(path.name for path in (plan.run_dir / "checkpoints").iterdir())


def test_a_checkpoint_of_another_adapter_is_refused_and_nothing_is_put_aside(plan_for: PlanFor) -> None:
    plan, other = plan_for(), plan_for(output="other", lora_rank=2)
    trained(plan)
    trained(other)
    foreign = other.run_dir / "checkpoints" / "step-00000004"
    before = checkpoints(plan)
    with pytest.raises(CheckpointError, match="another adapter"):
        trained(plan_for(resume_from_checkpoint=str(foreign)))
    assert checkpoints(plan) == before


def test_a_checkpoint_taken_over_from_another_run_is_this_ones_at_once(plan_for: PlanFor) -> None:
    other = plan_for(output="other", max_train_steps=6)
    trained(other)
    foreign = str(other.run_dir / "checkpoints" / "step-00000002")
    killed_after(plan_for(max_train_steps=6, checkpoint_step_interval=0, resume_from_checkpoint=foreign), 3)
    plan = plan_for(max_train_steps=6)
    events = trained(plan)
    assert next(event.step for event in events if isinstance(event, StepDone)) == 3
    assert adapter_bytes(plan) == adapter_bytes(other)


def test_a_second_process_on_the_run_folder_is_refused(plan_for: PlanFor) -> None:
    plan = plan_for()
    with only_process(plan.run_dir), pytest.raises(CheckpointError, match="in use by another process"):
        trained(plan)
    trained(plan)  # and when the first has left, it goes on


def test_clips_may_go_once_they_are_cached(plan_for: PlanFor, shared: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    shutil.copytree(next((shared / "clips").iterdir()), clips)
    plan = plan_for(data=clips)
    seen = []
    for event in iter_train(plan, cached(plan), StopFlag()):
        if isinstance(event, StepDone) and event.step == 1:
            shutil.rmtree(clips)
        seen.append(event)
    assert isinstance(seen[-1], RunFinished)


def test_a_changed_seed_is_told(plan_for: PlanFor) -> None:
    trained(plan_for(max_train_steps=2))
    events = trained(plan_for(max_train_steps=4, seed=7))
    assert any("seed 42 -> 7" in event.message for event in events if isinstance(event, Notice))


def test_a_finished_run_renders_another_prompt_when_asked_for_it(plan_for: PlanFor) -> None:
    trained(plan_for(validation_disable="false", validation_prompt="one"))
    same = trained(plan_for(validation_disable="false", validation_prompt="one"))
    other = trained(plan_for(validation_disable="false", validation_prompt="two"))
    assert not [event for event in same if isinstance(event, VideoRendered)]
    assert [event.prompt for event in other if isinstance(event, VideoRendered)] == ["two"]


def test_going_back_puts_later_checkpoints_and_videos_aside(plan_for: PlanFor) -> None:
    options = {"validation_disable": "false", "validation_step_interval": 2}
    trained(plan_for(**options))
    back = plan_for(resume_from_checkpoint=2, **options)
    events = trained(back)
    assert [event.step for event in events if isinstance(event, StepDone)] == [3, 4]
    names = [path.name.rsplit("-", 1)[0] for path in (back.run_dir / "samples").iterdir()]
    assert "superseded-step-00000004" in names


def test_a_run_past_the_plans_end_is_refused(plan_for: PlanFor) -> None:
    trained(plan_for(max_train_steps=4))
    shorter = plan_for(max_train_steps=2)
    with pytest.raises(CheckpointError, match="at step 4 already, past the 2 steps"):
        trained(shorter)
    assert checkpoints(shorter) == ["step-00000002", "step-00000004"]


def test_another_runs_folder_is_told_before_any_work(plan_for: PlanFor) -> None:
    check_run_folder(plan_for())
    trained(plan_for())
    check_run_folder(plan_for())
    with pytest.raises(CheckpointError, match="another adapter"):
        check_run_folder(plan_for(lora_rank=2))
    check_run_folder(plan_for(lora_rank=2, resume_from_checkpoint=""))
    with pytest.raises(CheckpointError, match="state of torch-adamw, which torch-sgd cannot go on from") as caught:
        check_run_folder(plan_for(optimizer="torch-sgd"))
    assert "--optimizer torch-adamw" in str(caught.value.hint)
    check_run_folder(plan_for(optimizer="torch-sgd", resume_from_checkpoint=""))


def test_a_finished_run_keeps_the_record_of_what_made_it(plan_for: PlanFor) -> None:
    plan = plan_for(learning_rate=0.002)
    trained(plan)
    before = {name: (plan.run_dir / name).read_bytes() for name in ("run.json", "config.toml", "plan.json")}
    trained(plan_for(learning_rate=0.5))
    assert {name: (plan.run_dir / name).read_bytes() for name in before} == before
