"""Where clips, caches and results lie, and that what the user says is stronger."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ltxtrain.config import load_config
from tests.entrypoint.conftest import AS_ORDINARY_USER, SCRIPTS, Container, needs_box

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
DATA = "LTXTRAIN_INSTANCE_DATA_DIR"


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
    env = box.run("train").env
    assert env[DATA] == "/data"
    assert env["LTXTRAIN_CACHE_DIR"] == "/cache"
    assert env["LTXTRAIN_OUTPUT_DIR"] == "/output"
    assert {name: env[name] for name in LIBRARIES} == {name: f"/cache/{path}" for name, path in LIBRARIES.items()}
    assert [path.name for path in data.iterdir()] == ["clip.mp4"]


@needs_box
def test_an_empty_data_folder_is_not_named_but_told_where_it_was_mounted(box: Container) -> None:
    assert DATA not in box.run("train").env
    (box.mount("/data") / ".DS_Store").touch()
    done = box.run("train")
    assert DATA not in done.env
    assert "note: /data is mounted, but holds nothing" in done.err


@needs_box
def test_a_data_folder_that_cannot_be_looked_into_is_named_so_that_ltxtrain_says_why(box: Container) -> None:
    box.mount("/data", 2000, 0o700)
    assert box.run("train", env={"PUID": "1000"}).env[DATA] == "/data"


def test_what_the_user_sets_is_kept(container: Container) -> None:
    given = {name: f"/somewhere/{name}" for name in LIBRARIES}
    given |= {DATA: "/my/clips", "LTXTRAIN_CACHE_DIR": "/my/cache", "LTXTRAIN_OUTPUT_DIR": "/my/output"}
    env = container.run("train", env=given | with_clips(container)).env
    assert {name: env[name] for name in given} == given


def test_short_names_are_not_given_twice(container: Container) -> None:
    """ltxtrain refuses an option that two variables give."""
    given = {"LTXTRAIN_CACHE": "/my/cache", "LTXTRAIN_OUTPUT": "/my/output", "LTXTRAIN_DATA": "/my/clips"}
    env = container.run(
        "train", env=given | with_clips(container) | {"LTXTRAIN_CACHE_DIR": "", "LTXTRAIN_OUTPUT_DIR": ""}
    ).env
    assert env["HF_HOME"] == "/my/cache/huggingface"
    ours = {name: value for name, value in env.items() if name.startswith("LTXTRAIN_")}
    sources = load_config(env=ours).sources
    assert sources["cache_dir"] == "LTXTRAIN_CACHE"
    assert sources["instance_data_dir"] == "LTXTRAIN_DATA"


FLAGS = {
    "--data /x": "data",
    "--data=/x": "data",
    "--instance-data-dir /x": "data",
    "--instance_data_dir=/x": "data",
    "--data-backend-config x.json": "data",
    "--data_backend_config=x.json": "data",
    "--output /x": "output",
    "--output_dir=/x --cache /y": "output cache",
    "--preset data --lora-rank 4": "",
    "--validation-prompt --data": "data",
}


def test_places_named_by_a_flag_are_seen(container: Container) -> None:
    assert DATA not in container.run("train", "--data", "/x", env=with_clips(container)).env
    assert DATA in container.run("train", "--lora-rank", "4", env=with_clips(container)).env
    assert seen(container, [line.split() for line in FLAGS]) == list(FLAGS.values())


def seen(container: Container, lines: list[list[str]]) -> list[str]:
    """What the scripts see named in each of several command lines; one process for all of them."""
    program = """
        here=$1 cloud='' tab=$(printf '\\t')
        . "$here/lines.sh"; . "$here/places.sh"
        shift
        set -f
        for line in "$@"; do
            IFS=$tab
            find_places $line
            unset IFS
            printf '%s\\n' "${names_data:+data }${names_output:+output }${names_cache:+cache }"
        done
    """
    words = ["\t".join(line) for line in lines]
    done = container.run("-c", program, "sh", str(SCRIPTS), *words, script="-u")
    assert done.err == ""
    return [line.strip() for line in done.out.splitlines()]


CONFIGURATIONS = {
    "a data set's list": ('{"--data_backend_config": "sets.json"}', "data"),
    "dashes": ('{"data-backend-config": "sets.json"}', "data"),
    "a folder": ('instance_data_dir = "/x"\n', "data"),
    "a folder by its short name": ('[data]\ndata = "/x"\n', "data"),
    "tables": ('[[datasets]]\nid = "a"\ncache_dir = "/x"\n', "data"),
    "a list": ('{"datasets": [{"id": "a"}]}', "data"),
    "one line": ('{"lora_rank":4,"data":"/x"}', "data"),
    "sections": ('{"data": {"resolution": 480}, "cache": {"vae_batch_size": 1}}', ""),
    "sections in TOML": ("[data]\nresolution = 480\n[cache]\nvae_batch_size = 1\n", ""),
    "other names": ('caption_strategy = "textfile"\nvalidation_prompt = "data: output"\n', ""),
    "a place for results": ('output_dir = "/x"\n', "output"),
    "a place for results with dashes": ('{"--output-dir": "/x"}', "output"),
    "a place for caches": ('[cache]\ncache_dir = "/x"\n', "cache"),
    "everything": ('{"output_dir": "/x", "cache": "/y", "data": "/z"}', "data output cache"),
}


def test_a_variable_never_overrides_a_configuration(container: Container) -> None:
    """A variable is stronger than a file for ltxtrain, so it must not be set where the file speaks."""
    config = container.place / "my config"
    config.write_text('{"output_dir": "/x", "cache": "/y", "data": "/z"}')
    env = with_clips(container) | {"LTXTRAIN_CACHE_DIR": "", "LTXTRAIN_OUTPUT_DIR": ""}
    got = container.run("train", "--config", str(config), env=env).env
    assert not any(got.get(name) for name in (DATA, "LTXTRAIN_OUTPUT_DIR", "LTXTRAIN_CACHE_DIR"))


@pytest.mark.parametrize("joined", [True, False])
def test_what_a_configuration_names_is_seen(container: Container, joined: bool) -> None:
    lines = []
    for number, (text, _) in enumerate(CONFIGURATIONS.values()):
        config = container.place / f"config {number}"
        config.write_text(text)
        lines.append([f"--config={config}"] if joined else ["--config", str(config)])
    found = dict(zip(CONFIGURATIONS, seen(container, lines), strict=True))
    assert found == {what: named for what, (_, named) in CONFIGURATIONS.items()}


def test_a_configuration_s_data_would_be_overridden_by_the_variable(tmp_path: Path) -> None:
    """Why the configuration is looked into at all: this is what ltxtrain does with both."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"instance_data_dir": "/mine"}))
    assert load_config(files=[config], env={}).config.data.instance_data_dir == Path("/mine")
    assert load_config(files=[config], env={DATA: "/data"}).config.data.instance_data_dir == Path("/data")


