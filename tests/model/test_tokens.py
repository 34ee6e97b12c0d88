"""Tokens counted without the text encoder are those that the encoder's own tokenizer makes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import sentencepiece
from transformers import T5Tokenizer

from ltxtrain.config.model import ModelConfig
from ltxtrain.model.folder import ModelFolder
from ltxtrain.model.loading import Loading, load_text_encoder
from ltxtrain.model.tokens import token_counter

TEXTS = [
    "",
    "a red square moves to the right",
    "Ä 红色方块 🎬\n\ttwo  spaces ",
    "A man's café – “quoted”, ＦＵＬＬ width ½ ﬁne </s> <extra_id_3>",
    "a blue circle falls from the top to the bottom of a grey frame. " * 10,
]


def model_at(folder: Path | str) -> ModelConfig:
    return ModelConfig(pretrained_model_name_or_path=str(folder))


def test_the_tiny_models_tokens_are_counted_as_its_tokenizer_counts_them(tiny: ModelFolder, cache: Path) -> None:
    import torch

    _, tokenizer = load_text_encoder(tiny, Loading(torch.float32))
    for named in (model_at("ltxtrain/tiny"), model_at(tiny.base)):
        count = token_counter(named, cache)
        assert count is not None
        assert [count(text) for text in TEXTS] == [len(tokenizer(text).input_ids) for text in TEXTS]


def test_a_folder_with_a_sentencepiece_model_alone_is_counted_as_transformers_counts_it(tmp_path: Path) -> None:
    """LTX-Video's own repositories hold spiece.model and no tokenizer.json."""
    folder = tmp_path / "model" / "tokenizer"
    folder.mkdir(parents=True)
    with (folder / "spiece.model").open("wb") as target:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["a red square moves to the right of a grey frame", "it's a café"] * 20),
            model_writer=target,
            vocab_size=60,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            hard_vocab_limit=False,
            minloglevel=2,
        )
    count = token_counter(model_at(folder.parent), tmp_path)
    assert count is not None
    tokenizer = T5Tokenizer.from_pretrained(str(folder))
    plain = [text for text in TEXTS if "<" not in text]
    assert [count(text) for text in plain] == [len(tokenizer(text).input_ids) for text in plain]


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"not json", b"\xff\xfe"])
def test_a_tokenizer_that_cannot_be_read_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m" / "tokenizer").mkdir(parents=True)
    for name in ("tokenizer.json", "spiece.model"):
        (tmp_path / "m" / "tokenizer" / name).write_bytes(content)
    assert token_counter(model_at(tmp_path / "m"), tmp_path) is None


@pytest.mark.parametrize("name", ["somebody/nothing-here", "/no/such/place", "./nothing", "ltxtrain/tiny"])
def test_a_model_that_is_not_on_this_disk_has_no_counter(tmp_path: Path, name: str) -> None:
    assert token_counter(model_at(name), tmp_path) is None


def test_counting_imports_no_torch(tiny: ModelFolder, cache: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ltxtrain.config.model import ModelConfig;"
        "from ltxtrain.model.tokens import token_counter;"
        f"print(token_counter(ModelConfig(pretrained_model_name_or_path='ltxtrain/tiny'), Path({str(cache)!r}))('a'));"
        "assert not {'torch', 'transformers', 'diffusers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
