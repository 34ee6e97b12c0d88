"""The guides' cosine is another curve than ours: whoever means it is told so, once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ltxtrain.config import LoadedConfig, load_config
from ltxtrain.facts.machine import Machine
from ltxtrain.plan.make import make_plan

AddClip = Callable[..., Path]
Load = Callable[..., LoadedConfig]
GUIDES = Path(__file__).parents[1] / "config" / "documented"


def test_cosine_that_means_the_half_period_curve_is_told_once(add_clip: AddClip, load: Load, machine: Machine) -> None:
    add_clip("a.mp4")
    meant = make_plan(load(lr_scheduler="cosine", lr_warmup_steps=100, max_train_steps=100), machine)
    told = [text for text in (*meant.notices, *meant.warnings) if "lr_warmup_steps" in text or "cosine" in text]
    assert len(told) == 1 and told[0] in meant.warnings
    assert "never reaches" in told[0] and "cosine_half_period" in told[0]
    plain = make_plan(load(lr_scheduler="cosine", lr_warmup_steps=10, max_train_steps=100), machine)
    assert not any("cosine" in text for text in (*plain.notices, *plain.warnings))
    other = make_plan(load(lr_scheduler="polynomial", lr_warmup_steps=100, max_train_steps=100), machine)
    assert [text for text in other.warnings if "never reaches" in text and "cosine" not in text]


def test_the_guides_own_cosine_is_told_once(add_clip: AddClip, load: Load, machine: Machine) -> None:
    add_clip("a.mp4")
    schedule = load_config(files=[GUIDES / "config.json"], env={}, set_aside_unbuilt=True).config.schedule
    names = ("lr_scheduler", "lr_warmup_steps", "lr_end", "max_train_steps")
    plan = make_plan(load(learning_rate=5e-5, **{name: getattr(schedule, name) for name in names}), machine)
    assert sum("lr_warmup_steps" in text for text in (*plan.notices, *plan.warnings)) == 1
    assert any("cosine_half_period" in warning for warning in plan.warnings)
