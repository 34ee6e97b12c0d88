"""Encoding several at once: the same bits whatever was killed in between, and smaller batches for small GPUs."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from ltxtrain.caching import encoders
from ltxtrain.data import frames
from ltxtrain.data.cache_groups import Place, grouped
from ltxtrain.data.store import Entry
from ltxtrain.errors import DataError, OutOfMemoryError
from ltxtrain.events import Event, Notice, StageDone, StageProgress, StageStarted
from ltxtrain.facts.quarantine import read_quarantine
from ltxtrain.learn.signals import StopFlag
from ltxtrain.plan.records import Plan
from ltxtrain.precompute import FaultyClips, iter_precompute, used_entries
from tests.run.driving import cached, drain

PlanFor = Callable[..., Plan]


def contents(plan: Plan) -> dict[str, bytes]:
    files = (plan.cache_dir / kind for kind in ("latents", "prompts"))
    return {path.name: path.read_bytes() for folder in files for path in folder.rglob("*.safetensors")}


def events_of(plan: Plan) -> list[Event]:
    events: list[Event] = []
    drain(iter_precompute(plan, StopFlag()), events)
    return events


def test_groups_are_cut_from_all_items_in_order_and_hold_each_entry_once() -> None:
    def entry_of(item: str) -> Entry:
        return Entry(Path(item), item[0])

    groups = grouped(["a1", "B1", "c1", "a2", "D1", "e1", "f1"], entry_of, lambda item: Place(item[0].isupper(), 2))
    assert [group.items for group in groups] == [("a1", "c1"), ("B1", "D1"), ("e1", "f1")]
    assert len({key for group in groups for key in group.claims}) == 6
    [alone] = grouped(["a1"], entry_of, lambda item: Place("", 4))
    assert alone.claims == ("a",), "so that runs with another batch size find it"


def test_a_kill_or_a_lost_entry_changes_no_bit_of_batches(plan_for: PlanFor, shared: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    shutil.copytree(next((shared / "clips").iterdir()), clips)
    options = {"data": clips, "vae_batch_size": 3, "text_encoder_batch_size": 2}
    whole = plan_for(cache_dir=tmp_path / "whole", **options)  # in fp32, where a batch changes the last bits
    assert len({sample.bucket for sample in whole.samples}) == 1, "one bucket: a batch of three, and one of one"
    cached(whole)
    expected = contents(whole)
    used = {path.name for path in used_entries(whole)}
    assert set(expected) < used and len(used) == 2 * len(expected), "those of a GPU's TF32 are kept as well"
    broken = plan_for(cache_dir=tmp_path / "broken", write_batch_size=1, **options)
    for event in iter_precompute(broken, StopFlag()):
        if isinstance(event, StageProgress) and event.stage == "latents":
            break
    assert 0 < len(contents(broken)) < len(expected)
    cached(broken)
    assert contents(broken) == expected
    for kind in ("latents", "prompts"):
        sorted((tmp_path / "broken" / kind).rglob("*.safetensors"))[1].unlink()
    cached(broken)
    assert contents(broken) == expected


def test_batches_that_do_not_fit_are_halved_told_once_and_the_size_is_kept(
    plan_for: PlanFor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def small(vae: object, clips: Sequence[object], **pieces: bool) -> list[torch.Tensor]:
        sizes.append(len(clips))
        if len(clips) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(vae, clips, **pieces)

    real = encoders.encode_clips
    monkeypatch.setattr(encoders, "encode_clips", small)
    plan = plan_for(cache_dir=tmp_path / "cache", vae_batch_size=4)
    events = events_of(plan)
    assert sizes == [4, 2, 1, 1, 1, 1]
    told = [event.message for event in events if isinstance(event, Notice)]
    assert len(told) == 2 and told[0].startswith("4 x ") and told[1].endswith("from here on 1 at a time")
    monkeypatch.undo()
    one_by_one = plan_for(cache_dir=tmp_path / "other")
    cached(one_by_one)
    assert contents(plan) == contents(one_by_one)


def test_one_clip_that_does_not_fit_is_the_error_as_before(
    plan_for: PlanFor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(vae: object, clips: Sequence[object], **pieces: bool) -> list[torch.Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(encoders, "encode_clips", full)
    with pytest.raises(OutOfMemoryError, match="while encoding"):
        cached(plan_for(cache_dir=tmp_path / "cache", vae_batch_size=4))


def test_slicing_encodes_one_by_one(plan_for: PlanFor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def noted(vae: object, clips: Sequence[object], **pieces: bool) -> list[torch.Tensor]:
        sizes.append(len(clips))
        return real(vae, clips, **pieces)

    real = encoders.encode_clips
    monkeypatch.setattr(encoders, "encode_clips", noted)
    cached(plan_for(cache_dir=tmp_path / "cache", vae_batch_size=4, vae_enable_slicing="true"))
    assert sizes == [1, 1, 1, 1]


@pytest.mark.parametrize("entries", [1, 3, 5, 7])
def test_a_real_kill_between_writes_changes_no_bit_of_batches(
    plan_for: PlanFor, shared: Path, tmp_path: Path, entries: int
) -> None:
    """Killed as soon as so many entries are on disk; then filled again."""
    clips = tmp_path / "clips"
    shutil.copytree(next((shared / "clips").iterdir()), clips)
    options = {"data": clips, "vae_batch_size": 3, "text_encoder_batch_size": 2, "write_batch_size": 1}
    whole = plan_for(cache_dir=tmp_path / "whole", **options)
    cached(whole)
    killed = plan_for(cache_dir=tmp_path / "killed", **options)
    victim = multiprocessing.get_context("fork").Process(target=events_of, args=(killed,))
    victim.start()
    while victim.is_alive() and len(contents(killed)) < entries:
        time.sleep(0.001)
    victim.kill()
    victim.join(60)
    assert len(contents(killed)) >= entries
    cached(killed)
    assert contents(killed) == contents(whole)


def broken_clips(plan: Plan, count: int) -> list[Path]:
    """Cut off after the plan has looked at them."""
    victims = [Path(sample.path) for sample in plan.samples[:count]]
    for victim in victims:
        victim.write_bytes(victim.read_bytes()[:900])
    return victims


def test_clips_that_break_are_named_together_after_the_others_are_encoded(
    plan_for: PlanFor, shared: Path, tmp_path: Path
) -> None:
    clips = tmp_path / "clips"
    shutil.copytree(next((shared / "clips").iterdir()), clips)
    plan = plan_for(data=clips, cache_dir=tmp_path / "cache", vae_batch_size=2)
    victims = broken_clips(plan, 2)
    events: list[Event] = []
    with pytest.raises(DataError) as caught:
        drain(iter_precompute(plan, StopFlag()), events)
    assert not isinstance(caught.value, FaultyClips) and caught.value.message.startswith("2 clips cannot be decoded\n")
    assert all(str(victim) in caught.value.message for victim in victims) and caught.value.hint
    [done] = [event.detail for event in events if isinstance(event, StageDone) and event.stage == "latents"]
    assert done == "2 encoded, 0 kept, 2 faulty"
    assert read_quarantine(plan.cache_dir) == {}


def test_with_quarantine_a_new_plan_goes_on_without_them(plan_for: PlanFor, shared: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    shutil.copytree(next((shared / "clips").iterdir()), clips)
    options = {"data": clips, "cache_dir": tmp_path / "cache", "delete_problematic_images": "true"}
    plan = plan_for(**options)
    [victim] = broken_clips(plan, 1)
    with pytest.raises(FaultyClips):
        cached(plan)
    assert list(read_quarantine(plan.cache_dir)) == [str(victim)]
    again = plan_for(**options)
    assert len(again.samples) == 3 and [dropped.reason for dropped in again.dropped] == ["quarantined"]
    started = [event for event in events_of(again) if isinstance(event, StageStarted) and event.stage == "latents"]
    assert [(event.total, event.done) for event in started] == [(3, 3)]


@pytest.mark.parametrize("kind", ["gone", "fifo", "slow"])
def test_clip_that_has_gone_or_may_be_all_right_the_next_time_is_told_and_not_put_on_the_list(
    plan_for: PlanFor, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    clips = tmp_path / "clips"
    shutil.copytree(next((shared / "clips").iterdir()), clips)
    options = {"data": clips, "cache_dir": tmp_path / "cache", "delete_problematic_images": "true"}
    plan = plan_for(**options)
    victim = Path(plan.samples[0].path)
    if kind == "slow":
        monkeypatch.setattr(frames, "DECODE_SECONDS", 0.0)
        monkeypatch.setattr(frames, "DECODE_BYTES_PER_SECOND", 1e12)
    else:
        victim.unlink()
    if kind == "fifo":
        os.mkfifo(victim)
    events: list[Event] = []
    with pytest.raises(DataError) as caught:
        drain(iter_precompute(plan, StopFlag()), events)
    assert str(victim) in caught.value.message and "run it again" in (caught.value.hint or "")
    assert isinstance(caught.value, FaultyClips) == (kind == "gone"), "only then a new plan goes on"
    assert read_quarantine(plan.cache_dir) == {}
    done = {event.stage: event.detail for event in events if isinstance(event, StageDone)}
    assert done["latents"] == ("0 encoded, 0 kept, 4 faulty" if kind == "slow" else "3 encoded, 0 kept")


def test_sets_on_demand_are_encoded_by_training_to_the_same_bits(plan_for: PlanFor, tmp_path: Path) -> None:
    up_front = plan_for(cache_dir=tmp_path / "up-front", vae_batch_size=2)
    cached(up_front)
    later = plan_for(
        cache_dir=tmp_path / "later", vae_batch_size=2, vae_cache_ondemand="true", text_cache_ondemand="true"
    )
    prepared = cached(later)
    assert contents(later) == {}
    for sample in reversed(later.samples):
        prepared.latents(sample)
        prepared.prompt(sample.captions[0])
    prepared.prompt("")
    prepared.release()
    assert contents(later) == contents(up_front) and prepared.told() == []
    never = plan_for(cache_dir=tmp_path / "never", vae_cache_disable="true", text_cache_disable="true")
    prepared = cached(never)
    assert prepared.latents(never.samples[0]).isfinite().all()
    assert contents(never) == {}
    prepared.release()


def fill_and_note(plan: Plan, note: Path, barrier: multiprocessing.synchronize.Barrier) -> None:
    barrier.wait(60)
    done = [event.detail for event in events_of(plan) if isinstance(event, StageDone) and event.stage != "model"]
    note.write_text(" ".join(done))


def test_two_processes_fill_one_cache_and_encode_each_clip_and_caption_once(plan_for: PlanFor, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")  # a fresh start would import torch for many seconds each
    barrier = context.Barrier(2)
    plan = plan_for(cache_dir=tmp_path / "cache")
    notes = [tmp_path / name for name in ("first", "second")]
    both = [context.Process(target=fill_and_note, args=(plan, note, barrier)) for note in notes]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    told = " ".join(note.read_text() for note in notes)
    counts = [(int(encoded), int(kept)) for encoded, kept in re.findall(r"(\d+) encoded, (\d+) kept", told)]
    assert len(counts) == 4 and sum(encoded for encoded, _ in counts) == 4 + 5, told
    assert all(encoded + kept in (4, 5) for encoded, kept in counts), told
    assert set(contents(plan)) < {path.name for path in used_entries(plan)}
    assert list((tmp_path / "cache" / "claims").glob("*.lock")) == []
