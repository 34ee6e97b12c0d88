"""How many tokens a caption has for the text encoder, without the text encoder, and without torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from ltxtrain.config.model import ModelConfig
from ltxtrain.facts.models import BUILT_IN

TokenCounter = Callable[[str], int]
FILES = ("tokenizer.json", "spiece.model")  # the order in which transformers looks for them


def token_counter(section: ModelConfig, cache_dir: Path) -> TokenCounter | None:
    """Count as the tokenizer of ``section``'s model counts, its end token included; nothing is downloaded.

    None where that tokenizer is not on this disk, or cannot be read.
    """
    for name in FILES:
        path = _find(section, cache_dir, name)
        if path is not None and (counter := _read(path)) is not None:
            return counter
    return None


def _find(section: ModelConfig, cache_dir: Path, name: str) -> Path | None:
    model = section.pretrained_model_name_or_path
    if model in BUILT_IN:  # all of them have the tiny model's vocabulary
        found = sorted((cache_dir / "models").glob(f"*-*/tokenizer/{name}"))
        return found[-1] if found else None
    local = Path(model).expanduser() / "tokenizer" / name
    if local.is_file():
        return local
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        return None
    cached = try_to_load_from_cache(model, f"tokenizer/{name}", revision=section.revision)
    return Path(cached) if isinstance(cached, str) else None


def _read(path: Path) -> TokenCounter | None:
    if path.suffix == ".model":
        from sentencepiece import SentencePieceProcessor

        try:
            pieces = SentencePieceProcessor(model_file=str(path))
        except (OSError, RuntimeError):
            return None
        return lambda text: len(pieces.encode(text)) + 1  # T5 puts an end token behind each text

    from tokenizers import Tokenizer

    try:
        text = path.read_text(encoding="utf-8")
        whole = "model" in json.loads(text)  # looked at first: for a damaged one the library raises a bare Exception
    except (OSError, ValueError):
        return None
    if not whole:
        return None
    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text).ids)
