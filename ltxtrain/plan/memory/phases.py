"""The phases of a run, and the lines of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from ltxtrain.config.formats import FORMATS
from ltxtrain.config.optimizers import state_bytes
from ltxtrain.events import EVALUATION, LATENTS, LOADING, MAIN_MEMORY, TEXTS, TRAINING, VALIDATION
from ltxtrain.facts.machine import OWN_MEMORY
from ltxtrain.facts.models import ModelFacts, block_layers, lora_params, target_layers
from ltxtrain.plan.memory.activations import TEXT_TOKENS, Size, forward_peak, step_peak
from ltxtrain.plan.memory.pixels import CONVOLUTION_WORKSPACE, decode_peak, encode_peak, in_tiles
from ltxtrain.plan.memory.setup import TrainingSetup
from ltxtrain.plan.memory.weights import (
    made_bytes,
    resident_bytes,
    resident_text_bytes,
    resident_vae_bytes,
    text_bytes,
    transformer_bytes,
)
from ltxtrain.plan.records import Bucket, PhaseMemory

MIB = 1024**2
Line = tuple[str, int]

# What a process takes before any weight: the driver's context on an accelerator, the libraries in main memory. Of
# PyTorch for the CPU: 220 MiB torch alone, 450 with diffusers, transformers, peft, and bitsandbytes and torchao, which
# they import and which are 6 of it. Once they have computed, quantised or not and with three optimisers, 485 to 555 on
# one machine and up to 608 on another. With that for CUDA 13 they were 810 before a device is opened, and what the
# driver and its kernels add there is not measured yet: `make gpu-check` tells it, as the peak of loading.
ACCELERATOR_CONTEXT = 500 * MIB
HOST_LIBRARIES = 580 * MIB
ACCELERATOR_LIBRARIES = (810 + 990) * MIB
# Of libraries for matrix products, and what is lost between tensors.
WORKSPACE = 64 * MIB
# Live at once in the text encoder, in tensors of its width: the feed-forward's two wide ones and their product.
TEXT_TENSORS = 16
MARGIN = 0.15


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
        _phase(TEXTS, setup, text_lines(model, setup)),
        _phase(LATENTS, setup, encode_lines(model, widest, setup)),
        _phase(TRAINING, setup, training),
    ]
    if setup.measured:
        phases.append(_phase(EVALUATION, setup, evaluation_lines(model, setup)))
    if setup.validation is not None:
        phases.append(_phase(VALIDATION, setup, validation_lines(model, setup.validation, setup)))
    if setup.accelerator in OWN_MEMORY:
        phases.append(_host_phase(model, setup))
    return tuple(phases)


def text_lines(model: ModelFacts, setup: TrainingSetup) -> list[Line]:
    """A few captions at a time: activations are small beside the weights."""
    value_bytes = setup.text_weight_bytes
    tokens = TEXT_TOKENS * setup.texts
    made = made_bytes(model.text.linear_layers(), value_bytes, setup.text_precision)
    return [
        ("text encoder weights" + _in_format(setup.text_precision), resident_text_bytes(model, setup)),
        ("activations", TEXT_TENSORS * tokens * model.text.width * value_bytes),
        *_some("text encoder layer, made from its codes", made),
    ]


def encode_lines(model: ModelFacts, bucket: Bucket, setup: TrainingSetup) -> list[Line]:
    tiled, clips = in_tiles(bucket, setup.tiling), setup.encoded_of(bucket)
    one = encode_peak(bucket, model.vae.encoder_width, setup.vae_bytes, tiled=tiled, framewise=setup.framewise)
    several = f"{clips} x " if clips > 1 else ""
    how = (" in tiles" if tiled else "") + (" in groups of frames" if setup.framewise else "")
    return [
        ("weights of the VAE's encoder", resident_vae_bytes(model.vae.encoder_params, model.vae, setup)),
        (f"activations of {several}{bucket.key}{how}", clips * one),
        *_convolutions(setup, clips * one),
    ]


def on_demand_lines(model: ModelFacts, bucket: Bucket, setup: TrainingSetup, training: Mapping[str, int]) -> list[Line]:
    """What encoding between two steps adds to ``training``'s lines: weights that stay, and activations, as far as they
    take more than the step's own, which are not there at the same time."""
    lines: list[Line] = []
    encoding: list[int] = []
    for asked, phase in (
        (setup.latents_on_demand, encode_lines(model, bucket, setup)),
        (setup.texts_on_demand, text_lines(model, setup)),
    ):
        if asked:
            (weights, size), *others = phase
            lines.append((f"{weights}, on demand", size))
            encoding.append(sum(size for _, size in others))
    step = sum(size for name, size in training.items() if name.startswith("activations"))
    beyond = max(encoding, default=0) - step
    return [*lines, ("activations of encoding, beyond the step's", beyond)] if beyond > 0 else lines


