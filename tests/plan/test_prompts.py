"""Which videos a validation renders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ltxtrain.config.validation import ValidationConfig
from ltxtrain.errors import ConfigError
from ltxtrain.plan.prompts import validation_videos


def section(**options: object) -> ValidationConfig:
    return ValidationConfig(**options)  # type: ignore[arg-type]


def library(folder: Path, content: object) -> Path:
    path = folder / "library.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_the_main_prompt_comes_first_then_the_library_in_its_order(tmp_path: Path) -> None:
    path = library(tmp_path, {"zebra": "a zebra runs", "ant": {"prompt": "an ant walks"}})
    videos = validation_videos(section(validation_prompt="a dog sits", user_prompt_library=path), seed=1)
    assert [(video.name, video.prompt) for video in videos] == [
        ("validation", "a dog sits"),
        ("zebra", "a zebra runs"),
        ("ant", "an ant walks"),
    ]


def test_every_size_and_every_repeat_is_one_video() -> None:
    videos = validation_videos(
        section(validation_prompt="p", validation_resolution="768x512,512", num_validation_images=2), seed=1
    )
    assert [(v.name, v.width, v.height, v.seed) for v in videos] == [
        ("validation-768x512", 768, 512, 42),
        ("validation-768x512-2", 768, 512, 43),
        ("validation-512x512", 512, 512, 42),
        ("validation-512x512-2", 512, 512, 43),
    ]


def test_sizes_and_frames_are_floored_to_what_the_vae_takes() -> None:
    (video,) = validation_videos(
        section(validation_prompt="p", validation_resolution="1280x720", validation_num_video_frames=125), seed=1
    )
    assert (video.width, video.height, video.frames) == (1280, 704, 121)


def test_without_a_prompt_the_first_captions_are_rendered() -> None:
    videos = validation_videos(section(), seed=1, captions=["one", "two", "three"])
    assert [(video.name, video.prompt) for video in videos] == [("caption-1", "one"), ("caption-2", "two")]
    assert validation_videos(section(validation_prompt="p"), seed=1, captions=["one"])[0].prompt == "p"
    assert validation_videos(section(validation_disable=True), seed=1, captions=["one"]) == ()


def test_nicknames_become_names_that_every_file_system_takes(tmp_path: Path) -> None:
    names = ["anime_<token>", "../../etc/passwd", "été", "a" * 200, "CON?", "anime_[token]", ""]
    path = library(tmp_path, {name: "prompt" for name in names})
    videos = validation_videos(section(user_prompt_library=path), seed=1)
    assert len({video.name for video in videos}) == len(names), "none collide"
    for video in videos:
        assert video.name.isascii() and not set(video.name) & set('/\\.<>:"|?* ') and 0 < len(video.name) < 80


def test_the_seed_of_the_run_is_used_when_validation_has_none() -> None:
    (video,) = validation_videos(section(validation_prompt="p", validation_seed=None), seed=99)
    assert video.seed == 99


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}', '{"a": ""}', '{"a": {"text": "x"}}'])
def test_an_unusable_library_is_told(tmp_path: Path, content: str) -> None:
    with pytest.raises(ConfigError):
        validation_videos(section(user_prompt_library=library(tmp_path, content)), seed=1)


def test_a_missing_library_is_told_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.json"):
        validation_videos(section(user_prompt_library=tmp_path / "none.json"), seed=1)
