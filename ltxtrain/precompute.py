"""Clips and captions to latents and prompt embeddings on disk. Whatever is there already is not made again."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from typing import Any

from ltxtrain.data.cache import write_entry
from ltxtrain.data.cache_keys import LatentsRule, PromptsRule
from ltxtrain.data.frames import DECODER_VERSION, decode_ahead, decode_window
from ltxtrain.data.prepared import Prepared, Source, Tensors
from ltxtrain.data.store import Entry, seems_whole
from ltxtrain.events import Event, Notice, StageDone, StageProgress, StageStarted
from ltxtrain.learn.device import DTYPES, check_dtype, find_device, memory_advice, release_memory
from ltxtrain.learn.signals import StopFlag
from ltxtrain.model.folder import COMPONENTS, ModelFolder, load_text_encoder, load_vae, locate_model
from ltxtrain.model.text import MAX_TOKENS, PromptEmbedding, encode_prompt, make_text_pipeline
from ltxtrain.model.vae import encode_frames
from ltxtrain.plan.records import Plan, Sample

KEPT = "everything encoded so far is kept"
TEXT_MEMORY = "free the GPU of other programs; the text encoder of the released model needs about 9 GiB"
VAE_MEMORY = "add --vae-enable-tiling, or lower resolution or num_frames"


class Encoders:
    """The VAE and the text encoder, each loaded when it is first needed, and let go when told so."""

    def __init__(self, plan: Plan, model: ModelFolder) -> None:
        config = plan.config
        self.device = find_device(config.speed.torch_num_threads)
        self.dtype = check_dtype(self.device, config.precision.mixed_precision, config.precision.vae_dtype)
        self._vae_dtype = DTYPES[config.precision.vae_dtype]
        self._model = model
        self._vae: Any = None
        self._text: Any = None

    def load_vae(self) -> None:
        if self._vae is None:
            with memory_advice("placing the VAE", "free the GPU of other programs"):
                self._vae = load_vae(self._model, self._vae_dtype).to(self.device)

    def load_text(self) -> None:
        if self._text is None:
            with memory_advice("placing the text encoder", TEXT_MEMORY):
                encoder, tokenizer = load_text_encoder(self._model, self.dtype)
                self._text = make_text_pipeline(encoder.to(self.device), tokenizer)

    def clip(self, sample: Sample, frames_FHWC: Any, *, tiled: bool) -> Tensors:
        self.load_vae()
        with memory_advice(f"encoding {sample.bucket.key}", VAE_MEMORY):
            return {"latents": encode_frames(self._vae, frames_FHWC, tiled=tiled)}

    def text(self, text: str) -> PromptEmbedding:
        self.load_text()
        with memory_advice("encoding captions", TEXT_MEMORY):
            return encode_prompt(self._text, text)

    def release(self) -> None:
        if self._vae is not None or self._text is not None:
            self._vae = self._text = None
            release_memory(self.device)


def iter_precompute(plan: Plan, stop: StopFlag) -> Generator[Event, None, Prepared]:
    """Fill the cache for ``plan`` and return what reads it. Stops between two entries when ``stop`` is set.

    The text encoder and the VAE are loaded one after the other, and only when there is something to encode.
    """
    yield StageStarted("model")
    started = time.perf_counter()
    with stop.at_once("nothing was encoded yet"):
        model = locate_model(plan.config.model, plan.cache_dir)
        digests = {part: model.digest(part) for part in COMPONENTS}
    yield StageDone("model", time.perf_counter() - started, model.name)

    encoders = Encoders(plan, model)
    prompts_rule = PromptsRule(plan.cache_dir, digests, str(encoders.dtype), MAX_TOKENS)
    prompts = {text: prompts_rule.entry(text) for text in _texts(plan)}
    yield from _encode_prompts(plan, encoders, prompts, stop)
    rule = LatentsRule(
        plan.cache_dir,
        DECODER_VERSION,
        digests["vae"],
        plan.config.precision.vae_dtype,
        plan.config.cache.vae_enable_tiling,
    )
    with stop.at_once(KEPT):
        latents = {sample.id: rule.entry(sample) for sample in plan.samples}
    yield from _encode_clips(plan, encoders, rule, latents, stop)
    return Prepared(
        digests,
        _latents_source(encoders, rule),
        _prompts_source(encoders, prompts_rule),
        release=encoders.release,
        compress=plan.config.cache.compress_disk_cache,
    )


def _latents_source(encoders: Encoders, rule: LatentsRule) -> Source[Sample]:
    def encode(sample: Sample) -> dict[Entry, Tensors]:
        tensors = encoders.clip(sample, decode_window(sample), tiled=rule.tiled(sample))
        encoders.release()
        return {rule.entry(sample): tensors}

    return Source(rule.entry, encode, _always, _always, lambda sample: sample.id)


def _prompts_source(encoders: Encoders, rule: PromptsRule) -> Source[str]:
    def encode(text: str) -> dict[Entry, Tensors]:
        tensors = _tensors_of(encoders.text(text))
        encoders.release()
        return {rule.entry(text): tensors}

    return Source(rule.entry, encode, _always, _always, lambda text: f"caption {text[:60]!r}")


def _always(item: object) -> bool:
    return True


def _tensors_of(embedding: PromptEmbedding) -> Tensors:
    return {"embeds": embedding.embeds_LD, "mask": embedding.mask_L}


def _texts(plan: Plan) -> list[str]:
    """Every text that training or validation will ask for; the empty one stands in for dropped captions."""
    captions = [caption for sample in (*plan.samples, *plan.eval_samples) for caption in sample.captions]
    prompts = [video.prompt for video in plan.videos]
    prompts += [plan.config.validation.validation_negative_prompt] if plan.videos else []
    return sorted({"", *captions, *prompts})


def _missing(entries: Iterable[Entry]) -> set[str]:
    """Keys of entries that are absent or plainly damaged. What a glance does not see is found when it is read."""
    return {entry.key for entry in entries if not seems_whole(entry)}


def _encode_prompts(
    plan: Plan, encoders: Encoders, entries: dict[str, Entry], stop: StopFlag
) -> Generator[Event, None, None]:
    with stop.at_once(KEPT):
        missing = _missing(entries.values())
    todo = [text for text, entry in entries.items() if entry.key in missing]
    yield StageStarted("text embeddings", len(entries), len(entries) - len(todo), "texts")
    started = time.perf_counter()
    compress = plan.config.cache.compress_disk_cache
    cut: list[str] = []
    if todo:
        with stop.at_once(KEPT):
            encoders.load_text()
        for done, text in enumerate(todo, len(entries) - len(todo) + 1):
            stop.check(KEPT)
            embedding = encoders.text(text)
            cut += [text] if embedding.tokens > MAX_TOKENS else []
            entry = entries[text]
            tensors = _tensors_of(embedding)
            write_entry(entry.path, entry.key, tensors, made_of=f"caption {text[:60]!r}", compress=compress)
            yield StageProgress("text embeddings", done)
        encoders.release()
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
    plan: Plan, encoders: Encoders, rule: LatentsRule, entries: dict[str, Entry], stop: StopFlag
) -> Generator[Event, None, None]:
    with stop.at_once(KEPT):
        missing = _missing(entries.values())
    todo = list({entries[s.id].key: s for s in plan.samples if entries[s.id].key in missing}.values())
    yield StageStarted("latents", len(plan.samples), len(plan.samples) - len(todo), "clips")
    started = time.perf_counter()
    compress = plan.config.cache.compress_disk_cache
    if todo:
        with stop.at_once(KEPT):
            encoders.load_vae()
        for done, (sample, frames_FHWC) in enumerate(decode_ahead(todo), len(plan.samples) - len(todo) + 1):
            stop.check(KEPT)
            tensors = encoders.clip(sample, frames_FHWC, tiled=rule.tiled(sample))
            entry = entries[sample.id]
            write_entry(entry.path, entry.key, tensors, made_of=sample.path, compress=compress)
            yield StageProgress("latents", done, sample.id)
        encoders.release()
    yield StageDone(
        "latents", time.perf_counter() - started, f"{len(todo)} encoded, {len(plan.samples) - len(todo)} kept"
    )
