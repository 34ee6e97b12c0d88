"""The user's size map: found by its documented name, refused with its path when wrong, and what it changes is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ltxtrain.config import LoadedConfig
from ltxtrain.errors import ConfigError
from ltxtrain.facts.machine import Machine
from ltxtrain.plan.buckets import SizeRule, target_size
from ltxtrain.plan.make import make_plan
from ltxtrain.plan.size_map import read_size_map

AddClip = Callable[..., Path]
Load = Callable[..., LoadedConfig]


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("aspect_resolution_map-0.4096.json", SizeRule(640)),
        ("aspect_resolution_map-1.0.json", SizeRule(1000)),
        ("aspect_resolution_map-1.0.json", SizeRule(1, "area")),
        ("aspect_resolution_map-1.json", SizeRule(1, "area")),
        ("aspect_resolution_map-0.25.json", SizeRule(0.25, "area")),
    ],
)
def test_documented_name_has_the_megapixels(tmp_path: Path, name: str, rule: SizeRule) -> None:
    (tmp_path / name).write_text('{"1.43": [640, 448]}')
    found = read_size_map(tmp_path, rule)
    assert (found.path, found.sizes) == (tmp_path / name, {1.43: (640, 448)})
    assert read_size_map(tmp_path, SizeRule(333)).path is None


def test_ratio_of_the_size_that_the_rules_give_is_what_is_looked_up() -> None:
    rule = SizeRule(480, alignment=64, forced={1.43: (768, 512), 1.5: (64, 64), 1.0: (576, 576)})
    assert target_size(1500, 1000, rule) == (768, 512)  # 640x448 by the rules: 1.43
    assert target_size(1000, 1000, rule) == (576, 576)
    assert target_size(1920, 1080, rule) == (704, 384)
    square = SizeRule(480, square=True, forced={1.0: (576, 576)})
    assert target_size(1920, 1080, square) == (576, 576)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "no object of sizes"),
        ('{"1.43": [640, 450]}', "640x450 has a side that is no multiple of 32"),
        ('{"1.43": [0, 32]}', "outside of 1 to 8192"),
        ('{"1.43": [32000, 32]}', "outside of 1 to 8192"),
        ('{"1.43": [640]}', "no width and height"),
        ('{"1.43": [640.5, 448]}', "no width and height"),
        ('{"1.43": [true, 448]}', "no width and height"),
        ('{"1.43": "640x448"}', "no width and height"),
        ('{"wide": [640, 448]}', "is no ratio"),
        ('{"NaN": [640, 448]}', "is no ratio"),
        ('{"-1": [640, 448]}', "is no ratio"),
        ('{"1.431": [640, 448], "1.432": [640, 480]}', "another size for ratio 1.43"),
        ("[" * 5000, "cannot be read"),
    ],
)
def test_map_that_cannot_be_used_is_told_with_its_path(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "aspect_resolution_map-0.4096.json"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        read_size_map(tmp_path, SizeRule(640))
    assert said in caught.value.message
    assert str(path) in caught.value.message
    assert len(caught.value.message.splitlines()) == 1


def test_all_faults_of_a_map_are_told_together(tmp_path: Path) -> None:
    (tmp_path / "aspect_resolution_map-0.4096.json").write_text('{"1.43": [640, 450], "x": [32, 32]}')
    with pytest.raises(ConfigError) as caught:
        read_size_map(tmp_path, SizeRule(640))
    assert len(caught.value.faults) == 2


def test_plan_follows_the_map_and_tells_what_it_changed(
    add_clip: AddClip, load: Load, machine: Machine, tmp_path: Path
) -> None:
    add_clip("square.mp4", size=(64, 64))
    add_clip("wide.mp4", size=(128, 64))
    output = tmp_path / "output"
    output.mkdir()
    name = output / "aspect_resolution_map-0.004096.json"  # resolution 64
    before = make_plan(load(num_frames=9), machine)
    assert {sample.bucket.key for sample in before.samples} == {"64x64@9", "96x32@9"}
    name.write_text(json.dumps({"1.0": [128, 128], "2.5": [32, 32]}))
    plan = make_plan(load(num_frames=9), machine)
    assert {sample.bucket.key for sample in plan.samples} == {"128x128@9", "96x32@9"}
    text = "\n".join(plan.notices)
    assert f"sizes of buckets from {name}: 128x128 in place of 64x64" in text
    assert "ratios that no bucket has: 2.5; buckets have 1, 3" in text
    assert sorted(path.name for path in output.iterdir()) == [name.name]
    name.write_text('{"1.0": [100, 100]}')
    with pytest.raises(ConfigError, match="no multiple of 32"):
        make_plan(load(num_frames=9), machine)
