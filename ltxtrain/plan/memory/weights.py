"""Bytes of weights: in the format that they are kept in, and of that what lies on the device at a time."""

from __future__ import annotations

from collections import Counter
from math import prod

from ltxtrain.config.formats import FORMATS
from ltxtrain.facts.models import ModelFacts, TransformerFacts, VaeFacts, block_layers, linear_names, target_layers
from ltxtrain.plan.memory.setup import TrainingSetup

Shapes = Counter[tuple[int, int]]
# Of a VAE's weights, the largest group and the two largest neighbours: of its blocks, and of its single layers. In all
# releases they are at most so much, what is not offloaded included.
VAE_BLOCKS = (0.38, 0.48)
VAE_LEAVES = (0.15, 0.28)
# Every layer is made into weights of this many bytes a value while it is computed with; products in float32 need more.
MADE_BYTES = 2


def kept_bytes(params: int, layers: Shapes, value_bytes: int, precision: str) -> int:
    """A model of ``params`` values, of which the linear ``layers`` (rows, columns) are kept in ``precision``."""
    known = FORMATS[precision]
    if not known.quantised:
        return params * value_bytes
    rest = params - sum(prod(shape) * count for shape, count in layers.items())
    return rest * value_bytes + sum(known.stored_bytes(*shape) * count for shape, count in layers.items())


def transformer_bytes(model: TransformerFacts, setup: TrainingSetup) -> int:
    """All of the transformer's weights, wherever they lie. What is trained in full has the optimiser's dtype."""
    if setup.full:
        return model.params * setup.adapter_bytes
    return kept_bytes(model.params, block_layers(model), setup.weight_bytes, setup.precision)


def block_bytes(model: TransformerFacts, setup: TrainingSetup) -> int:
    """The weights of one block."""
    layers = block_layers(model)
    one: Shapes = Counter({shape: count // model.layers for shape, count in layers.items()})
    return kept_bytes(block_params(model), one, setup.weight_bytes, setup.precision)


def block_params(model: TransformerFacts) -> int:
    """Linear layers with their biases, two norms in each of the two attentions, and six rows of modulation."""
    layers = sum((prod(shape) + shape[0]) * count for shape, count in block_layers(model).items())
    return layers // model.layers + 4 * model.width + 6 * model.width


def resident_bytes(model: TransformerFacts, setup: TrainingSetup) -> int:
    """What of the transformer's weights lies on the device at the most."""
    whole = transformer_bytes(model, setup)
    offload = setup.offload
    if not offload.moves_blocks:
        return whole
    if offload.leaves:
        return min(whole, _leaves(model, setup) * (2 if offload.ahead else 1) + _beside_layers(model, setup))
    block = block_bytes(model, setup)
    moving = min(offload.swapped or model.layers, model.layers)
    one = block * min(offload.group or 1, moving)
    return min(whole, whole - moving * block + one * (2 if offload.ahead else 1))


def _leaves(model: TransformerFacts, setup: TrainingSetup) -> int:
    """The largest linear layer, of the blocks or outside of them, where nothing is quantised."""
    inside = [
        kept_bytes(prod(shape), Counter([shape]), setup.weight_bytes, setup.precision) for shape in block_layers(model)
    ]
    return max(*inside, *(prod(shape) * setup.weight_bytes for shape in _outside(model)))


def _beside_layers(model: TransformerFacts, setup: TrainingSetup) -> int:
    """Norms, tables of modulation, and the biases of the blocks: too small to be moved."""
    outside = sum((prod(shape) + shape[0]) for shape in _outside(model))
    inside = sum(prod(shape) * count for shape, count in block_layers(model).items())
    return (model.params - inside - outside) * setup.weight_bytes


def _outside(model: TransformerFacts) -> list[tuple[int, int]]:
    """Shapes (rows, columns) of the linear layers before and after the blocks."""
    layers = target_layers(model, linear_names(model)).items()
    return [(outputs, inputs) for name, (inputs, outputs) in layers if not name.startswith("transformer_blocks.")]


def text_bytes(model: ModelFacts, setup: TrainingSetup) -> int:
    """The text encoder's weights. In float16 its ``wo`` layers stay in float32, unless they are quantised."""
    size = kept_bytes(model.text_params, model.text.linear_layers(), setup.text_weight_bytes, setup.text_precision)
    if setup.text_half and not FORMATS[setup.text_precision].quantised:
        size += 2 * model.text.layers * prod(model.text.wo)
    return size


def resident_text_bytes(model: ModelFacts, setup: TrainingSetup) -> int:
    """What of the text encoder lies on the device: with offload one block, and what is outside of the blocks."""
    whole = text_bytes(model, setup)
    if not setup.offload.text_encoder:
        return whole
    layers = model.text.linear_layers()
    inside = kept_bytes(
        sum(prod(shape) * count for shape, count in layers.items()),
        layers,
        setup.text_weight_bytes,
        setup.text_precision,
    )
    return whole - inside + inside // model.text.layers * (2 if setup.offload.ahead else 1)


def resident_vae_bytes(half: int, vae: VaeFacts, setup: TrainingSetup) -> int:
    """What of the VAE's encoder or decoder, of ``half`` values, lies on the device: with offload the largest group, and
    the one that is fetched ahead of it."""
    offload = setup.offload
    if not offload.vae:
        return half * setup.vae_bytes
    one, two = VAE_LEAVES if offload.leaves else VAE_BLOCKS
    return min(half * setup.vae_bytes, round(vae.params * setup.vae_bytes * (two if offload.ahead else one)))


def made_bytes(layers: Shapes, value_bytes: int, precision: str) -> int:
    """The largest layer's weight as it is made from its codes for a moment; 0 where nothing is quantised."""
    if not FORMATS[precision].quantised:
        return 0
    largest = max(prod(shape) for shape in layers)
    return largest * (MADE_BYTES + (value_bytes if value_bytes != MADE_BYTES else 0))
