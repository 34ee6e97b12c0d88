"""Which videos a validation renders."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltxtrain.config.validation import ValidationConfig
from ltxtrain.errors import ConfigError
from ltxtrain.plan.notices import validation_notices
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
    names = ["anime_<token>", "../../etc/passwd", "été", "a" * 200, "CON?", "con", "Lpt1", "anime_[token]", ""]
    path = library(tmp_path, {name: "prompt" for name in names})
    videos = validation_videos(section(user_prompt_library=path), seed=1)
    assert len({video.name for video in videos}) == len(names), "none collide"
    for video in videos:
        assert video.name.isascii() and not set(video.name) & set('/\\.<>:"|?* ') and 0 < len(video.name) < 80
        assert video.name.lower() not in ("con", "lpt1"), "Windows keeps these for devices"


def names_of(folder: Path, nicknames: list[str], **options: object) -> list[str]:
    path = library(folder, {name: f"prompt of {name}" for name in nicknames})
    return [video.name for video in validation_videos(section(user_prompt_library=path, **options), seed=1)]


@pytest.mark.parametrize(
    ("nicknames", "options"),
    [
        (["a", "a-2"], {"num_validation_images": 2}),
        (["a-2", "a"], {"num_validation_images": 2}),
        (["a", "a-512x512"], {"validation_resolution": "768x512,512"}),
        (
            ["a", "a-512x512", "a-512x512-2", "a-2"],
            {"validation_resolution": "768x512,512", "num_validation_images": 3},
        ),
        (["cat", "Cat", "CAT"], {}),
        (["a b", "a-b", "a_b"], {}),
        (["x", "x-2", "X-2", "x-2-2"], {"num_validation_images": 2}),
        (["validation", "Validation-2"], {"num_validation_images": 2}),
    ],
)
def test_no_two_videos_have_one_name_even_where_case_does_not_count(
    tmp_path: Path, nicknames: list[str], options: dict[str, object]
) -> None:
    names = names_of(tmp_path, nicknames, **options)
    sizes, images = (
        str(options.get("validation_resolution", "")).count(",") + 1,
        options.get("num_validation_images", 1),
    )
    assert len(names) == len(nicknames) * sizes * int(str(images))
    assert len({name.lower() for name in names}) == len(names), names
    assert names == names_of(tmp_path, nicknames, **options)


def test_a_nickname_that_collides_with_nothing_stays_as_it_is(tmp_path: Path) -> None:
    assert names_of(tmp_path, ["a", "a-2", "Cat"]) == ["a", "a-2", "Cat"]
    names = names_of(tmp_path, ["a", "a-2"], num_validation_images=2)
    assert names[:2] == ["a", "a-2"] and names[2].startswith("a-2-")


@given(
    st.lists(st.text("aA-2x51 é", max_size=6), min_size=1, max_size=6, unique=True),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_names_are_unique_whatever_the_nicknames(nicknames: list[str], images: int, sizes: int) -> None:
    resolution = ",".join(["512", "256x512", "128"][:sizes])
    with tempfile.TemporaryDirectory() as folder:
        options = {"validation_resolution": resolution, "num_validation_images": images}
        names = names_of(Path(folder), nicknames, **options)
    assert len({name.lower() for name in names}) == len(nicknames) * images * sizes


def test_the_nickname_of_the_main_prompts_video_is_refused_beside_it(tmp_path: Path) -> None:
    path = library(tmp_path, {"validation": "a cat"})
    assert validation_videos(section(user_prompt_library=path), seed=1)[0].prompt == "a cat"
    with pytest.raises(ConfigError, match="validation is the name of validation_prompt's own video") as caught:
        validation_videos(section(user_prompt_library=path, validation_prompt="a dog"), seed=1)
    assert caught.value.faults[0].key == "validation"


def test_sizes_that_are_rendered_alike_are_rendered_once() -> None:
    videos = validation_videos(section(validation_prompt="p", validation_resolution="512,520x530"), seed=1)
    assert [(video.name, video.width, video.height) for video in videos] == [("validation", 512, 512)]
    notices = validation_notices(section(validation_prompt="p", validation_resolution="512,520x530"), videos)
    assert notices == ["validation_resolution: 520x530 as 512x512: sides are multiples of 32"]
    assert validation_notices(section(validation_prompt="p"), videos) == []
    longer = section(validation_prompt="p", validation_num_video_frames=125)
    assert validation_notices(longer, validation_videos(longer, seed=1)) == [
        "validation_num_video_frames: 125 as 121: frame counts are 8k+1"
    ]


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
