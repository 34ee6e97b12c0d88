from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from ltxtrain.errors import ModelError
from ltxtrain.facts.models import KNOWN_MODELS, TINY_MODEL, lora_params, model_facts, public_name

ATTENTION = ("to_k", "to_q", "to_v", "to_out.0")


@pytest.mark.parametrize(
    ("name", "params"),
    # Counted on the real classes without weights.
    [("Lightricks/LTX-Video-0.9.5", 1_923_385_472), ("Lightricks/LTX-Video-0.9.7-dev", 13_042_569_344)],
)
def test_counted_parameters_are_the_published_ones(name: str, params: int) -> None:
    facts = model_facts(name)
    assert facts is not None
    assert facts.transformer.params == params
    assert facts.text_params == 4_762_310_656


def test_rank_16_on_the_attention_projections_is_what_peft_counts() -> None:
    transformer = KNOWN_MODELS["Lightricks/LTX-Video-0.9.5"].transformer
    assert lora_params(transformer, 16, ATTENTION) == 14_680_064
    assert lora_params(transformer, 4, ATTENTION) * 4 == 14_680_064
    assert lora_params(transformer, 16, ("attn1.to_q",)) == 28 * 16 * 4096
    assert lora_params(transformer, 16, ("to_nothing",)) == 0


def test_unknown_repository_has_no_facts_and_the_tiny_model_has() -> None:
    assert model_facts("somebody/else") is None
    tiny = model_facts(TINY_MODEL)
    assert tiny is not None
    assert tiny.transformer.layers == 2


def _folder(root: Path) -> Path:
    for part in ("transformer", "vae", "text_encoder"):
        (root / part).mkdir(parents=True)
        save_file({"a": np.zeros((3, 5), np.float32), "b": np.zeros(2, np.float16)}, root / part / "model.safetensors")
    config = {
        "num_layers": 3,
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "cross_attention_dim": 16,
        "caption_channels": 32,
    }
    (root / "transformer" / "config.json").write_text(json.dumps(config))
    (root / "vae" / "config.json").write_text(
        json.dumps({"block_out_channels": [8, 16], "decoder_block_out_channels": [4]})
    )
    return root


def test_local_folder_is_read_from_its_headers(tmp_path: Path) -> None:
    facts = model_facts(str(_folder(tmp_path)))
    assert facts is not None
    assert facts.local
    assert (facts.transformer.params, facts.text_params, facts.vae.params) == (17, 17, 17)
    assert (facts.transformer.layers, facts.transformer.width, facts.transformer.cross_width) == (3, 16, 16)
    assert (facts.vae.encoder_width, facts.vae.decoder_width) == (8, 4)
    assert facts.file_bytes == sum(path.stat().st_size for path in tmp_path.glob("*/*.safetensors"))


@pytest.mark.parametrize("content", [b"", b"\xff" * 8 + b"x", b"\x02\x00\x00\x00\x00\x00\x00\x00[]"])
def test_file_that_is_no_safetensors_is_named(tmp_path: Path, content: bytes) -> None:
    bad = _folder(tmp_path) / "vae" / "model.safetensors"
    bad.write_bytes(content)
    with pytest.raises(ModelError, match="vae"):
        model_facts(str(tmp_path))


def test_folder_that_is_no_pipeline_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        model_facts(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "revision", "told"),
    [
        ("Lightricks/LTX-Video-0.9.5", None, "Lightricks/LTX-Video-0.9.5"),
        (TINY_MODEL, None, TINY_MODEL),
        ("someone/ltx-tuned", "c0ffee", "someone/ltx-tuned"),
        ("private/models", None, "models"),
        ("/home/someone/ltx-base", None, "ltx-base"),
        ("/home/someone/.cache/snapshots/c0ffee", "c0ffee", "c0ffee"),
        ("~/ltx-base", "c0ffee", "ltx-base"),
        ("./ltx-base/", "c0ffee", "ltx-base"),
        ("../ltx-base", "c0ffee", "ltx-base"),
        ("C:\\models\\ltx-base", None, "ltx-base"),
        ("secret project\\x/ltx-base", "c0ffee", "ltx-base"),
        ("ltx-base", None, "ltx-base"),
        ("", None, ""),
    ],
)
def test_of_a_model_on_disk_only_the_last_part_of_its_path_is_public(
    name: str, revision: str | None, told: str
) -> None:
    assert public_name(name, revision) == told
