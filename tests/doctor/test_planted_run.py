"""The real command on a machine in order: what the run itself would use is at fault, or the words that were given."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.doctor.world import World

TINY = ["--preset", "smoke"]


def clips_missing(world: World) -> list[str]:
    return [*TINY, "--data", "clips"]


def list_of_data_sets_broken(world: World) -> list[str]:
    (world.place / "work" / "sets.json").write_text('[{"id": "a", "type": "local", "dataset_type": "video"}]')
    return [*TINY, "--data-backend-config", "sets.json"]


def model_missing(world: World) -> list[str]:
    world.nvidia()
    return [*TINY, "--pretrained-model-name-or-path", "./nothing"]


def model_unreadable(world: World) -> list[str]:
    world.nvidia()
    (world.place / "work" / "model").mkdir()
    return [*TINY, "--pretrained-model-name-or-path", "./model"]


def model_in_a_closed_folder(world: World) -> list[str]:
    world.nvidia()
    (world.place / "work" / "closed").mkdir(mode=0)
    world.obey_modes()
    return [*TINY, "--pretrained-model-name-or-path", "./closed/model"]


def output_is_a_file(world: World) -> list[str]:
    (world.place / "work" / "results").touch()
    return [*TINY, "--output", "results"]


def cache_denied(world: World) -> list[str]:
    (world.place / "work" / "closed").mkdir(mode=0o500)
    world.obey_modes()
    return [*TINY, "--cache", "closed"]


def cache_inside_of_the_clips(world: World) -> list[str]:
    (world.place / "work" / "clips").mkdir()
    return [*TINY, "--data", "clips", "--cache", "clips/cache"]


# What is planted, the check, what must be told, and the exit code.
PLANTED: tuple[tuple[Callable[[World], list[str]], str, str, int], ...] = (
    (clips_missing, "data", "data-missing", 3),
    (list_of_data_sets_broken, "data", "data-list", 3),
    (cache_inside_of_the_clips, "data", "data-written", 3),
    (model_missing, "model", "model-missing", 5),
    (model_unreadable, "model", "model-unreadable", 5),
    (model_in_a_closed_folder, "model", "model-unreadable", 5),
    (output_is_a_file, "output folder", "volume-not-a-folder", 4),
    (cache_denied, "cache folder", "volume-permission", 4),
)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    answer = World(tmp_path_factory.mktemp("healthy")).examine(*TINY)
    assert answer.exit_code == 0, answer.bad
    return answer.bad


@pytest.mark.parametrize(("plant", "check", "code", "exit_code"), PLANTED, ids=[entry[0].__name__ for entry in PLANTED])
def test_planted_fault_of_the_run_is_told_with_its_exit_code(
    world: World,
    healthy: set[tuple[str, str]],
    plant: Callable[[World], list[str]],
    check: str,
    code: str,
    exit_code: int,
) -> None:
    answer = world.examine(*plant(world))
    assert answer.bad - healthy == {(check, code)}
    assert answer.exit_code == exit_code


def test_first_fault_decides_the_exit_code(world: World) -> None:
    world.package("av", "raise ImportError('broken')")
    words = [*clips_missing(world), "--pretrained-model-name-or-path", "./nothing"]
    assert world.examine(*words).exit_code == 4
    world.package("av", "")
    assert world.examine(*words).exit_code == 3


def test_warnings_alone_end_with_0(world: World) -> None:
    world.cuda_torch(error="Found no NVIDIA driver on your system.", devices=[])
    answer = world.examine("--preset", "bf16")
    assert ("device", "no-gpu") in answer.bad and answer.exit_code == 0


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--lora-rnk", "4"], "did you mean --lora-rank?"),
        (["--preset", "smok"], "did you mean smoke?"),
        (["--lora-rank", "0"], "--lora-rank: 0 is out of range"),
        (["--report"], "--json and --report"),
    ],
)
def test_faulty_configuration_is_told_as_in_every_command(world: World, words: list[str], problem: str) -> None:
    done = world.command("--json", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and problem in done.stderr


@pytest.mark.parametrize("module", ["pydantic", "typer"])
def test_package_that_the_command_itself_needs_is_told_by_name(world: World, module: str) -> None:
    world.without(module)
    done = world.command("--preset", "smoke")
    assert done.returncode == 4
    assert done.stderr.splitlines()[0] == f"error: the package {module} is missing"


def test_text_is_aligned_plain_and_counts_what_it_tells(world: World) -> None:
    world.nvidia()
    (world.bin / "nvidia-smi").unlink()
    world.package("av", "raise ImportError('broken')")
    done = world.command("--offline", "--preset", "bf16")
    lines = done.stdout.splitlines()
    assert "\x1b" not in done.stdout
    titles = [line for line in lines if line and not line.startswith(" ")]
    assert titles[:-1] == ["System", "Device", "Memory", "Places", "Process", "Data", "Model"]
    answer = world.examine("--preset", "bf16")
    count = answer.found["counts"]
    assert titles[-1] == f"{count['checks']} checks, {count['warning']} warnings, 1 fault"
    column = lines[1].index(" ok ") + 1
    fault = next(line for line in lines if "FAULT" in line)
    assert fault.index("FAULT") == column and "av cannot be imported" in fault
    assert sum(line.strip().startswith("fix: ") for line in lines) == count["warning"] + count["fault"]


def test_names_that_no_text_can_hold_are_told_all_the_same(world: World) -> None:
    clips = world.place / "work" / "line\nbreak"
    clips.mkdir()
    (clips / os.fsdecode(b"caf\xe9\x1b[31m.mp4")).touch()
    world.env["PYTHONIOENCODING"] = "utf-8:strict"
    for words in ([], ["--json"], ["--report"]):
        done = world.command("--offline", *TINY, "--data", "line\nbreak", *words)
        assert done.returncode == 0 and "data-no-captions" in done.stdout, done.stderr
        assert "\x1b" not in done.stdout and ("break" not in done.stdout or "--report" not in words)
        assert "caf\\" in done.stdout or "--report" in words


def test_answer_is_the_same_each_time(world: World) -> None:
    world.nvidia()
    first, second = (world.examine("--preset", "bf16").found["findings"] for _ in range(2))
    changing = {"clock", "cache space", "output space", "downloads space", "temporary files", "shared memory"}
    assert [f for f in first if f["check"] not in changing] == [f for f in second if f["check"] not in changing]
    assert [f["check"] for f in first] == [f["check"] for f in second]


def test_json_holds_facts_and_versions(world: World) -> None:
    world.nvidia()
    found = world.examine("--preset", "bf16").found
    assert found["schema"] == 1
    assert found["presets"] == ["bf16"]
    assert found["torch"]["devices"][0]["name"] == "NVIDIA GeForce RTX 4090"
    assert found["machine"]["driver"] == "575.57.08"
    assert found["packages"]["typer"] and "av" in found["packages"]
    assert {"group", "check", "state", "code", "says", "fix"} == set(found["findings"][0])


def test_nothing_is_left_behind(world: World) -> None:
    world.nvidia()
    places = [world.place / "home", world.place / "work"]
    before = [sorted(place.rglob("*")) for place in places]
    world.examine("--preset", "bf16")
    assert [sorted(place.rglob("*")) for place in places] == before


def test_image_tells_what_it_is(world: World, tmp_path: Path) -> None:
    facts = {"kind": "cuda", "version": "0.1.0", "revision": "abcdef0123456789", "torch": "2.13.0+cu129"}
    world.nvidia()
    world.env["LTX_IMAGE"] = str(world.file("opt/ltxtrain/image.json", json.dumps(facts)))
    answer = world.examine("--preset", "bf16")
    assert answer.found["image"]["kind"] == "cuda"
    assert "cuda, version 0.1.0, commit abcdef012345" in json.dumps(answer.found["findings"])


def test_wrong_image_is_answered_with_the_right_one(world: World) -> None:
    world.nvidia()
    world.torch()
    world.env["LTX_IMAGE"] = str(world.file("opt/image.json", '{"kind": "cpu", "torch": "2.13.0+cpu"}'))
    assert "make image-cuda" in world.examine("--preset", "bf16").finding("torch-without-cuda")["fix"]
