"""Caching: what is there is kept, what was damaged or has changed is made again, and a kill costs one entry at most."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ltxtrain.caching import encoders
from ltxtrain.caching.encoders import Encoders
from ltxtrain.data.cache_keys import PromptsRule, text_rules
from ltxtrain.data.claims import Claims
from ltxtrain.errors import DataError, Interrupted
from ltxtrain.events import Event, MemoryMeasured, Notice, StageDone, StageProgress, StageStarted
from ltxtrain.learn.signals import StopFlag
from ltxtrain.model.arithmetic import set_tf32
from ltxtrain.model.folder import COMPONENTS, locate_model
from ltxtrain.model.text import MAX_TOKENS
from ltxtrain.plan.records import Plan
from ltxtrain.precompute import Filling, iter_precompute
from ltxtrain.train import iter_train
from tests.run.driving import cached, drain

PlanFor = Callable[..., Plan]


@pytest.fixture
def clips(shared: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    shutil.copytree(next((shared / "clips").iterdir()), folder)
    return folder


def encoded(plan: Plan) -> dict[str, int]:
    """How many entries each stage had to make."""
    events: list[Event] = []
    drain(iter_precompute(plan, StopFlag()), events)
    started = {event.stage: event for event in events if isinstance(event, StageStarted)}
    return {stage: (started[stage].total or 0) - started[stage].done for stage in ("text embeddings", "latents")}


def test_a_second_run_encodes_nothing(plan_for: PlanFor, clips: Path, tmp_path: Path) -> None:
    plan = plan_for(data=clips, cache_dir=tmp_path / "cache")
    assert encoded(plan) == {"text embeddings": 5, "latents": 4}  # four captions and the empty one
    assert encoded(plan) == {"text embeddings": 0, "latents": 0}


def test_latents_have_the_shape_and_spread_that_training_expects(plan_for: PlanFor, clips: Path) -> None:
    plan = plan_for(data=clips)
    prepared = cached(plan)
    for sample in plan.samples:
        latents = prepared.latents(sample)
        bucket = sample.bucket
        assert latents.shape == (128, bucket.latent_frames, bucket.latent_height, bucket.latent_width)
        assert 0.5 < float(latents.std()) < 2.0, "normalised with the VAE's own mean and deviation"


def test_prompt_embeddings_keep_their_mask(plan_for: PlanFor, clips: Path) -> None:
    plan = plan_for(data=clips)
    prepared = cached(plan)
    tensors = prepared.prompt(plan.samples[0].captions[0])
    assert tensors["embeds"].shape[0] == tensors["mask"].shape[0] == MAX_TOKENS
    assert tensors["mask"].dtype == torch.bool and 0 < int(tensors["mask"].sum()) < MAX_TOKENS


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"num_frames": 9}, {"text embeddings": 0, "latents": 4}),
        ({"mixed_precision": "bf16", "lora_rank": 2}, {"text embeddings": 5, "latents": 0}),
    ],
)
def test_only_what_changes_an_entry_makes_it_anew(
    plan_for: PlanFor, clips: Path, tmp_path: Path, options: dict[str, Any], expected: dict[str, int]
) -> None:
    """A case each; tests/data/test_cache_keys.py has all of them."""
    encoded(plan_for(data=clips, cache_dir=tmp_path / "cache"))
    assert encoded(plan_for(data=clips, cache_dir=tmp_path / "cache", **options)) == expected


def test_moved_and_renamed_clips_are_not_encoded_again(plan_for: PlanFor, clips: Path, tmp_path: Path) -> None:
    encoded(plan_for(data=clips, cache_dir=tmp_path / "cache"))
    moved = tmp_path / "elsewhere"
    clips.rename(moved)
    assert encoded(plan_for(data=moved, cache_dir=tmp_path / "cache")) == {"text embeddings": 0, "latents": 0}


def test_replaced_clips_and_edited_captions_are_encoded_again(plan_for: PlanFor, clips: Path, tmp_path: Path) -> None:
    encoded(plan_for(data=clips, cache_dir=tmp_path / "cache"))
    first, second = sorted(clips.glob("*.mp4"))[:2]
    shutil.copy(second, first)  # other bytes under the old name; they are in the cache as the second clip's
    second.with_suffix(".txt").write_text("something else\n")
    third = sorted(clips.glob("*.mp4"))[2]
    third.write_bytes(third.read_bytes() + b"\0")
    assert encoded(plan_for(data=clips, cache_dir=tmp_path / "cache")) == {"text embeddings": 1, "latents": 1}


def test_a_damaged_entry_is_made_again(plan_for: PlanFor, clips: Path, tmp_path: Path) -> None:
    plan = plan_for(data=clips, cache_dir=tmp_path / "cache")
    cached(plan)
    path = next((tmp_path / "cache" / "latents").rglob("*.safetensors"))
    good = path.read_bytes()
    path.write_bytes(good[:-7])
    assert encoded(plan) == {"text embeddings": 0, "latents": 1}
    assert path.read_bytes() == good


@pytest.mark.parametrize("scanned", [True, False])
def test_a_flipped_byte_is_found_at_the_start_where_entries_are_scanned(
    plan_for: PlanFor, clips: Path, tmp_path: Path, scanned: bool
) -> None:
    entry: dict[str, Any] = {
        "id": "a",
        "instance_data_dir": str(clips),
        "scan_for_errors": scanned,
        "crop_style": "center",
    }
    entry["video"] = {"num_frames": 9}
    (tmp_path / "sets.json").write_text(json.dumps([entry]))
    plan = plan_for(data_backend_config=tmp_path / "sets.json", cache_dir=tmp_path / "cache")
    encoded(plan)
    entries = sorted((tmp_path / "cache" / "latents").rglob("*.safetensors"))
    whole = [path.read_bytes() for path in entries]
    for path, content in zip(entries, whole, strict=True):
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert encoded(plan)["latents"] == (len(entries) if scanned else 0)
    assert ([path.read_bytes() for path in entries] == whole) is scanned, "what was found is made anew"


@pytest.mark.parametrize("after", [1, 3])
def test_caching_goes_on_where_it_was_dropped(plan_for: PlanFor, clips: Path, tmp_path: Path, after: int) -> None:
    plan = plan_for(data=clips, cache_dir=tmp_path / "cache")
    for event in iter_precompute(plan, StopFlag()):
        if isinstance(event, StageProgress) and event.stage == "latents" and event.done == after:
            break
    assert encoded(plan) == {"text embeddings": 0, "latents": 4 - after}


def test_a_stop_is_heard_between_two_entries(plan_for: PlanFor, clips: Path, tmp_path: Path) -> None:
    plan = plan_for(data=clips, cache_dir=tmp_path / "cache")
    stop = StopFlag()
    with pytest.raises(Interrupted, match="kept") as stopped:
        for event in iter_precompute(plan, stop):
            if isinstance(event, StageProgress) and event.stage == "latents" and event.done == 2:
                stop.request(15)
    assert stopped.value.exit_code == 143
    assert encoded(plan) == {"text embeddings": 0, "latents": 2}


def test_captions_that_are_too_long_are_told(plan_for: PlanFor, clips: Path, tmp_path: Path) -> None:
    next(clips.glob("*.txt")).write_text("word " * 400)
    events: list[Event] = []
    drain(iter_precompute(plan_for(data=clips, cache_dir=tmp_path / "cache"), StopFlag()), events)
    [told] = [e.message for e in events if isinstance(e, Notice) and e.level == "warning"]
    assert told.startswith("one text is longer than 128 tokens and is cut: 'word word")


def test_several_captions_that_are_too_long_are_counted(plan_for: PlanFor, clips: Path, tmp_path: Path) -> None:
    for number, caption in enumerate(sorted(clips.glob("*.txt"))[:2]):
        caption.write_text(f"word{number} " * 400)
    events: list[Event] = []
    drain(iter_precompute(plan_for(data=clips, cache_dir=tmp_path / "cache"), StopFlag()), events)
    [told] = [e.message for e in events if isinstance(e, Notice) and e.level == "warning"]
    assert told.startswith("2 of the texts are longer than 128 tokens and are cut, such as")


def test_a_caption_that_is_too_long_is_told_once_when_training_encodes_it(
    plan_for: PlanFor, clips: Path, tmp_path: Path
) -> None:
    next(clips.glob("*.txt")).write_text("word " * 400)
    plan = plan_for(data=clips, cache_dir=tmp_path / "cache", text_cache_ondemand="true", max_train_steps=4)
    events: list[Event] = []
    prepared = drain(iter_precompute(plan, StopFlag()), events)
    drain(iter_train(plan, prepared, StopFlag()), events)
    [told] = [e.message for e in events if isinstance(e, Notice) and e.level == "warning"]
    assert told.startswith("one text is longer than 128 tokens and is cut: 'word word")


def test_a_clip_that_breaks_after_the_plan_is_named(plan_for: PlanFor, clips: Path, tmp_path: Path) -> None:
    plan = plan_for(data=clips, cache_dir=tmp_path / "cache")
    victim = Path(plan.samples[0].path)
    victim.write_bytes(victim.read_bytes()[:900])
    with pytest.raises(DataError, match=victim.name):
        cached(plan)


def test_stages_say_what_they_did(plan_for: PlanFor, clips: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    drain(iter_precompute(plan_for(data=clips, cache_dir=tmp_path / "cache"), StopFlag()), events)
    done = {event.stage: event.detail for event in events if isinstance(event, StageDone)}
    assert done["latents"] == "4 encoded, 0 kept" and done["text embeddings"] == "5 encoded, 0 kept"


def test_what_a_stage_took_is_measured_while_its_model_is_there(
    plan_for: PlanFor, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Apple's GPU keeps no peaks: afterwards there would be nothing to see."""
    seen: list[str] = []
    real = Encoders.release

    def release(self: Encoders) -> None:
        seen.append("released")
        real(self)

    monkeypatch.setattr(Encoders, "release", release)
    for event in iter_precompute(plan_for(data=clips, cache_dir=tmp_path / "cache"), StopFlag()):
        if isinstance(event, MemoryMeasured):
            seen.append(event.where)
    assert seen == ["probe", "run", "released", "probe", "run", "released", "released"]


