"""How much disk a run takes, and whether there is that much."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ltxtrain.config.compute import MemoryConfig
from ltxtrain.facts.models import ModelFacts
from ltxtrain.plan.memory import TEXT_TOKENS, TrainingSetup
from ltxtrain.plan.memory.weights import block_bytes, text_bytes, transformer_bytes
from ltxtrain.plan.records import Bucket, Sample
from ltxtrain.units import format_bytes

# H.264 at the quality that is written, and a PNG, in bytes for each pixel: rounded up from rendered videos.
VIDEO_BYTES_PER_PIXEL = 0.05
POSTER_BYTES_PER_PIXEL = 1.5


@dataclass(frozen=True)
class RunOutputs:
    """What the run writes: checkpoints kept, and videos as (shape, how many over the whole run)."""

    checkpoints: int
    adapter_params: int
    export_bytes: int
    videos: tuple[tuple[Bucket, int], ...]


def cache_bytes(samples: Sequence[Sample], model: ModelFacts, value_bytes: int, prompts: int) -> int:
    """Latents of each distinct sample, and embeddings of each distinct caption and prompt."""
    channels = model.transformer.latent_channels
    latents = sum(sample.bucket.tokens for sample in samples) * channels * value_bytes
    captions = len({caption for sample in samples for caption in sample.captions})
    return latents + (captions + prompts) * TEXT_TOKENS * model.transformer.caption_channels * value_bytes


def checkpoint_bytes(outputs: RunOutputs) -> int:
    """float32 weights and AdamW's two moments; one more than are kept, since the next is written before one goes."""
    return 12 * outputs.adapter_params * (outputs.checkpoints + 1)


def export_bytes(outputs: RunOutputs) -> int:
    """Two layouts, each in float32 and in the chosen number format."""
    return 2 * outputs.adapter_params * (4 + outputs.export_bytes)


def video_bytes(outputs: RunOutputs) -> int:
    total = 0.0
    for shape, count in outputs.videos:
        pixels = shape.width * shape.height
        total += count * pixels * (shape.frames * VIDEO_BYTES_PER_PIXEL + POSTER_BYTES_PER_PIXEL)
    return round(total)


def offloaded_bytes(model: ModelFacts, setup: TrainingSetup, memory: MemoryConfig) -> int:
    """Weights that group offload puts on disk, at the most: the text encoder's are gone before the others come. The
    same on every device: one without memory of its own puts them there all the same."""
    if not memory.enable_group_offload or memory.group_offload_to_disk_path is None:
        return 0
    whole = memory.group_offload_type == "leaf_level"
    transformer = model.transformer
    moved = transformer_bytes(transformer, setup) if whole else transformer.layers * block_bytes(transformer, setup)
    if memory.group_offload_vae:
        moved += model.vae.params * setup.vae_bytes
    return max(moved, text_bytes(model, setup) if memory.group_offload_text_encoder else 0)


def download_bytes(model: ModelFacts, environment: Mapping[str, str]) -> int:
    """The weights that are still to be fetched from the Hub: nothing for local models and for fetched ones."""
    if model.local:
        return 0
    fetched = hub_cache(environment) / f"models--{model.name.replace('/', '--')}" / "snapshots"
    return 0 if fetched.is_dir() and any(fetched.iterdir()) else model.file_bytes


def hub_cache(environment: Mapping[str, str]) -> Path:
    """Where huggingface_hub keeps what it fetches, by the environment variables that it documents."""
    if environment.get("HF_HUB_CACHE"):
        return Path(environment["HF_HUB_CACHE"]).expanduser()
    home = environment.get("HF_HOME") or f"{environment.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    return Path(home).expanduser() / "hub"


def disk_warnings(needs: Sequence[tuple[Path, int]]) -> list[str]:
    """One warning for each file system with less room than its share of ``needs``, as (folder, bytes)."""
    shares: dict[int, tuple[Path, int]] = {}
    for folder, size in needs:
        existing = _existing_parent(folder)
        device = existing.stat().st_dev
        shares[device] = (existing, shares.get(device, (existing, 0))[1] + size)
    warnings = []
    for folder, size in shares.values():
        free = shutil.disk_usage(folder).free
        if size > free:
            warnings.append(f"disk: about {format_bytes(size)} are needed at {folder}, {format_bytes(free)} are free")
    return warnings


def _existing_parent(path: Path) -> Path:
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())
