"""Peak memory of each phase, line by line, from sizes alone. Plain functions; nothing is loaded or measured.

Phases never hold what they do not need: the text encoder alone, the VAE alone, then the transformer. Where a factor
stands below, it says what it was taken from. Everything is bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ltxtrain.facts.models import ModelFacts, lora_params
from ltxtrain.plan.records import Bucket, PhaseMemory

MIB = 1024**2
TEXT_TOKENS = 128

# What a process takes before any weight: the driver's context on an accelerator, the libraries in main memory.
ACCELERATOR_CONTEXT = 500 * MIB
HOST_LIBRARIES = 900 * MIB

# Saved for the backward pass by one transformer block: bytes for each token and channel at 2 bytes a value, counted
# with saved-tensor hooks on a real block with rank-16 adapters; within 10 % of four published peaks of LTX 2B.
BLOCK_ACTIVATION_BYTES = 57
# Conditioning, gradients of activations, library workspaces.
TRAINING_WORKSPACE = 150 * MIB
# Live at once in a forward pass without gradients: hidden states, the feed-forward's fourfold width, q, k, v, output.
FORWARD_ACTIVATION_BYTES = 24

# Live at once while the VAE encodes or decodes, in tensors of 128 channels at a quarter of the frame's width and
# height: 7.4 and 6.4, counted from every allocation of the 0.9.5 VAE at three sizes; the rest is for the workspaces of
# the convolutions. Those grow with the memory that is free: on an 80 GiB card a trainer published 11.6 GiB reserved for
# 768x512x49, of which 2.1 are tensors.
ENCODE_TENSORS = 11
DECODE_TENSORS = 9
# Encoded and decoded in tiles of this edge when asked for, and above so many pixels in a clip.
TILE = 512
TILE_ABOVE_PIXELS = 768 * 512 * 161

MARGIN = 0.15


@dataclass(frozen=True)
class TrainingSetup:
    """What the estimate needs of the configuration. ``*_bytes`` are bytes for each value of the weights.

    ``batches`` are clips in one batch of a bucket, where that is not ``batch_size``; ``measured`` are those in one
    batch of a set that is held out; ``encoded`` are clips that the VAE encodes at one time, where that is more than
    one. With ``*_on_demand`` training holds the VAE or the text encoder.
    """

    rank: int
    targets: tuple[str, ...]
    weight_bytes: int
    vae_bytes: int
    batch_size: int
    checkpointing: bool
    tiling: bool
    accelerator: str  # "cuda", "rocm", "mps" or "cpu"
    validation: Bucket | None
    batches: Mapping[Bucket, int] = field(default_factory=dict)
    measured: Mapping[Bucket, int] = field(default_factory=dict)
    encoded: Mapping[Bucket, int] = field(default_factory=dict)
    latents_on_demand: bool = False
    texts_on_demand: bool = False

    def batch_of(self, bucket: Bucket) -> int:
        return self.batches.get(bucket, self.batch_size)

    def pixels_encoded(self, bucket: Bucket) -> int:
        """Pixels that one pass of the VAE's encoder takes in: of one clip, or of several."""
        return bucket.width * bucket.height * bucket.frames * self.encoded.get(bucket, 1)


def estimate_memory(model: ModelFacts, buckets: Sequence[Bucket], setup: TrainingSetup) -> tuple[PhaseMemory, ...]:
    """Text embeddings, latents, training, evaluation and validation on the device, and main memory where that is
    another one.

    ``buckets`` are those that are trained on; ``setup.encoded`` may name more, which are only encoded.
    """
    largest = max(buckets, key=lambda bucket: bucket.tokens * setup.batch_of(bucket))
    widest = max([*buckets, *setup.encoded], key=setup.pixels_encoded)
    training = training_lines(model, largest, setup)
    training += on_demand_lines(model, widest, setup, dict(training))
    phases = [
        _phase("text embeddings", setup, text_lines(model, setup)),
        _phase("latents", setup, encode_lines(model, widest, setup)),
        _phase("training", setup, training),
    ]
    if setup.measured:
        phases.append(_phase("evaluation", setup, evaluation_lines(model, setup)))
    if setup.validation is not None:
        phases.append(_phase("validation", setup, validation_lines(model, setup.validation, setup)))
    if setup.accelerator not in ("cpu", "mps"):
        phases.append(_host_phase(model, setup))
    return tuple(phases)


def text_lines(model: ModelFacts, setup: TrainingSetup) -> list[tuple[str, int]]:
    """One caption at a time: activations are small beside the weights."""
    return [
        ("text encoder weights", model.text_params * setup.weight_bytes),
        ("activations", TEXT_TOKENS * model.transformer.caption_channels * 40 * setup.weight_bytes),
    ]


def encode_lines(model: ModelFacts, bucket: Bucket, setup: TrainingSetup) -> list[tuple[str, int]]:
    tiled = in_tiles(bucket, setup.tiling)
    width, height = _tile_size(bucket, tiled)
    clips = setup.encoded.get(bucket, 1)
    one = ENCODE_TENSORS * _vae_tensor(width, height, bucket.frames, model.vae.encoder_width, setup.vae_bytes)
    several = f"{clips} x " if clips > 1 else ""
    return [
        ("VAE weights", model.vae.params * setup.vae_bytes),
        (f"activations of {several}{bucket.key}" + (" in tiles" if tiled else ""), clips * one),
    ]


