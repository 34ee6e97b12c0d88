"""The guides' own files load unchanged, and mean what the guides say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ltxtrain.config import CaptionRule, Dataset, load_config
from ltxtrain.config.catalogue import options
from ltxtrain.config.data import DataConfig
from ltxtrain.config.unbuilt import UNBUILT
from ltxtrain.errors import ConfigError
from tests.datasets import noticed, resolved

GUIDES = Path(__file__).parent / "documented"


def asked_unbuilt(written: dict[str, object]) -> set[str]:
    """The keys of a documented file that ask for what the list says is not built yet."""
    plain = {"true": True, "false": False}
    values = {key: plain.get(value, value) if isinstance(value, str) else value for key, value in written.items()}
    return {key for key, value in values.items() if key in UNBUILT and value not in UNBUILT[key]}


def test_the_complete_example_asks_only_for_what_is_not_built_yet() -> None:
    path = GUIDES / "config.json"
    expected = asked_unbuilt(json.loads(path.read_text(encoding="utf-8")))
    assert expected, "once all of it is built, this test becomes: it loads"
    with pytest.raises(ConfigError) as caught:
        load_config(files=[path], env={})
    assert {fault.key for fault in caught.value.faults} == expected
    assert all("is not built yet" in fault.problem for fault in caught.value.faults)
    assert all(fault.source.startswith(f"{path}:") for fault in caught.value.faults)
    assert caught.value.hint and "--set-aside-unbuilt" in caught.value.hint


def test_the_complete_example_loads_value_by_value_once_that_is_set_aside() -> None:
    path = GUIDES / "config.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    loaded = load_config(files=[path], env={}, set_aside_unbuilt=True)
    aside = asked_unbuilt(written)
    for key, value in written.items():
        if key in aside or key in ("ignore_final_epochs", "data_backend_config"):
            continue
        option = options()[key]
        found = getattr(getattr(loaded.config, option.section), key)
        expected = {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value
        assert found == expected or str(found) == expected, key
        assert loaded.sources[key].startswith(f"{path}:")
    assert loaded.config.schedule.strict_epoch_limit is False
    assert loaded.config.data.delete_problematic_images is True
    assert loaded.config.data.data_backend_config == Path("config/ltxvideo/multidatabackend.json") or (
        loaded.config.data.data_backend_config == GUIDES / "multidatabackend.json"
    )
    for name in aside:
        assert f"{name}" in " ".join(loaded.notices)


def test_the_list_of_data_sets_gives_the_data_set_of_the_guides() -> None:
    data = DataConfig(data_backend_config=GUIDES / "multidatabackend.json", resolution=800)
    (found,) = resolved(data)
    assert found == Dataset(
        id="disney-black-and-white",
        root=Path("datasets/disney-black-and-white"),
        resolution=480,
        resolution_type="pixel_area",
        minimum_image_size=480,
        crop=False,
        crop_style="random",
        crop_aspect="square",
        num_frames=125,
        min_frames=125,
        max_frames=None,
        bucket_strategy="aspect_ratio",
        frame_interval=None,
        repeats=0,
        captions=CaptionRule(strategy="textfile"),
        is_i2v=True,
        window="first",
        windows_per_clip=1,
        minimum_aspect_ratio=None,
        maximum_aspect_ratio=None,
        max_num_samples=None,
        maximum_image_size=480,
        target_downsample_size=480,
    )
    assert noticed(data) == (
        "data set disney-black-and-white: cache_dir_vae has no effect: "
        "caches are keyed by content and lie under cache_dir",
        "data set text-embeds: cache_dir has no effect: caches are keyed by content and lie under cache_dir",
        "data set text-embeds: write_batch_size has no effect: it is a global option",
    )


def test_pictures_may_stand_beside_the_videos_of_the_guides(tmp_path: Path) -> None:
    entries = json.loads((GUIDES / "multidatabackend.json").read_text(encoding="utf-8"))
    stills = {
        "id": "stills",
        "type": "local",
        "dataset_type": "image",
        "instance_data_dir": "datasets/stills",
        "crop": True,
        "crop_style": "center",
        "crop_aspect": "square",
        "repeats": 2,
    }
    (tmp_path / "list.json").write_text(json.dumps([*entries, stills]), encoding="utf-8")
    video, image = resolved(DataConfig(data_backend_config=tmp_path / "list.json"))
    assert (video.kind, image.kind, image.num_frames, image.is_i2v) == ("video", "image", 1, False)


def test_the_snippets_of_the_guides_load(tmp_path: Path) -> None:
    lines = (GUIDES / "quantised_lines.json.txt").read_text(encoding="utf-8")
    (tmp_path / "q.json").write_text("{" + lines + "}", encoding="utf-8")
    quantised = load_config(files=[tmp_path / "q.json"], env={}, set_aside_unbuilt=True)
    assert quantised.config.optimizer.max_grad_norm == 1.0
    assert quantised.config.precision.base_model_precision == "int8-quanto"
    library = (GUIDES / "prompt_library_line.json.txt").read_text(encoding="utf-8")
    (tmp_path / "l.json").write_text("{" + library.strip().rstrip(",") + "}", encoding="utf-8")
    named = load_config(files=[tmp_path / "l.json"], env={})
    assert named.config.validation.user_prompt_library == Path("config/user_prompt_library.json")


def test_the_guides_own_mistake_is_named_with_its_line() -> None:
    path = GUIDES / "custom_fine_tune.json"
    with pytest.raises(ConfigError) as caught:
        load_config(files=[path], env={})
    assert str(caught.value) == f"{path}:6: is not JSON: a comma stands before the closing bracket (remove the comma)"


def test_that_snippet_loads_without_the_mistake(tmp_path: Path) -> None:
    text = (GUIDES / "custom_fine_tune.json").read_text(encoding="utf-8").replace('"none",', '"none"')
    (tmp_path / "c.json").write_text(text, encoding="utf-8")
    model = load_config(files=[tmp_path / "c.json"], env={}).config.model
    assert model.pretrained_transformer_model_name_or_path == "path/to-the-other-model"
    assert model.pretrained_transformer_subfolder == "none"


def test_previews_need_a_place_to_send_them_to() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(files=[GUIDES / "previews.json"], env={})
    assert "webhook_config" in str(caught.value)


def test_the_offloading_flags_of_the_guides_are_read() -> None:
    flags = {
        "enable_group_offload": True,
        "group_offload_type": "block_level",
        "group_offload_blocks_per_group": "1",
        "group_offload_use_stream": True,
        "group_offload_to_disk_path": "/fast-ssd/offload",
    }
    memory = load_config(env={}, flags=flags).config.memory
    assert memory.group_offload_to_disk_path == Path("/fast-ssd/offload")
    assert (memory.enable_group_offload, memory.group_offload_blocks_per_group) == (True, 1)


@pytest.mark.parametrize("name", ["config.json"])
def test_a_loaded_configuration_written_out_loads_back_the_same(tmp_path: Path, name: str) -> None:
    loaded = load_config(files=[GUIDES / name], env={}, set_aside_unbuilt=True)
    again = tmp_path / "again.json"
    again.write_text(loaded.config.model_dump_json(exclude_none=True), encoding="utf-8")
    assert load_config(files=[again], env={}).config == loaded.config
