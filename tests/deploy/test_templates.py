"""The templates fit what the clouds document, hold no secret, and start a command that this program understands."""

from __future__ import annotations

import copy
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ltxtrain.cli.app import run
from ltxtrain.config.catalogue import options
from ltxtrain.config.load import load_config
from ltxtrain.config.secrets import holds_token, is_secret_key
from tests.deploy.forms import SCHEMAS, Form, RunpodPod, RunpodTemplate, VastTemplate, schema

ROOT = Path(__file__).resolve().parents[2]
RUNPOD = ROOT / "deploy" / "runpod"
VAST = ROOT / "deploy" / "vast"
FORMS: dict[Path, type[Form]] = {
    RUNPOD / "template.nvidia.json": RunpodTemplate,
    RUNPOD / "template.amd.json": RunpodTemplate,
    RUNPOD / "pod.nvidia.json": RunpodPod,
    RUNPOD / "pod.amd.json": RunpodPod,
    VAST / "template.ssh.json": VastTemplate,
    VAST / "template.args.json": VastTemplate,
}
TEMPLATES = [path for path in FORMS if path.name.startswith("template")]
every_file = pytest.mark.parametrize("path", FORMS, ids=lambda path: f"{path.parent.name}/{path.name}")
every_template = pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: f"{path.parent.name}/{path.name}")


def read(path: Path) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return body


def variables(body: dict[str, Any]) -> dict[str, str]:
    """The variables that a template sets, from either cloud's way to say it."""
    if isinstance(body["env"], dict):
        return body["env"]
    words = shlex.split(body["env"])
    pairs = [words[place + 1].split("=", 1) for place, word in enumerate(words) if word == "-e"]
    return {name: value for name, value in pairs}


def command(body: dict[str, Any]) -> list[str]:
    """What ltxtrain is started with."""
    if "dockerStartCmd" in body:
        words = body["dockerStartCmd"]
    elif body["runtype"] == "args":
        words = shlex.split(body["args_str"])
    else:
        text = (VAST / "onstart.sh").read_text(encoding="utf-8").replace("\\\n", " ")
        words = shlex.split(text, comments=True)
        words = words[: next(place for place, word in enumerate(words) if word.startswith(">>"))]
    return words[words.index("train") :]


@every_file
def test_a_file_fits_the_form_of_its_cloud(path: Path) -> None:
    FORMS[path].model_validate(read(path))


def test_every_file_of_a_cloud_is_looked_at() -> None:
    assert {*RUNPOD.glob("*.json"), *VAST.glob("*.json")} == {*FORMS, *SCHEMAS}


FAULTS: dict[str, tuple[str, Any]] = {
    "a field that is not documented": ("dockerArgs", "train"),
    "a port without protocol": ("ports", ["22"]),
    "a port that does not exist": ("ports", ["65536/tcp"]),
    "a number as text": ("volumeInGb", "100"),
    "51 variables": ("env", {f"NAME_{number}": "" for number in range(51)}),
    "a variable that is no name": ("env", {"NO-NAME": ""}),
    "a number in a variable": ("env", {"NAME": 5}),
    "an unknown category": ("category", "INTEL"),
    "a command that is one text": ("dockerStartCmd", "train --preset bf16"),
    "no image": ("imageName", None),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_form_of_runpod_finds_a_fault(fault: str) -> None:
    body = read(RUNPOD / "template.nvidia.json")
    field, value = FAULTS[fault]
    with pytest.raises(ValidationError, match=field):
        RunpodTemplate.model_validate(body | {field: value})


def test_the_form_of_vast_finds_a_fault() -> None:
    body = read(VAST / "template.ssh.json")
    for field, value in {
        "onstart": "x" * 4049,
        "runtype": "ssh_direct",
        "extra_filters": {"cuda_vers": {"gte": 12.8}},
        "env": {"LTX_ON_EXIT": "exit"},
    }.items():
        with pytest.raises(ValidationError, match=field):
            VastTemplate.model_validate(body | {field: value})
    del body["docker_login_user"]
    with pytest.raises(ValidationError, match="docker_login_user"):
        VastTemplate.model_validate(body)


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.parent.name)
def test_the_schema_file_is_what_the_forms_say(path: Path) -> None:
    title, source, models = SCHEMAS[path]
    assert read(path) == schema(title, source, list(models)), "python -m tests.deploy.forms writes it again"


