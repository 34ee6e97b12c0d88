from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ltxtrain.errors import DataError
from ltxtrain.report.card import usage_snippet, write_card
from ltxtrain.report.run import read_run


def split(card: str) -> tuple[dict, str]:
    _, front, body = card.split("---\n", 2)
    return yaml.safe_load(front), body


def with_settings(run: Path, section: str, **values: object) -> Path:
    plan = json.loads((run / "plan.json").read_text())
    plan["config"].setdefault(section, {}).update(values)
    (run / "plan.json").write_text(json.dumps(plan))
    return run


@pytest.fixture(scope="module")
def card(made_run: Path) -> str:
    return write_card(made_run).read_text(encoding="utf-8")


def test_the_card_is_the_readme_and_is_the_same_each_time(made_run: Path, card: str) -> None:
    path = write_card(made_run)
    assert path == made_run / "README.md"
    assert path.read_text(encoding="utf-8") == card


def test_the_front_matter_tells_the_hub_what_it_asks_for(card: str) -> None:
    front, _ = split(card)
    assert front["base_model"] == "Lightricks/LTX-Video-0.9.5"
    assert front["base_model_relation"] == "adapter"
    assert front["library_name"] == "diffusers"
    assert front["pipeline_tag"] == "text-to-video"
    assert front["license"] == "other"
    assert front["license_name"] == "see-base-model"
    assert front["license_link"] == "https://huggingface.co/Lightricks/LTX-Video-0.9.5"
    assert set(front["tags"]) == {"ltx-video", "lora", "text-to-video", "diffusers", "template:sd-lora"}


def test_the_widget_shows_the_last_videos_by_relative_path(made_run: Path, card: str) -> None:
    front, body = split(card)
    assert [entry["text"] for entry in front["widget"]] == [
        "a red ball rolls from left to right",
        "a blue kite climbs in the wind",
    ]
    for entry in front["widget"]:
        assert entry["output"]["url"].startswith("samples/step-00000060/")
        assert (made_run / entry["output"]["url"]).is_file()
    assert "<Gallery />" in body


def test_prompts_survive_the_yaml(make_run: Callable[..., Path]) -> None:
    prompt = '"quoted": # not a comment\n---\n- é {x} & <b>'
    run = make_run(steps=4, validated=(4,), prompts={"odd": prompt})
    text = write_card(run).read_text(encoding="utf-8")
    front = yaml.safe_load(re.match(r"---\n(.*?)\n---\n# ", text, re.DOTALL).group(1))
    assert front["widget"][0]["text"] == prompt


def test_counts_stand_in_the_card_and_private_things_do_not(card: str) -> None:
    assert "- 4 clips of 5 found, 4 windows" in card
    assert "- 3 windows at 768 x 512, 121 frames" in card
    assert "- 1 window at 512 x 512, 49 frames" in card
    for private in ("/home/somebody", "secret-project", "tiny.mp4", "a red ball rolls over grass", "ball.mp4#0"):
        assert private not in card


def test_settings_versions_and_the_config_hash_stand_in_the_card(card: str) -> None:
    for line in (
        "| `lora_rank` | `16` |",
        "| `learning_rate` | `0.0001` |",
        "| `validation_negative_prompt` | `blurry` |",
        "| ltxtrain | `0.1.0` |",
        "| torch | `2.13.0` |",
        "| dataset fingerprint | `f1234` |",
        "| config hash | `abc123` |",
    ):
        assert line in card.splitlines()


def test_the_lock_and_the_image_stand_in_the_card_where_they_are_known(make_run: Callable[..., Path]) -> None:
    run = make_run(steps=2, validated=())
    manifest = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(manifest | {"lock_sha256": "10c4", "image": {"digest": "sha256:ab"}}))
    lines = write_card(run).read_text(encoding="utf-8").splitlines()
    assert "| lock sha256 | `10c4` |" in lines and "| image | `sha256:ab` |" in lines


def test_alpha_and_steps_are_told_where_they_were_left_open(make_run: Callable[..., Path]) -> None:
    run = with_settings(make_run(steps=2, planned=60, validated=()), "schedule", max_train_steps=None)
    text = write_card(run).read_text(encoding="utf-8")
    assert "| `lora_alpha` | `16`, as the rank |" in text
    assert "| `max_train_steps` | `60`, worked out from the epochs or by default |" in text
    with_settings(run, "adapter", lora_alpha=8.0)
    with_settings(run, "schedule", max_train_steps=60)
    text = write_card(run).read_text(encoding="utf-8")
    assert "| `lora_alpha` | `8.0` |" in text
    assert "| `max_train_steps` | `60` |" in text


@pytest.mark.parametrize(
    ("mode", "line"),
    [
        ("i2v", "`i2v`: 10 % of the samples begin with a given first frame, the others with text alone"),
        ("t2v", "`t2v`: all samples begin with text alone"),
    ],
)
def test_the_mode_is_told_in_words(make_run: Callable[..., Path], mode: str, line: str) -> None:
    run = with_settings(make_run(steps=2, validated=()), "objective", ltx_train_mode=mode, ltx_i2v_prob=0.1)
    text = write_card(run).read_text(encoding="utf-8")
    assert f"| `ltx_train_mode` | {line} |" in text
    assert "ltx_i2v_prob" not in text


