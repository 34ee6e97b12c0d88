"""Whatever a file holds, reading it ends in a configuration or in one line for each fault, and in nothing else."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ltxtrain.config import load_config
from ltxtrain.config.data import DataConfig
from ltxtrain.config.presets import preset_names, read_preset
from ltxtrain.errors import ConfigError, DataError
from tests.datasets import resolved

HERE = Path(__file__).parent
MUTATIONS = 250
PIECES = [*'"{}[],:=\n#.\\', "null", "true", "NaN", "1e999", "-1", '""', "[[", '"""', "\0", "é", "datasets"]
PIECES += ["{env:X}", "inf", "{}", "[]", '"datasets": [[1]]', '"video": []', "9" * 30, "[adapter]", '"--seed": 1,']


def originals() -> list[tuple[str, str]]:
    """The guides' two files, and the presets without their tables about themselves."""
    guides = HERE / "documented"
    found = [("f.json", guides / "config.json"), ("list.json", guides / "multidatabackend.json")]
    texts = [(name, path.read_text(encoding="utf-8")) for name, path in found]
    presets = [read_preset(name).path.read_text(encoding="utf-8") for name in preset_names()]
    return texts * 3 + [("f.toml", text.split("\n\n", 1)[1]) for text in presets]


def mutated(text: str, draw: random.Random) -> str:
    for _ in range(draw.randint(1, 2)):
        start = draw.randrange(len(text) + 1)
        text = text[:start] + draw.choice(PIECES) + text[start + draw.choice([0, 0, 1, 2, 5, 20]) :]
    return text


def test_a_mutated_file_is_read_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    draw = random.Random(20260102)
    texts = originals()
    read = refused = 0
    for _ in range(MUTATIONS):
        name, text = draw.choice(texts)
        path = Path(name)
        path.write_bytes(mutated(text, draw).encode())
        try:
            if name == "list.json":
                resolved(DataConfig(data_backend_config=path))
            else:
                load_config(files=[path], env={}, set_aside_unbuilt=True)
            read += 1
        except ConfigError as error:
            assert len(str(error).splitlines()) == len(error.faults) > 0
            refused += 1
        except DataError:
            refused += 1
    assert read > 5 and refused > 100, (read, refused)
