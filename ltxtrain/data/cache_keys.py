"""What the content of a cache entry depends on: everything that stands in its key, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ltxtrain.config import CacheRule, TextRule
from ltxtrain.data.store import LATENTS, PROMPTS, Entry, entry_at, entry_key
from ltxtrain.plan.fingerprint import known_digests
from ltxtrain.plan.memory import in_groups, in_tiles
from ltxtrain.plan.records import Plan, Sample

# A change of what an entry holds, with the same inputs, needs a new number here.
LATENTS_VERSION = "latents-1"
PROMPTS_VERSION = "prompts-1"


@dataclass(frozen=True)
class LatentsRule:
    """What all latents of a run have in common. ``vae`` is the digest of its settings and weights; ``tf32`` is whether
    products of float32 are computed in less."""

    cache_dir: Path
    decoder: str
    vae: str
    dtype: str
    tiling: bool
    groups: bool
    tf32: bool = False
    _media: dict[str, str] = field(default_factory=dict)

    def know(self, path: str, digest: str) -> None:
        """Take the digest of a clip's bytes from somebody who has read them."""
        self._media[path] = digest

    def tiled(self, sample: Sample) -> bool:
        return in_tiles(sample.bucket, self.tiling)

    def framewise(self, sample: Sample) -> bool:
        return in_groups(sample.bucket, self.groups)

    def entry(self, sample: Sample) -> Entry:
        """Reads the clip's bytes when their digest is not known yet. Raises ``DataError`` when it cannot."""
        bucket = sample.bucket
        if sample.path not in self._media:
            self._media.update(known_digests([sample], self.cache_dir / "digests"))
        made_from = {
            "version": LATENTS_VERSION,
            "media": self._media[sample.path],
            "decoder": self.decoder,
            "start": sample.start,
            "fps": sample.fps,
            "size": [bucket.width, bucket.height, bucket.frames],
            "resize": list(sample.resize),
            "crop": list(sample.crop),
            "vae": self.vae,
            "dtype": self.dtype,
            "tiled": self.tiled(sample),
        }
        if self.framewise(sample):
            made_from["framewise"] = True
        if self.tf32:
            made_from["tf32"] = True
        if sample.kind != "video":
            made_from["kind"] = sample.kind
        return entry_at(self.cache_dir, LATENTS, entry_key(LATENTS, made_from))


@dataclass(frozen=True)
class PromptsRule:
    """What all prompt embeddings of a run have in common. ``digests`` are those of the model's parts; ``precision`` is
    the format of the text encoder's weights, ``tf32`` whether products of float32 are computed in less."""

    cache_dir: Path
    digests: Mapping[str, str]
    dtype: str
    max_tokens: int
    precision: str = "no_change"
    tf32: bool = False

    def entry(self, text: str) -> Entry:
        made_from = {
            "version": PROMPTS_VERSION,
            "text": text,
            "text_encoder": self.digests["text_encoder"],
            "tokenizer": self.digests["tokenizer"],
            "dtype": self.dtype,
            "max_tokens": self.max_tokens,
        }
        if self.precision != "no_change":
            made_from["precision"] = self.precision
        if self.tf32:
            made_from["tf32"] = True
        return entry_at(self.cache_dir, PROMPTS, entry_key(PROMPTS, made_from))


def latents_rule(plan: Plan, digests: Mapping[str, str], decoder: str, *, tf32: bool = False) -> LatentsRule:
    config, cache = plan.config, plan.config.cache
    pieces = {"tiling": cache.vae_enable_tiling, "groups": cache.vae_enable_framewise_encoding}
    return LatentsRule(plan.cache_dir, decoder, digests["vae"], config.precision.vae_dtype, **pieces, tf32=tf32)


def text_rules(plan: Plan) -> dict[str, TextRule]:
    """Every text that training or validation will ask for, and how it is encoded; in order.

    The empty text stands in for dropped captions. A text of several data sets is encoded up front if one of them says
    so; those of no data set are encoded as the global options say.
    """
    cache = plan.config.cache
    written = not cache.text_cache_disable
    fallback = TextRule(cache.text_cache_ondemand or not written, written, cache.text_encoder_batch_size)
    rules: dict[str, TextRule] = {}
    of_sets = {dataset.id: dataset.cache.text for dataset in plan.datasets}
    for sample in (*plan.samples, *plan.eval_samples):
        rule = of_sets.get(sample.dataset, fallback)
        for caption in sample.captions:
            if caption not in rules or (rules[caption].ondemand and not rule.ondemand):
                rules[caption] = rule
    others = ["", *(video.prompt for video in plan.videos)]
    others += [plan.config.validation.validation_negative_prompt] if plan.videos else []
    for text in others:
        rules.setdefault(text, fallback)
    return {text: rules[text] for text in sorted(rules)}


def later(rule: CacheRule | TextRule) -> bool:
    """Whether entries are encoded when training first needs them."""
    return rule.ondemand or not rule.written