def test_the_comfyui_file_is_named(card: str) -> None:
    assert "`export/red-ball_comfyui.safetensors`" in card


def test_the_snippet_is_python_that_uses_the_first_video_as_it_was_rendered(made_run: Path, card: str) -> None:
    snippet = re.search(r"```python\n(.*?)\n```", card, re.DOTALL).group(1)
    assert snippet == usage_snippet(read_run(made_run))
    calls = {ast.unparse(n.func): n for n in ast.walk(ast.parse(snippet)) if isinstance(n, ast.Call)}
    arguments = {k.arg: k.value for k in calls["pipe"].keywords}
    assert ast.literal_eval(arguments["prompt"]) == "a red ball rolls from left to right"
    assert [ast.literal_eval(arguments[name]) for name in ("width", "height", "num_frames")] == [64, 48, 9]
    assert ast.literal_eval(calls["LTXPipeline.from_pretrained"].args[0]) == "Lightricks/LTX-Video-0.9.5"
    weights = {k.arg: ast.literal_eval(k.value) for k in calls["pipe.load_lora_weights"].keywords}
    folder = ast.literal_eval(calls["pipe.load_lora_weights"].args[0])
    assert (made_run / folder / weights["weight_name"]).is_file()


def test_a_prompt_cannot_leave_the_snippet(make_run: Callable[..., Path]) -> None:
    run = make_run(steps=4, validated=(4,), prompts={"odd": 'a\'\n```\n""" $base import os'})
    text = write_card(run).read_text(encoding="utf-8")
    snippet = re.search(r"^```python\n(.*?)\n```$", text, re.DOTALL | re.MULTILINE).group(1)
    calls = [n for n in ast.walk(ast.parse(snippet)) if isinstance(n, ast.Call) and ast.unparse(n.func) == "pipe"]
    assert ast.literal_eval(calls[0].keywords[0].value) == 'a\'\n```\n""" $base import os'


@pytest.mark.parametrize("path", ["/home/somebody/my-ltx", "../my-ltx", "private/my-ltx", "C:\\models\\my-ltx"])
def test_a_base_model_on_disk_is_told_by_name_alone(make_run: Callable[..., Path], path: str) -> None:
    run = with_settings(make_run(steps=2, validated=()), "model", pretrained_model_name_or_path=path)
    text = write_card(run).read_text(encoding="utf-8")
    front, body = split(text)
    assert "base_model" not in front and "license_link" not in front
    assert "my-ltx" in body
    assert path not in text
    assert "from_pretrained('path/to/the/folder/my-ltx', dtype=" in body
    assert "a folder on the machine that trained" in body


def test_a_repository_of_somebody_else_is_named_whole(make_run: Callable[..., Path]) -> None:
    run = with_settings(make_run(steps=2, validated=()), "model", pretrained_model_name_or_path="someone/ltx-tuned")
    manifest = json.loads((run / "run.json").read_text())
    manifest["model"] = {"name": "someone/ltx-tuned", "revision": "c0ffee"}
    (run / "run.json").write_text(json.dumps(manifest))
    front, _ = split(write_card(run).read_text(encoding="utf-8"))
    assert front["base_model"] == "someone/ltx-tuned"


def test_a_file_of_target_modules_is_told_by_name_alone(make_run: Callable[..., Path]) -> None:
    run = make_run(steps=2, validated=())
    with_settings(run, "adapter", peft_lora_target_modules="/home/somebody/targets.json")
    assert "| `peft_lora_target_modules` | `targets.json` |" in write_card(run).read_text(encoding="utf-8")


def test_the_tiny_model_is_no_model_of_the_hub(make_run: Callable[..., Path]) -> None:
    run = with_settings(make_run(steps=2, validated=()), "model", pretrained_model_name_or_path="ltxtrain/tiny")
    front, body = split(write_card(run).read_text(encoding="utf-8"))
    assert front["license"] == "apache-2.0"
    assert "base_model" not in front
    assert "tests only" in body
    assert "'ltxtrain/tiny'" not in body, "no such repository"
    assert "in the folder `models/tiny-*` of the cache" in body and "every video is noise" in body


def test_a_random_model_is_told_as_one_and_is_no_model_of_the_hub(make_run: Callable[..., Path]) -> None:
    run = with_settings(make_run(steps=2, validated=()), "model", pretrained_model_name_or_path="ltxtrain/random-2b")
    front, body = split(write_card(run).read_text(encoding="utf-8"))
    assert front["license"] == "apache-2.0"
    assert "base_model" not in front
    assert "huggingface.co/ltxtrain" not in body
    assert "ltxtrain/random-2b, a built-in model with random weights" in body
    assert "no other program loads it" in body


def test_a_run_of_metrics_alone_still_has_a_card(make_run: Callable[..., Path]) -> None:
    run = make_run(steps=3, validated=())
    for name in ("plan.json", "run.json", "config.toml", "plan.txt"):
        (run / name).unlink()
    front, body = split(write_card(run).read_text(encoding="utf-8"))
    assert "widget" not in front
    assert "trained for 3 steps" in body


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        write_card(tmp_path)