@pytest.mark.parametrize("words", [["sample", "a cat"], ["export"], ["sh", "-c", "ltxtrain"], ["ltxtrain", "report"]])
def test_data_are_not_named_to_commands_that_do_not_train_on_them(container: Container, words: list[str]) -> None:
    env = container.run(*words, env=with_clips(container)).env
    assert DATA not in env
    assert env["HF_HOME"]


@needs_box
def test_results_that_would_vanish_are_told_before_training(box: Container) -> None:
    first = "warning: nothing is mounted at "
    assert f"{first}/output and /cache: " in box.run("train").err
    assert "mounted" not in box.run("plan").err
    assert "mounted" not in box.run("train", "--dry-run").err
    box.mount("/cache")
    assert f"{first}/output: " in box.run("train").err
    box.mount("/output")
    assert "mounted" not in box.run("train").err
    assert f"{first}/tmp/a/b: " in box.run("train", "--output", "/tmp/a/b").err
    assert f"{first}/elsewhere: " in box.run("train", env={"LTXTRAIN_OUTPUT_DIR": "/elsewhere"}).err
    assert box.run("train", "--output=/cache/out").err.count("mounted") == 0


@needs_box
def test_the_warning_is_one_line(box: Container) -> None:
    assert box.run("train").err.count("\n") == 2, "the warning, and the stand-in's own line"


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
