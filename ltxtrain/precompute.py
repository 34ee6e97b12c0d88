"""Clips and captions to latents and prompt embeddings on disk. Whatever is there already is not made again."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from pathlib import Path

import torch

from ltxtrain.data.cache import Entry, Prepared, entry_key, entry_path, read_entry, write_entry
from ltxtrain.data.frames import DECODER_VERSION, decode_ahead
from ltxtrain.events import Event, Notice, StageDone, StageProgress, StageStarted
from ltxtrain.facts.digests import file_sha256
from ltxtrain.learn.device import DTYPES, check_dtype, find_device, memory_advice, release_memory
from ltxtrain.learn.signals import StopFlag
from ltxtrain.model.folder import COMPONENTS, ModelFolder, load_text_encoder, load_vae, locate_model
from ltxtrain.model.text import MAX_TOKENS, encode_prompt, make_text_pipeline
from ltxtrain.model.vae import encode_frames, needs_tiling
from ltxtrain.plan.records import Plan, Sample

# A change of what an entry holds, with the same inputs, needs a new number here.
LATENTS_VERSION = "latents-1"
PROMPTS_VERSION = "prompts-1"
KEPT = "everything encoded so far is kept"
TEXT_MEMORY = "free the GPU of other programs; the text encoder of the released model needs about 9 GiB"


def iter_precompute(plan: Plan, stop: StopFlag) -> Generator[Event, None, Prepared]:
    """Fill the cache for ``plan`` and return where everything is. Stops between two entries when ``stop`` is set.

    The text encoder and the VAE are loaded one after the other, and only when there is something to encode.
    """
    config = plan.config
    device = find_device(config.speed.torch_num_threads)
    dtype = check_dtype(device, config.precision.mixed_precision, config.precision.vae_dtype)
    yield StageStarted("model")
    started = time.perf_counter()
    with stop.at_once("nothing was encoded yet"):
        model = locate_model(config.model, plan.cache_dir)
        digests = {part: model.digest(part) for part in COMPONENTS}
    yield StageDone("model", time.perf_counter() - started, model.name)

    prompts = {text: _prompt_entry(plan, digests, dtype, text) for text in _texts(plan)}
    yield from _encode_prompts(plan, model, device, dtype, prompts, stop)
    with stop.at_once(KEPT):
        latents = {sample.id: _latent_entry(plan, digests, sample) for sample in plan.samples}
    yield from _encode_clips(plan, model, device, latents, stop)
    return Prepared(latents, prompts, digests)


def _texts(plan: Plan) -> list[str]:
    """Every text that training or validation will ask for; the empty one stands in for dropped captions."""
    captions = [caption for sample in plan.samples for caption in sample.captions]
    prompts = [video.prompt for video in plan.videos]
    prompts += [plan.config.validation.validation_negative_prompt] if plan.videos else []
    return sorted({"", *captions, *prompts})


def _prompt_entry(plan: Plan, digests: dict[str, str], dtype: torch.dtype, text: str) -> Entry:
    made_from = {
        "version": PROMPTS_VERSION,
        "text": text,
        "text_encoder": digests["text_encoder"],
        "tokenizer": digests["tokenizer"],
        "dtype": str(dtype),
        "max_tokens": MAX_TOKENS,
    }
    key = entry_key("prompts", made_from)
    return Entry(entry_path(plan.cache_dir, "prompts", key), key)


def _latent_entry(plan: Plan, digests: dict[str, str], sample: Sample) -> Entry:
    bucket = sample.bucket
    made_from = {
        "version": LATENTS_VERSION,
        "media": file_sha256(Path(sample.path), plan.cache_dir / "digests"),
        "decoder": DECODER_VERSION,
        "start": sample.start,
        "fps": sample.fps,
        "size": [bucket.width, bucket.height, bucket.frames],
        "resize": list(sample.resize),
        "crop": list(sample.crop),
        "vae": digests["vae"],
        "dtype": plan.config.precision.vae_dtype,
        "tiled": _tiled(plan, sample),
    }
    key = entry_key("latents", made_from)
    return Entry(entry_path(plan.cache_dir, "latents", key), key)


def _tiled(plan: Plan, sample: Sample) -> bool:
    bucket = sample.bucket
    return needs_tiling(bucket.width, bucket.height, bucket.frames, asked=plan.config.cache.vae_enable_tiling)


def _missing(entries: Iterable[Entry]) -> set[str]:
    """Keys of entries that are absent or damaged. Everything is read, so a damaged file is found before training."""
    return {entry.key for entry in entries if read_entry(entry.path, entry.key) is None}


def _encode_prompts(
    plan: Plan, model: ModelFolder, device: torch.device, dtype: torch.dtype, entries: dict[str, Entry], stop: StopFlag
) -> Generator[Event, None, None]:
    with stop.at_once(KEPT):
        missing = _missing(entries.values())
    todo = [text for text, entry in entries.items() if entry.key in missing]
    yield StageStarted("text embeddings", len(entries), len(entries) - len(todo), "texts")
    started = time.perf_counter()
    compress = plan.config.cache.compress_disk_cache
    cut: list[str] = []
    if todo:
        with stop.at_once(KEPT), memory_advice("placing the text encoder", TEXT_MEMORY):
            encoder, tokenizer = load_text_encoder(model, dtype)
            pipeline = make_text_pipeline(encoder.to(device), tokenizer)
        for done, text in enumerate(todo, len(entries) - len(todo) + 1):
            stop.check(KEPT)
            with memory_advice("encoding captions", TEXT_MEMORY):
                embedding = encode_prompt(pipeline, text)
            cut += [text] if embedding.tokens > MAX_TOKENS else []
            tensors = {"embeds": embedding.embeds_LD, "mask": embedding.mask_L}
            entry = entries[text]
            write_entry(entry.path, entry.key, tensors, made_of=f"caption {text[:60]!r}", compress=compress)
            yield StageProgress("text embeddings", done)
        del encoder, tokenizer, pipeline
        release_memory(device)
    yield StageDone(
        "text embeddings", time.perf_counter() - started, f"{len(todo)} encoded, {len(entries) - len(todo)} kept"
    )
    if cut:
        yield Notice(_told_cut(cut), "warning")


def _told_cut(cut: list[str]) -> str:
    first = f"{cut[0][:60]!r} ..."
    if len(cut) == 1:
        return f"one text is longer than {MAX_TOKENS} tokens and is cut: {first}"
    return f"{len(cut)} of the texts are longer than {MAX_TOKENS} tokens and are cut, such as {first}"


def _encode_clips(
    plan: Plan, model: ModelFolder, device: torch.device, entries: dict[str, Entry], stop: StopFlag
) -> Generator[Event, None, None]:
    with stop.at_once(KEPT):
        missing = _missing(entries.values())
    todo = list({entries[s.id].key: s for s in plan.samples if entries[s.id].key in missing}.values())
    yield StageStarted("latents", len(plan.samples), len(plan.samples) - len(todo), "clips")
    started = time.perf_counter()
    compress = plan.config.cache.compress_disk_cache
    if todo:
        with stop.at_once(KEPT), memory_advice("placing the VAE", "free the GPU of other programs"):
            vae = load_vae(model, DTYPES[plan.config.precision.vae_dtype]).to(device)
        for done, (sample, frames_FHWC) in enumerate(decode_ahead(todo), len(plan.samples) - len(todo) + 1):
            stop.check(KEPT)
            with memory_advice(
                f"encoding {sample.bucket.key}", "add --vae-enable-tiling, or lower resolution or num_frames"
            ):
                latents_CFHW = encode_frames(vae, frames_FHWC, tiled=_tiled(plan, sample))
            entry = entries[sample.id]
            write_entry(entry.path, entry.key, {"latents": latents_CFHW}, made_of=sample.path, compress=compress)
            yield StageProgress("latents", done, sample.id)
        del vae
        release_memory(device)
    yield StageDone(
        "latents", time.perf_counter() - started, f"{len(todo)} encoded, {len(plan.samples) - len(todo)} kept"
    )