@every_template
def test_the_command_is_one_that_the_program_takes(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command(read(path))
    assert words[0] == "train" and words[-1] == "--yes"
    for name, value in variables(read(path)).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    # All is understood, and what is missing is clips: 3. A word that is not understood, or is not built, gives 2.
    (clips := tmp_path / "clips").mkdir()
    assert run([*words, "--dry-run", "--data", str(clips)]) == 3
    assert run([*words, "--no-such-option", "--dry-run", "--data", str(clips)]) == 2
    assert run(["validate", *words[1:-1], "--explain"]) == 0
    assert "LTXTRAIN_CHECKPOINT_MINUTES" in capsys.readouterr().out
    assert ("rocm-mi300x" if read(path).get("category") == "AMD" else "bf16") in words


@every_template
def test_training_goes_on_by_itself_when_the_template_starts_again(path: Path) -> None:
    words = command(read(path))
    assert not any(word.startswith("--resume") for word in words), "the default resumes; a number or nothing would not"
    assert load_config(["bf16"], env={}).config.checkpoint.resume_from_checkpoint == "latest"


@every_template
def test_every_variable_is_documented_or_an_option(path: Path) -> None:
    guide = ROOT / "docs" / "container.md"
    told = guide.read_text(encoding="utf-8") if guide.is_file() else None
    for name in variables(read(path)):
        if name.startswith("LTXTRAIN_"):
            assert name.removeprefix("LTXTRAIN_").lower() in options()
        elif told is None:
            pytest.skip("docs/container.md is not there")
        else:
            assert re.search(rf"\b{name}\b", told), f"{name} is not in docs/container.md"


def texts(value: Any, key: str = "") -> list[tuple[str, str]]:
    """Every text in a file with the key that it stands under."""
    if isinstance(value, dict):
        return [pair for inner, item in value.items() for pair in texts(item, str(inner))]
    if isinstance(value, list):
        return [pair for item in value for pair in texts(item, key)]
    return [(key, str(value))]


@every_file
def test_no_secret_and_no_moving_tag(path: Path) -> None:
    for key, text in texts(read(path)):
        assert not holds_token(text, key), key
        assert not (is_secret_key(key) or key == "docker_login_pass") or text == "", key
        assert not re.search(r"\blatest\b", text), key
    for name, value in variables(read(path)).items() if path in TEMPLATES else ():
        assert not is_secret_key(name) and name != "HF_TOKEN", f"{name}={value}"


def test_a_planted_secret_and_a_moving_tag_are_found(tmp_path: Path) -> None:
    clean = read(RUNPOD / "template.nvidia.json")
    for change in (
        {"imageName": "me/ltxtrain:latest"},
        {"env": {"HF_TOKEN": "{{ RUNPOD_SECRET_hf }}"}},
        {"readme": "hf_" + "a" * 20},
    ):
        path = tmp_path / "template.json"
        path.write_text(json.dumps(copy.deepcopy(clean) | change))
        with pytest.raises(AssertionError):
            TEMPLATES.append(path)
            try:
                test_no_secret_and_no_moving_tag(path)
            finally:
                TEMPLATES.remove(path)


@every_template
def test_what_is_kept_lies_on_the_volume_and_only_ssh_is_open(path: Path) -> None:
    body = read(path)
    ports = body.get("ports", [])
    if isinstance(body["env"], str):
        words = shlex.split(body["env"])
        assert {word for word in words if word.startswith("-")} <= {"-e", "-p"}, "Vast takes no other option"
        ports = [words[place + 1] for place, word in enumerate(words) if word == "-p"]
    assert ports in (["22/tcp"], ["22:22"], [])
    assert body.get("volumeMountPath", "/workspace") == "/workspace"
    assert body.get("dockerEntrypoint", []) == []
    log = variables(body).get("LTX_LOG", "/workspace/")
    assert log.startswith("/workspace/")
    assert variables(body)["LTX_ON_EXIT"] == "stop-pod", "a machine that has done its work costs nothing more"


def test_both_templates_of_vast_look_for_the_same_machines() -> None:
    one, two = read(VAST / "template.ssh.json"), read(VAST / "template.args.json")
    assert one["extra_filters"] == two["extra_filters"]
    filters = one["extra_filters"]
    assert filters["cuda_max_good"] == {"gte": 12.8}, (
        "the driver that CUDA 12.9 wheels need on every card, Blackwell too"
    )
    assert filters["disk_space"]["gte"] >= one["recommended_disk_space"] == two["recommended_disk_space"]
    assert filters["compute_cap"]["gte"] >= 800, "older cards do not compute in bf16"


def test_the_pod_asks_for_drivers_that_the_wheels_run_on() -> None:
    for version in read(RUNPOD / "pod.nvidia.json")["allowedCudaVersions"]:
        assert tuple(map(int, version.split("."))) >= (12, 8)
    assert "allowedCudaVersions" not in read(RUNPOD / "pod.amd.json")


@every_file
def test_the_guide_tells_of_every_field(path: Path) -> None:
    guide = (path.parent / "README.md").read_text(encoding="utf-8")
    for field in read(path):
        assert f"`{field}`" in guide, f"{field} is not explained in {path.parent.name}/README.md"