def test_the_group_that_is_named_is_the_largest_that_is_encoded(plan_for: PlanFor, clips: Path, tmp_path: Path) -> None:
    plan = plan_for(data=clips, cache_dir=tmp_path / "cache", text_encoder_batch_size=2)
    model = locate_model(plan.config.model, plan.cache_dir)
    digests = {part: model.digest(part) for part in COMPONENTS}
    rule = PromptsRule(plan.cache_dir, digests, "torch.float32", MAX_TOKENS)
    *others, last = (rule.entry(text).path for text in text_rules(plan))
    assert len(others) == 4, "two groups of two, and one text that is left"
    tried: list[str] = []
    for lost in (), (last,), (others[0], last):
        for path in lost:
            path.unlink()
        tried += [
            event.detail
            for event in iter_precompute(plan, StopFlag())
            if isinstance(event, MemoryMeasured) and event.where == "probe" and event.phase == "text embeddings"
        ]
    assert tried == ["2 captions", "1 caption", "2 captions"]


@pytest.mark.parametrize("disabled", [True, False])
def test_encoders_compute_with_the_tf32_that_was_asked_for(
    plan_for: PlanFor, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disabled: bool
) -> None:
    """From the first one on: the transformer is loaded after all of them."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    set_tf32(disabled=not disabled)
    found: list[tuple[bool, bool]] = []
    for name in ("encode_prompts", "encode_clips"):
        real = getattr(encoders, name)

        def looked(*given: Any, real: Any = real, **named: Any) -> Any:
            found.append((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))
            return real(*given, **named)

        monkeypatch.setattr(encoders, name, looked)
    try:
        cached(plan_for(data=clips, cache_dir=tmp_path / "cache", disable_tf32=str(disabled).lower()))
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    assert set(found) == {(not disabled, not disabled)} and len(found) > 4


@pytest.mark.parametrize(
    ("options", "text", "latents"),
    [
        ({"mixed_precision": "no", "vae_dtype": "fp32"}, True, True),
        ({"mixed_precision": "bf16", "vae_dtype": "fp32"}, False, True),
        ({"mixed_precision": "no", "vae_dtype": "bf16"}, True, False),
        ({"mixed_precision": "no", "vae_dtype": "fp32", "disable_tf32": "true"}, False, False),
    ],
)
def test_entries_that_tf32_made_are_told_apart_on_cuda_alone(
    plan_for: PlanFor, clips: Path, tmp_path: Path, options: dict[str, str], text: bool, latents: bool
) -> None:
    plan = plan_for(data=clips, cache_dir=tmp_path / "cache", **options)
    model = locate_model(plan.config.model, plan.cache_dir)
    digests = {part: model.digest(part) for part in COMPONENTS}
    made = Encoders(plan, model)
    for device, takes in ((torch.device("cpu"), False), (torch.device("cuda", 0), True)):
        made.device = device
        filling = Filling(plan, made, Claims(plan.cache_dir, lambda: False), digests)
        assert (filling.prompts_rule.tf32, filling.latents_rule.tf32) == (takes and text, takes and latents)