def on_demand_lines(
    model: ModelFacts, bucket: Bucket, setup: TrainingSetup, training: Mapping[str, int]
) -> list[tuple[str, int]]:
    """What encoding between two steps adds to ``training``'s lines: weights that stay, and activations, as far as they
    take more than the step's own, which are not there at the same time."""
    lines: list[tuple[str, int]] = []
    encoding: list[int] = []
    for asked, phase in (
        (setup.latents_on_demand, encode_lines(model, bucket, setup)),
        (setup.texts_on_demand, text_lines(model, setup)),
    ):
        if asked:
            (weights, size), (_, activations) = phase
            lines.append((f"{weights}, on demand", size))
            encoding.append(activations)
    step = sum(size for name, size in training.items() if name.startswith("activations"))
    beyond = max(encoding, default=0) - step
    return [*lines, ("activations of encoding, beyond the step's", beyond)] if beyond > 0 else lines


def training_lines(model: ModelFacts, bucket: Bucket, setup: TrainingSetup) -> list[tuple[str, int]]:
    """Weights, adapter with its gradients and AdamW's two moments in float32, activations of the largest bucket."""
    facts = model.transformer
    clips = setup.batch_of(bucket)
    tokens = bucket.tokens * clips
    block = BLOCK_ACTIVATION_BYTES * facts.width * tokens * setup.weight_bytes // 2
    if setup.checkpointing:
        boundaries = facts.layers * facts.width * tokens * setup.weight_bytes
        activations = boundaries + block
        kept = "one block and all boundaries"
    else:
        activations = facts.layers * block
        kept = f"{facts.layers} blocks"
    return [
        ("transformer weights", facts.params * setup.weight_bytes),
        *adapter_lines(model, setup),
        (f"activations of {clips} x {bucket.key}, {kept}", activations),
        ("workspace", TRAINING_WORKSPACE),
    ]


def adapter_lines(model: ModelFacts, setup: TrainingSetup) -> list[tuple[str, int]]:
    params = lora_params(model.transformer, setup.rank, setup.targets)
    return [("adapter and its gradients", 8 * params), ("optimiser state", 8 * params)]


def evaluation_lines(model: ModelFacts, setup: TrainingSetup) -> list[tuple[str, int]]:
    """A forward pass of the largest batch that is held out, beside all that training keeps. Nothing is kept of it."""
    bucket = max(setup.measured, key=lambda bucket: bucket.tokens * setup.measured[bucket])
    clips = setup.measured[bucket]
    tokens = bucket.tokens * clips
    activations = FORWARD_ACTIVATION_BYTES * model.transformer.width * tokens * setup.weight_bytes // 2
    return [
        ("transformer weights", model.transformer.params * setup.weight_bytes),
        *adapter_lines(model, setup),
        (f"activations of {clips} x {bucket.key}", activations),
    ]


def validation_lines(model: ModelFacts, shape: Bucket, setup: TrainingSetup) -> list[tuple[str, int]]:
    """The pipeline renders inside of training: all that training keeps, and the VAE. Guidance doubles the batch."""
    denoise = 2 * FORWARD_ACTIVATION_BYTES * model.transformer.width * shape.tokens * setup.weight_bytes // 2
    width, height = _tile_size(shape, in_tiles(shape, setup.tiling))
    decode = DECODE_TENSORS * _vae_tensor(width, height, shape.frames, model.vae.decoder_width, setup.vae_bytes)
    return [
        ("transformer weights", model.transformer.params * setup.weight_bytes),
        *adapter_lines(model, setup),
        ("VAE weights", model.vae.params * setup.vae_bytes),
        (f"activations of {shape.key}", max(denoise, decode)),
    ]


def _host_phase(model: ModelFacts, setup: TrainingSetup) -> PhaseMemory:
    """Weights pass through main memory on their way to the device, one component at a time."""
    weights = setup.weight_bytes * max(model.text_params, model.transformer.params)
    lines = [("libraries", 2 * HOST_LIBRARIES), ("largest component while it is loaded", weights)]
    return _with_margin("loading", "main memory", lines)


def _phase(name: str, setup: TrainingSetup, lines: list[tuple[str, int]]) -> PhaseMemory:
    base = ("libraries", HOST_LIBRARIES) if setup.accelerator == "cpu" else ("device context", ACCELERATOR_CONTEXT)
    return _with_margin(name, setup.accelerator, [base, *lines])


def _with_margin(name: str, device: str, lines: list[tuple[str, int]]) -> PhaseMemory:
    known = sum(size for _, size in lines)
    margin = round(known * MARGIN)
    return PhaseMemory(name, device, tuple(lines), known + margin, margin)


def in_tiles(bucket: Bucket, asked: bool) -> bool:
    """Whether the VAE works in tiles: when asked for, and where one pass would be the run's memory peak."""
    return asked or bucket.width * bucket.height * bucket.frames > TILE_ABOVE_PIXELS


def _tile_size(bucket: Bucket, tiled: bool) -> tuple[int, int]:
    return (min(bucket.width, TILE), min(bucket.height, TILE)) if tiled else (bucket.width, bucket.height)


def _vae_tensor(width: int, height: int, frames: int, channels: int, value_bytes: int) -> int:
    """One tensor at the VAE's highest inner resolution: a patch of 4 x 4 pixels is one cell there."""
    cells = (width // 4) * (height // 4) * frames
    return cells * channels * value_bytes