def training_lines(model: ModelFacts, bucket: Bucket, setup: TrainingSetup) -> list[Line]:
    """Weights, what is trained with its state, and the activations of the largest batch. Gradients come as activations
    go, so that they count only as far as both together are more."""
    clips = setup.batch_of(bucket)
    gradients = 0 if setup.gradients_early else trained_params(model, setup) * setup.adapter_bytes
    first = 0 if setup.accumulation > 1 else gradients  # with several batches to a step they are there all the time
    step = step_peak(model.transformer, Size(bucket.tokens * clips, clips), setup, first)
    # The optimiser's own step: gradients, and one more tensor of their size while it computes on the device.
    updating = 0 if setup.updates_in_main_memory else gradients
    beyond = max(step.with_gradients, gradients + updating if first else gradients) - step.activations
    beyond = max(0, beyond) if first else gradients + max(0, updating - step.activations)
    return [
        *weight_lines(model, setup),
        (f"activations of {clips} x {bucket.key}, {step.kept}", step.activations),
        *_some("adapter's gradients", beyond),
        *_some("workspace", 0 if setup.accelerator == "cpu" else WORKSPACE),
    ]


def weight_lines(model: ModelFacts, setup: TrainingSetup) -> list[Line]:
    """All that lies on the device from one step to the next."""
    layers = block_layers(model.transformer)
    name = "transformer weights" + _in_format(setup.precision)
    resident = resident_bytes(model.transformer, setup)
    moved = resident < transformer_bytes(model.transformer, setup)
    return [
        (f"{name}, of which the rest waits elsewhere" if moved else name, resident),
        *_some("transformer layer, made from its codes", made_bytes(layers, setup.weight_bytes, setup.precision)),
        *adapter_lines(model, setup),
    ]


def trained_params(model: ModelFacts, setup: TrainingSetup) -> int:
    return model.transformer.params if setup.full else lora_params(model.transformer, setup.rank, setup.targets)


def adapter_lines(model: ModelFacts, setup: TrainingSetup) -> list[Line]:
    """The adapter's weights and the optimiser's state. Of a full training the weights are the transformer's."""
    weights = 0 if setup.full else trained_params(model, setup) * setup.adapter_bytes
    apart = setup.updates_in_main_memory and setup.accelerator in OWN_MEMORY
    return [*_some("adapter", weights), *([] if apart else optimizer_lines(model, setup))]


def optimizer_lines(model: ModelFacts, setup: TrainingSetup) -> list[Line]:
    """The optimiser's state, and where it is in main memory room for the weights and gradients that come there."""
    shapes: list[tuple[int, ...]] = []
    if not setup.full:
        for inputs, outputs in target_layers(model.transformer, setup.targets).values():
            shapes += [(setup.rank, inputs), (outputs, setup.rank)]
    state = state_bytes(setup.optimizer, trained_params(model, setup), shapes, setup.optimizer_config)
    room = 2 * _moved_bytes(model, setup, shapes) if setup.updates_in_main_memory else 0
    return [*_some("optimiser state", state), *_some("room for the optimiser's update", room)]


def _moved_bytes(model: ModelFacts, setup: TrainingSetup, shapes: Sequence[tuple[int, ...]]) -> int:
    """Of the trained weights in main memory. What torch page-locks for a CUDA device it rounds up to a power of two,
    tensor by tensor."""
    if setup.accelerator not in OWN_MEMORY or not shapes:
        return trained_params(model, setup) * setup.adapter_bytes
    return sum(1 << (prod(shape) * setup.adapter_bytes - 1).bit_length() for shape in shapes)


