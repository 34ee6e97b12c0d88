"""Each preset is good, small, and says what it is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from ltxtrain.config import load_config
from ltxtrain.config import presets as room
from ltxtrain.config.presets import preset_chain, preset_names, presets_folder, read_preset
from ltxtrain.errors import ConfigError
from tests.datasets import resolved

DOCUMENTED = {
    "smoke",
    "low-vram",
    "nf4-stable",
    "int8-16gb",
    "int8-compile",
    "bf16-multi-gpu",
    "full-finetune",
    "documented-example",
    "apple-mps",
    "rocm-mi300x",
}


def test_the_documented_presets_are_there() -> None:
    assert set(preset_names()) >= DOCUMENTED


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_good_but_for_what_is_not_built_yet(name: str) -> None:
    try:
        load_config([name], env={})
    except ConfigError as error:
        assert all("is not built yet" in fault.problem for fault in error.faults)
    loaded = load_config([name], env={}, set_aside_unbuilt=True)
    assert not [notice for notice in loaded.notices if "old name" in notice]
    assert loaded.presets == (name,)


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_tells_what_it_is_for(name: str) -> None:
    preset = read_preset(name)
    assert all((preset.title, preset.hardware, preset.memory, preset.memory_gb > 0, preset.measured))
    assert f"{preset.memory_gb:g} GB" in preset.memory
    assert len(preset.path.read_text(encoding="utf-8").splitlines()) <= 100


def test_smoke_asks_for_nothing_that_is_not_built_and_works_with_named_clips() -> None:
    loaded = load_config(["smoke"], env={}, flags={"data": "clips"})
    (dataset,) = resolved(loaded.config.data)
    assert (dataset.root, dataset.num_frames, dataset.min_frames) == (Path("clips"), 17, 9)
    assert loaded.config.model.pretrained_model_name_or_path == "ltxtrain/tiny"
    assert loaded.config.data.made_clips == 4
    assert 20 <= loaded.config.schedule.max_train_steps <= 40
    assert loaded.config.checkpoint.checkpoint_step_interval == 10
    assert loaded.config.precision.mixed_precision == "no"


def test_the_documented_example_is_the_guides_file() -> None:
    guides = Path(__file__).parent / "documented" / "config.json"
    from_file = load_config(files=[guides], env={}, set_aside_unbuilt=True).config
    from_preset = load_config(["documented-example"], env={}, set_aside_unbuilt=True).config
    beside = {"data": from_file.data.model_copy(update={"data_backend_config": from_preset.data.data_backend_config})}
    assert from_file.model_copy(update=beside) == from_preset


def own_presets(folder: Path, monkeypatch: pytest.MonkeyPatch, **files: str) -> None:
    about = '[preset]\ntitle = "t"\nhardware = "h"\nmemory = "m"\nmemory_gb = 8\nmeasured = "n"\n'
    for name, text in files.items():
        (folder / f"{name}.toml").write_text(text.replace("ABOUT", about), encoding="utf-8")
    monkeypatch.setattr(room, "presets_folder", lambda: folder)


def test_presets_that_extend_each_other_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_presets(tmp_path, monkeypatch, a='ABOUTextends = "b"\n', b='ABOUTextends = ["a"]\n')
    with pytest.raises(ConfigError, match="in a circle: a -> b -> a"):
        preset_chain(("a",))


def test_a_base_that_two_presets_share_is_read_once_and_is_the_weakest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_presets(
        tmp_path,
        monkeypatch,
        base="ABOUT\n[adapter]\nlora_rank = 1\n",
        left='ABOUTextends = "base"\n[adapter]\nlora_rank = 2\n',
        right='ABOUTextends = "base"\n[model]\nseed = 9\n',
    )
    assert [preset.name for preset in preset_chain(("left", "right"))] == ["base", "left", "right"]
    loaded = load_config(["left", "right"], env={})
    assert (loaded.config.adapter.lora_rank, loaded.config.model.seed) == (2, 9)


@pytest.mark.parametrize(
    "text",
    [
        "lora_rank = 4\n",
        '[preset]\ntitle = "t"\n',
        "ABOUTprice = 3\n",
        '[preset]\ntitle = "t"\nhardware = "h"\nmemory = "m"\nmeasured = "n"\n',
        '[preset]\ntitle = "t"\nhardware = "h"\nmemory = "m"\nmemory_gb = "lots"\nmeasured = "n"\n',
    ],
)
def test_a_preset_that_does_not_tell_what_it_is_for_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    own_presets(tmp_path, monkeypatch, broken=text)
    with pytest.raises(ConfigError, match=r"\[preset\]"):
        read_preset("broken")


@pytest.mark.parametrize("name", ["../presets/smoke", "/etc/passwd", "smoke.toml", "", "Smoke"])
def test_a_preset_is_named_and_is_no_path(name: str) -> None:
    with pytest.raises(ConfigError, match="there is no preset"):
        read_preset(name)


def test_the_folder_of_presets_is_found() -> None:
    assert (presets_folder() / "smoke.toml").is_file()
