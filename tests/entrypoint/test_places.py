"""Where clips, caches and results lie, and that what the user says to ltxtrain in any way is stronger."""

from __future__ import annotations

from pathlib import Path

from ltxtrain.config import load_config
from tests.entrypoint.conftest import AS_ORDINARY_USER, Container, needs_box

LIBRARIES = {
    "HF_HOME": "huggingface",
    "TORCH_HOME": "torch",
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "XDG_CACHE_HOME": "xdg",
    "MIOPEN_USER_DB_PATH": "miopen",
    "MIOPEN_CUSTOM_CACHE_DIR": "miopen",
    "PYTORCH_TUNABLEOP_FILENAME": "tunableop/results%d.csv",
}
PLACES = ("LTX_DATA_DIR", "LTX_CACHE_DIR", "LTX_OUTPUT_DIR")


def with_clips(container: Container) -> dict[str, str]:
    """The variables of a cloud whose volume holds a clip: the way to a data folder that needs no privileges."""
    volume = container.place / "workspace"
    (volume / "data").mkdir(parents=True, exist_ok=True)
    (volume / "data" / "clip.mp4").touch()
    return {"RUNPOD_POD_ID": "pod1", "LTX_WORKSPACE": str(volume)}


@needs_box
def test_the_three_folders_are_told_to_ltxtrain(box: Container) -> None:
    data = box.mount("/data", 1000)
    (data / "clip.mp4").touch()
    done = box.run("train")
    env = done.env
    assert done.err == "words of ltxtrain\n"
    assert [env[name] for name in PLACES] == ["/data", "/cache", "/output"]
    assert not any(name.startswith("LTXTRAIN_") for name in env), "nothing that would be stronger than a configuration"
    assert {name: env[name] for name in LIBRARIES} == {name: f"/cache/{path}" for name, path in LIBRARIES.items()}
    assert [path.name for path in data.iterdir()] == ["clip.mp4"]


@needs_box
def test_an_empty_data_folder_is_not_named_but_told_where_it_was_mounted(box: Container) -> None:
    done = box.run("train")
    assert "LTX_DATA_DIR" not in done.env
    assert "holds nothing" not in done.err
    (box.mount("/data") / ".DS_Store").touch()
    done = box.run("train")
    assert "LTX_DATA_DIR" not in done.env
    assert "note: /data is mounted, but holds nothing" in done.err
    assert box.run("train", env={"LTX_DATA_DIR": "/my/clips"}).err == "words of ltxtrain\n"


@needs_box
def test_a_data_folder_that_cannot_be_looked_into_is_named_so_that_ltxtrain_says_why(box: Container) -> None:
    box.mount("/data", 2000, 0o700)
    assert box.run("train", env={"PUID": "1000"}).env["LTX_DATA_DIR"] == "/data"


def test_what_the_user_sets_is_kept(container: Container) -> None:
    given = {name: f"/somewhere/{name}" for name in (*LIBRARIES, *PLACES)}
    env = container.run("train", env=with_clips(container) | given).env
    assert {name: env[name] for name in given} == given


@needs_box
def test_training_runs_as_the_owner_of_the_folder_that_was_named(box: Container) -> None:
    box.mount("/mine", 4321)
    for name in ("LTX_OUTPUT_DIR", "LTXTRAIN_OUTPUT_DIR", "LTXTRAIN_OUTPUT"):
        assert box.run("train", env={name: "/mine"}).id.startswith("uid=4321 ")


def test_libraries_follow_the_cache_that_ltxtrain_is_told(container: Container) -> None:
    """By each of its names, the strongest first."""
    given: dict[str, str] = {}
    for name in ("LTX_CACHE_DIR", "LTXTRAIN_CACHE", "LTXTRAIN_CACHE_DIR"):
        given[name] = f"/by/{name}"
        assert container.run("train", env=given).env["HF_HOME"] == f"/by/{name}/huggingface"


def loaded(container: Container, *files: Path, flags: dict[str, object] | None = None, **env: str) -> tuple[str, ...]:
    """The three places as ltxtrain reads them with what the scripts have given it."""
    given = container.run("train", env=with_clips(container) | {"LTX_CACHE_DIR": "", "LTX_OUTPUT_DIR": ""} | env).env
    ours = {name: value for name, value in given.items() if name.startswith(("LTX_", "LTXTRAIN_"))}
    config = load_config(["bf16"], files, env=ours, flags=flags).config
    places = (config.data.instance_data_dir, config.cache.cache_dir, config.checkpoint.output_dir)
    return tuple(str(place) for place in places)


def test_a_configuration_a_variable_and_a_flag_are_stronger_than_the_image_s_places(container: Container) -> None:
    volume = f"{container.place}/workspace"
    assert loaded(container) == (f"{volume}/data", f"{volume}/cache", f"{volume}/output")
    config = container.place / "my config.toml"
    config.write_text('output_dir = "/x"\n[[datasets]]\nid = "a"\ninstance_data_dir = "/y"\ncrop_style = "center"\n')
    assert loaded(container, config) == ("None", f"{volume}/cache", "/x")
    variables = {"LTXTRAIN_CACHE": "/my/cache", "LTXTRAIN_OUTPUT_DIR": "/my/output", "LTXTRAIN_DATA": "/my/clips"}
    assert loaded(container, **variables) == ("/my/clips", "/my/cache", "/my/output")
    assert loaded(container, flags={"cache": "/z"}) == (f"{volume}/data", "/z", f"{volume}/output")


@needs_box
def test_temporary_files_find_shared_memory_when_nothing_is_mounted(box: Container) -> None:
    box.read_only = "alone"
    assert box.run("train").env["TMPDIR"] == "/dev/shm"


@needs_box
def test_no_place_for_temporary_files_is_told(box: Container) -> None:
    box.as_user, box.read_only = AS_ORDINARY_USER, "alone"
    box.mount("/dev/shm", 0, 0o755)
    done = box.run("train")
    assert "there is no place for temporary files: say docker run --tmpfs /tmp" in done.err
    assert "LTX_HEARTBEAT" not in done.env