def evaluation_lines(model: ModelFacts, setup: TrainingSetup) -> list[Line]:
    """A forward pass of the largest batch that is held out, beside all that training keeps. Nothing is kept of it."""
    bucket = max(setup.measured, key=lambda bucket: bucket.tokens * setup.measured[bucket])
    clips = setup.measured[bucket]
    activations = forward_peak(model.transformer, Size(bucket.tokens * clips, clips), setup)
    return [*weight_lines(model, setup), (f"activations of {clips} x {bucket.key}", activations)]


def validation_lines(model: ModelFacts, shape: Bucket, setup: TrainingSetup) -> list[Line]:
    """The pipeline renders inside of training: all that training keeps, and the VAE. Guidance doubles the batch.

    Where whole models take turns, the transformer is not there while the VAE decodes, nor the VAE before.
    """
    clips = 2 if setup.guided else 1
    denoise = forward_peak(model.transformer, Size(clips * shape.tokens, clips), setup)
    tiled = in_tiles(shape, setup.tiling)
    decode = decode_peak(shape, model.vae.decoder_width, setup.vae_bytes, tiled=tiled, framewise=setup.framewise)
    decode += sum(size for _, size in _convolutions(setup, decode))
    decoder = model.vae.params - model.vae.encoder_params
    vae = ("weights of the VAE's decoder", resident_vae_bytes(decoder, model.vae, setup))
    denoising = [*weight_lines(model, setup), (f"activations of {shape.key}", denoise)]
    decoding = [*adapter_lines(model, setup), vae, (f"activations of decoding {shape.key}", decode)]
    if setup.offload.models:
        return max(denoising, decoding, key=lambda lines: sum(size for _, size in lines))
    return [*weight_lines(model, setup), vae, (f"activations of {shape.key}", max(denoise, decode))]


def _host_phase(model: ModelFacts, setup: TrainingSetup) -> PhaseMemory:
    """Weights pass through main memory tensor by tensor on their way to the device; what is offloaded stays."""
    offload = setup.offload
    transformer = transformer_bytes(model.transformer, setup)
    waiting = 0
    if not offload.disk:
        waiting = transformer - resident_bytes(model.transformer, setup)
        waiting = max(waiting, text_bytes(model, setup) - resident_text_bytes(model, setup))
    if offload.models:
        waiting = max(waiting, transformer)
    # The largest tensor is T5's vocabulary, or the widest layer: in float32 in its file, and as it is cast.
    layers = [*block_layers(model.transformer), *model.text.linear_layers()]
    largest = 6 * max(rows * columns for rows, columns in layers)
    lines = [("libraries", ACCELERATOR_LIBRARIES), *_some("weights that wait for their turn", waiting)]
    lines += optimizer_lines(model, setup) if setup.updates_in_main_memory else []
    return _with_margin(LOADING, MAIN_MEMORY, [*lines, ("one tensor while it is loaded", largest)])


def _convolutions(setup: TrainingSetup, activations: int) -> list[Line]:
    share = 0.0 if setup.accelerator == "cpu" else CONVOLUTION_WORKSPACE
    return _some("workspace of the convolutions", round(share * activations))


def _some(name: str, size: int) -> list[Line]:
    return [(name, size)] if size > 0 else []


def _in_format(precision: str) -> str:
    return f" in {precision}" if FORMATS[precision].quantised else ""


def _phase(name: str, setup: TrainingSetup, lines: list[Line]) -> PhaseMemory:
    base = ("libraries", HOST_LIBRARIES) if setup.accelerator == "cpu" else ("device context", ACCELERATOR_CONTEXT)
    return _with_margin(name, setup.accelerator, [base, *lines])


def _with_margin(name: str, device: str, lines: list[Line]) -> PhaseMemory:
    known = sum(size for _, size in lines)
    margin = round(known * MARGIN)
    return PhaseMemory(name, device, tuple(lines), known + margin, margin)
