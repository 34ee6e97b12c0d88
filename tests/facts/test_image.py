"""Inside an image its facts are known; outside, or with a damaged file, nothing breaks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ltxtrain.facts.image import FACTS, ImageFacts, image_facts

DIGEST = "sha256:" + "ab" * 32
WHOLE = {name: f"the {name}" for name in FACTS}


def written(folder: Path, content: str | dict[str, object]) -> dict[str, str]:
    path = folder / "image.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return {"LTX_IMAGE": str(path)}


def test_outside_of_an_image_there_is_nothing_to_tell(tmp_path: Path) -> None:
    for env in ({}, {"LTX_IMAGE": "", "LTX_IMAGE_DIGEST": ""}, {"LTX_IMAGE": str(tmp_path / "none.json")}):
        assert image_facts(env) == ImageFacts()


def test_the_facts_of_the_image_are_read_and_no_others(tmp_path: Path) -> None:
    env = written(tmp_path, {**WHOLE, "HF_TOKEN": "not a fact", "layers": [1, 2]})
    assert image_facts(env) == ImageFacts(WHOLE)


def test_what_the_builder_did_not_know_is_left_out(tmp_path: Path) -> None:
    env = written(tmp_path, {"kind": "cpu", "revision": "unknown", "torch": "", "version": 7, "created": None})
    assert image_facts(env) == ImageFacts({"kind": "cpu"})


@pytest.mark.parametrize("given", [DIGEST, f"registry.example/ltxtrain@{DIGEST}", f"ltxtrain:0.1@{DIGEST} \n"])
def test_the_digest_is_taken_from_the_variable(tmp_path: Path, given: str) -> None:
    env = written(tmp_path, {"kind": "cpu"}) | {"LTX_IMAGE_DIGEST": given}
    assert image_facts(env) == ImageFacts({"kind": "cpu", "digest": DIGEST})
    assert image_facts({"LTX_IMAGE_DIGEST": given}).facts == {"digest": DIGEST}


@pytest.mark.parametrize("given", ["latest", "sha256:abc", f"{DIGEST}0", "somebody:hunter2@registry/ltxtrain"])
def test_what_is_no_digest_is_told_and_not_repeated(given: str) -> None:
    found = image_facts({"LTX_IMAGE_DIGEST": given})
    assert found.facts == {} and len(found.told) == 1 and given not in found.told[0]


@pytest.mark.parametrize("content", ["", '{"kind": ', '["kind"]', "\x00", "7"])
def test_a_damaged_file_is_one_warning(tmp_path: Path, content: str) -> None:
    env = written(tmp_path, content)
    found = image_facts(env)
    assert found.facts == {} and len(found.told) == 1
    assert env["LTX_IMAGE"] in found.told[0] and "LTX_IMAGE" in found.told[0]


def test_a_folder_in_place_of_the_file_is_one_warning(tmp_path: Path) -> None:
    assert len(image_facts({"LTX_IMAGE": str(tmp_path)}).told) == 1


def test_bytes_that_are_no_text_are_one_warning(tmp_path: Path) -> None:
    (tmp_path / "image.json").write_bytes(b"\xff\xfe{}")
    assert len(image_facts({"LTX_IMAGE": str(tmp_path / "image.json")}).told) == 1
