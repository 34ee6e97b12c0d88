"""What the scripts print can be sent as it is; what nobody should send is refused."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.forms import RunpodPod, RunpodTemplate, VastTemplate

ROOT = Path(__file__).resolve().parents[2]
DIGEST = "sha256:" + "0123456789abcdef" * 4
IMAGE = f"registry.example:5000/me/ltxtrain:0.1.0-cuda-cloud@{DIGEST}"


def render(*words: str) -> subprocess.CompletedProcess[str]:
    # -S -E: nothing but the standard library, as on a computer where this project is not installed.
    program = [sys.executable, "-S", "-E", str(ROOT / "deploy" / "render.py"), *words]
    return subprocess.run(program, capture_output=True, text=True, check=False)


def printed(*words: str) -> dict[str, Any]:
    done = render(*words)
    assert done.returncode == 0, done.stderr
    body: dict[str, Any] = json.loads(done.stdout)
    return body


def test_a_template_of_runpod_comes_out_ready_to_send() -> None:
    body = printed(
        "runpod", "--image", IMAGE, "--volume", "250", "--disk", "40", "--name", "mine", "--on-exit", "sleep",
        "--hf-secret", "hf", "--registry-auth", "login1", "--preset", "smoke",
        "--", "--max-train-steps", "3000", "--validation-prompt", "a fox's den",
    )  # fmt: skip
    RunpodTemplate.model_validate(body)
    assert body["imageName"] == IMAGE
    words = body["dockerStartCmd"]
    assert words[words.index("train") :] == [
        "train", "--preset", "smoke", "--max-train-steps", "3000", "--validation-prompt", "a fox's den", "--yes"
    ]  # fmt: skip
    assert (body["volumeInGb"], body["containerDiskInGb"], body["name"]) == (250, 40, "mine")
    assert body["env"]["LTX_ON_EXIT"] == "sleep"
    assert body["env"]["HF_TOKEN"] == "{{ RUNPOD_SECRET_hf }}"
    assert body["containerRegistryAuthId"] == "login1"


def test_the_amd_template_keeps_its_preset_and_warns_of_an_image_for_nvidia() -> None:
    done = render("runpod", "--kind", "amd", "--image", IMAGE)
    body = json.loads(done.stdout)
    assert body["category"] == "AMD"
    assert body["dockerStartCmd"][-4:] == ["train", "--preset", "rocm-mi300x", "--yes"]
    assert "warning: the tag 0.1.0-cuda-cloud says cuda" in done.stderr


def test_a_pod_of_runpod_comes_out_ready_to_send() -> None:
    body = printed(
        "runpod-pod", "--template", "30zmvf89kd", "--gpu", "NVIDIA L40S", "--gpu", "NVIDIA A40", "--interruptible",
        "--network-volume", "agv6w2qcg7",
    )  # fmt: skip
    RunpodPod.model_validate(body)
    assert body["templateId"] == "30zmvf89kd"
    assert body["gpuTypeIds"] == ["NVIDIA L40S", "NVIDIA A40"]
    assert body["interruptible"] is True
    assert body["networkVolumeId"] == "agv6w2qcg7"


def test_a_template_of_vast_comes_out_ready_to_send_in_both_modes() -> None:
    flags = ("--", "--validation-prompt", "a fox's den; rm -rf x")
    ssh = printed("vast", "--image", IMAGE, "--disk", "150", "--on-exit", "sleep", *flags)
    VastTemplate.model_validate(ssh)
    assert (ssh["image"], ssh["tag"]) == ("registry.example:5000/me/ltxtrain", f"0.1.0-cuda-cloud@{DIGEST}")
    assert ssh["recommended_disk_space"] == 150 and ssh["extra_filters"]["disk_space"] == {"gte": 150}
    assert "LTX_ON_EXIT=sleep" in shlex.split(ssh["env"])
    words = shlex.split(ssh["onstart"].replace("\\\n", " "), comments=True)
    place = words.index("train")
    assert words[place : place + 6] == ["train", "--preset", "bf16", "--validation-prompt", flags[-1], "--yes"]

    args = printed("vast", "--mode", "args", "--image", IMAGE, *flags)
    VastTemplate.model_validate(args)
    assert shlex.split(args["args_str"]) == ["train", "--preset", "bf16", "--validation-prompt", flags[-1], "--yes"]
    assert args["onstart"] == ""


def read_search(text: str) -> dict[str, dict[str, object]]:
    """Offers' filters from the words of Vast's command line: names in full, memory in MB, and its own defaults."""
    found: dict[str, dict[str, object]] = {
        name: {"eq": name != "external"} for name in ("verified", "external", "rentable")
    }
    for word in text.split():
        match = re.fullmatch(r"([a-z_]+)(>=|<=|=)(\S+)", word)
        assert match, word
        name, operator, value = match.groups()
        name = {"cuda_vers": "cuda_max_good"}.get(name, name)
        number: object = float(value) * (1000 if name.endswith("_ram") else 1) if re.match(r"[\d.]+$", value) else value
        found[name] = {{">=": "gte", "<=": "lte", "=": "eq"}[operator]: number}
    return found


def test_the_line_for_vasts_tool_says_the_same_as_the_json() -> None:
    done = render("vast", "--command", "--image", IMAGE)
    words = shlex.split(done.stdout)
    body = printed("vast", "--image", IMAGE)
    assert words[:3] == ["vastai", "create", "template"]
    told = dict(pairwise(words))
    assert told["--onstart-cmd"] == body["onstart"]
    assert (told["--image"], told["--image_tag"], told["--env"]) == (body["image"], body["tag"], body["env"])
    assert told["--disk_space"] == str(body["recommended_disk_space"])
    assert "--ssh" in words and "--direct" in words
    assert read_search(told["--search_params"]) == body["extra_filters"]


REFUSED = {
    "the placeholder": ("REGISTRY/NAME:cuda-cloud@sha256:DIGEST", "placeholder"),
    "no digest": ("me/ltxtrain:0.1.0-cuda-cloud", "no digest"),
    "latest": ("me/ltxtrain:latest", "another image tomorrow"),
    "latest with a digest": (f"me/ltxtrain:latest@{DIGEST}", "another image tomorrow"),
    "no tag and no digest": ("me/ltxtrain", "another image tomorrow"),
    "a short digest": ("me/ltxtrain:1@sha256:abc", "no name of an image"),
    "capitals": (f"Me/ltxtrain:1@{DIGEST}", "no name of an image"),
    "a blank": (f"me/ltx train:1@{DIGEST}", "no name of an image"),
    "dots in the place of the digest": ("me/ltxtrain:1-cuda-cloud@sha256:...", "no name of an image"),
    "no digest behind the sign for it": ("me/ltxtrain:1-cuda-cloud@", "no name of an image"),
    "a name of this computer": (f"ltxtrain:cuda-cloud@{DIGEST}", "no cloud can pull it"),
    "a registry of this computer": (f"localhost:5000/me/ltxtrain:1@{DIGEST}", "no cloud can pull it"),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("cloud", ["runpod", "vast"])
def test_an_image_that_nobody_should_send_is_refused(cloud: str, what: str) -> None:
    image, says = REFUSED[what]
    done = render(cloud, "--image", image)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"error: .*{says}.*\nhint: .+\n", done.stderr)


def test_going_without_a_digest_is_said_and_warned_of() -> None:
    done = render("runpod", "--tag-only", "--image", IMAGE)
    assert json.loads(done.stdout)["imageName"] == "registry.example:5000/me/ltxtrain:0.1.0-cuda-cloud"
    assert "warning: no digest" in done.stderr
    assert render("runpod", "--tag-only", "--image", f"me/ltxtrain@{DIGEST}").returncode == 2
    assert "there is no ssh server" in render("runpod", "--tag-only", "--image", "me/ltxtrain:cuda").stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("runpod", "--image", IMAGE, "--preset", "huge"), "--preset huge does not exist"),
        (("runpod", "--image", IMAGE, "--", "--webhook", "hf_" + "a" * 20), "the flags hold a token"),
        (("runpod-pod", "--template", "TEMPLATE"), "placeholder"),
        (("runpod-pod", "--template", "x1", "--", "--lora-rank", "8"), "takes its command from its template"),
        (("vast", "--image", f"me/ltxtrain@{DIGEST}"), "has no tag"),
        (("runpod", "--image", IMAGE, "--volume", "39"), "--volume 39 is too small"),
        (("runpod", "--image", IMAGE, "--volume", "0"), "--volume 0 is too small"),
        (("vast", "--image", IMAGE, "--disk", "39"), "--disk 39 is too small"),
        (("runpod", "--image", IMAGE, "--disk", "0"), "--disk 0 is too small"),
        (("runpod", "--image", IMAGE, "--name", ""), "--name is empty"),
        (("runpod", "--image", IMAGE, "--hf-secret", " "), "--hf-secret is empty"),
        (("runpod-pod", "--template", ""), "--template is empty"),
        (("runpod-pod", "--template", "my template"), "no id"),
        (("runpod-pod", "--template", "x1", "--network-volume", ""), "--network-volume is empty"),
        (("runpod-pod", "--template", "x1", "--gpu", ""), "--gpu is empty"),
        (("runpod-pod", "--template", "x1", "--gpu", "RTX 4090"), "did you mean NVIDIA GeForce RTX 4090?"),
        (("runpod-pod", "--template", "x1", "--gpu", "NVIDIA L04S"), "NVIDIA L40S"),
        (("runpod-pod", "--template", "x1", "--gpu", "Tesla T4"), "those that can train here: NVIDIA GeForce RTX 3090"),
        (("runpod-pod", "--template", "x1", "--gpu", "AMD Instinct MI300X OAM"), "hint: --kind amd"),
        (("runpod-pod", "--template", "x1", "--kind", "amd", "--gpu", "NVIDIA L40S"), "hint: --kind nvidia"),
        (("runpod-pod", "--template", "x1", "--lora-rank", "8"), "belong to the template"),
        (("runpod", "--image", IMAGE, "--max-train-steps", "3000"), "flags of ltxtrain train stand behind --"),
        (("vast", "--image", IMAGE, "3000"), "flags of ltxtrain train stand behind --"),
        (("vast",), "required: --image"),
        (("runpod", "--image", IMAGE, "--", "--dry-run"), "trains nothing"),
        (("runpod", "--image", IMAGE, "--", "--config", "my.toml"), "looked for on the machine"),
        (("vast", "--image", IMAGE, "--mode", "args", "--command"), "no place for the arguments"),
    ],
)
def test_what_would_not_work_is_refused_with_a_hint(words: tuple[str, ...], says: str) -> None:
    done = render(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert re.fullmatch(r"error: .+\nhint: .+\n", done.stderr), "one line, and a hint"


@pytest.mark.parametrize("cloud", ["runpod", "vast"])
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--", "--max-train-steps", "abc", "--lora_rnk", "3"), ("'abc' is not a whole number", "--lora-rank?")),
        (("--", "--preset", "bf16-multi-gpu"), ("is not built yet",)),
        (("--preset", "bf16-multi-gpu"), ("is not built yet",)),
        (("--", "300"), ("300",)),
        (("--", "--max-train-steps"), ("needs a value",)),
    ],
)
def test_training_words_that_would_fail_on_the_machine_fail_here(
    cloud: str, words: tuple[str, ...], says: tuple[str, ...]
) -> None:
    done = render(cloud, "--image", IMAGE, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert all(each in done.stderr for each in says), done.stderr
    lines = done.stderr.splitlines()
    assert all(line.startswith("error: ") for line in lines[:-1]) and lines[-1].startswith("hint: ")


def test_training_words_that_are_good_pass_without_a_word_and_without_the_users_own_variables() -> None:
    program = [sys.executable, "-S", str(ROOT / "deploy" / "render.py"), "runpod", "--image", IMAGE, "--"]
    words = ["--max-train-steps", "3000", "--run-name", "second", "--yes", "--set-aside-unbuilt"]
    mine = os.environ | {"LTXTRAIN_LORA_RANK": "many"}
    done = subprocess.run([*program, *words], capture_output=True, text=True, check=False, env=mine)
    assert (done.returncode, done.stderr) == (0, "")


def test_words_that_cannot_be_checked_are_said_to_be_unchecked(tmp_path: Path) -> None:
    for name in ("deploy", "presets"):
        shutil.copytree(ROOT / name, tmp_path / name)
    # -m ltxtrain is not found either: a folder of that name that holds no program stands before the real one.
    (tmp_path / "ltxtrain").mkdir()
    (tmp_path / "ltxtrain" / "__init__.py").touch()
    program = [
        sys.executable,
        str(tmp_path / "deploy" / "render.py"),
        "runpod",
        "--image",
        IMAGE,
        "--",
        "--lora_rnk",
        "3",
    ]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "--lora_rnk" in json.loads(done.stdout)["dockerStartCmd"]
    assert re.fullmatch(r"warning: the words of train were not checked: .+\n", done.stderr)
    elsewhere = render("runpod", "--image", IMAGE, "--", "--config", "/workspace/my.toml")
    assert elsewhere.returncode == 0 and "not checked" in elsewhere.stderr


def test_a_folder_of_ones_own_computer_and_a_volume_that_keeps_the_pod_are_warned_of() -> None:
    assert "./clips is a folder of the machine" in render("runpod", "--image", IMAGE, "--", "--data", "./clips").stderr
    assert render("runpod", "--image", IMAGE, "--", "--data=/workspace/other").stderr == ""
    volume = render("runpod-pod", "--template", "x1", "--network-volume", "v1")
    assert volume.returncode == 0 and "cannot be stopped, only terminated" in volume.stderr


def test_the_help_tells_where_flags_of_train_go_and_gives_an_example() -> None:
    for what in ("runpod", "runpod-pod", "vast"):
        done = render(what, "--help")
        assert done.returncode == 0 and "-- FLAGS of ltxtrain train" in done.stdout and "example:" in done.stdout
    bare = render()
    assert (bare.returncode, bare.stdout) == (2, "")
    assert "examples:" in bare.stderr and "docker push prints" in bare.stderr


def test_the_placeholders_refusal_tells_what_a_digest_is() -> None:
    done = render("runpod", "--image", "REGISTRY/NAME:cuda-cloud@sha256:DIGEST")
    assert "docker push prints" in done.stderr


GUIDES = [
    ROOT / "deploy" / "README.md",
    ROOT / "deploy" / "runpod" / "README.md",
    ROOT / "deploy" / "vast" / "README.md",
]


def written_commands(guide: Path) -> list[list[str]]:
    """The words of every ``python3 deploy/...`` in a guide, up to where the shell takes over."""
    found = re.findall(r"python3 (deploy/\w+\.py [^\n`]*)", guide.read_text(encoding="utf-8"))
    return [shlex.split(re.split(r"[|<>#]", text)[0]) for text in found]


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.parent.name)
def test_a_guide_is_short_and_its_commands_work_as_they_are_written(guide: Path) -> None:
    assert len(guide.read_text(encoding="utf-8").splitlines()) <= 90
    commands = written_commands(guide)
    assert {words[0] for words in commands} == {"deploy/render.py", "deploy/create.py"}
    for script, *words in commands:
        if script == "deploy/render.py":
            done = render(*(IMAGE if word == "$IMAGE" or word.startswith("REGISTRY/") else word for word in words))
            assert (done.returncode, done.stderr) == (0, ""), words
        else:
            program = [sys.executable, "-S", str(ROOT / script), *words]
            done = subprocess.run(program, input="", capture_output=True, text=True, check=False)
            assert done.stderr == "error: nothing came in on stdin, so nothing was sent\n", words


@pytest.mark.parametrize("guide", GUIDES[1:], ids=lambda guide: guide.parent.name)
def test_a_guide_begins_with_commands_in_the_order_of_its_numbers(guide: Path) -> None:
    text = guide.read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings[0] == "By command"
    assert re.findall(r"^(\d+)\. ", text, re.MULTILINE) == [str(number) for number in range(1, 12)]
    assert "Eleven steps" in text
