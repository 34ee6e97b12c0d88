"""What a training step keeps from its forward pass for its backward pass, and what a pass without gradients holds.

Sizes are bytes for each token and channel of the model's width, counted from every tensor of the real transformer at
its sizes, with values of 2 bytes (bf16 and fp16, where the norms and the rotary positions compute in float32 all the
same) and of 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ltxtrain.facts.machine import OWN_MEMORY
from ltxtrain.facts.models import TransformerFacts, target_layers
from ltxtrain.plan.memory.setup import Recompute, TrainingSetup
from ltxtrain.units import counted

TEXT_TOKENS = 128


@dataclass(frozen=True)
class Saved:
    """``block`` is kept by one block, ``ends`` outside of the blocks, and ``live`` is there beside what is kept when a
    block's backward pass begins, or its forward pass ends. ``timed_*`` are for batches in which tokens have levels of
    noise of their own: ``timed_block`` comes on top, ``timed_live`` instead. With gradient checkpointing ``waiting`` is
    the input of a piece, ``shared`` and ``timed_shared`` what all pieces are given, and ``recomputing`` stands in place
    of ``live``.
    """

    block: float
    ends: float
    live: float
    timed_block: float
    timed_live: float
    waiting: float
    shared: float
    timed_shared: float
    recomputing: float


ADAPTER: Final[Mapping[int, Saved]] = {
    2: Saved(44.2, 5, 15, 16, 23.5, 2, 6, 14, 13),
    4: Saved(60.2, 10, 31, 32, 47, 4, 4, 28, 27),
}
WHOLE: Final[Mapping[int, Saved]] = {
    2: Saved(78.2, 15.5, 3, 16, 17, 2, 0, 11, 0),
    4: Saved(116.2, 22, 7, 32, 34, 4, 0, 22, 0),
}
"""Of training an adapter, without what the adapter's own layers keep; and of training all weights."""

NORM_SCALES = 20  # five norms keep one float32 for each token
TEXT_SAVED = 12  # for each text token and channel, in each block: keys and values of the captions
FORWARD: Final[Mapping[int, float]] = {2: 34.5, 4: 57.0}
# Latents, noise, the noisy ones, the target, the prediction and its error: float32 values of each latent channel.
LATENT_TENSORS = 6


@dataclass(frozen=True)
class Size:
    """What activations are multiplied with: ``tokens`` of all clips of a batch together, and its ``clips``."""

    tokens: int
    clips: int


def block_saved(model: TransformerFacts, size: Size, setup: TrainingSetup) -> tuple[float, float]:
    """Bytes that one block keeps, and of these what its feed-forward keeps that its input alone would not."""
    table = (WHOLE if setup.full else ADAPTER)[setup.weight_bytes]
    each = table.block + (table.timed_block if setup.timed else 0)
    own, feed_forward = (0.0, 0.0) if setup.full else adapter_saved(model, setup)
    tokens = size.tokens * (each * model.width + NORM_SCALES + own)
    text = size.clips * TEXT_TOKENS * TEXT_SAVED * model.width
    # The activation function's input is four times as wide as the block.
    inside = 4 * model.width * setup.weight_bytes * (2 if setup.full else 1) + feed_forward
    return tokens + text, size.tokens * inside


def adapter_saved(model: TransformerFacts, setup: TrainingSetup) -> tuple[float, float]:
    """Bytes for each token that a block's adapter layers keep, and of these those of its feed-forward.

    Each keeps its input and the small tensor between its factors. Layers share an input, and what attention gives is
    kept anyway, unless a narrower adapter has the input cast, or dropout takes values out of it: then each layer keeps
    a copy of its own, and with dropout a mask, which is a byte for each value on a GPU and another copy elsewhere.
    """
    value = min(setup.weight_bytes, setup.adapter_bytes)
    shared = setup.weight_bytes <= setup.adapter_bytes and not setup.dropout
    mask = (1 if setup.accelerator in OWN_MEMORY else value) if setup.dropout else 0
    inputs: dict[str, float] = {}
    small = feed_forward = 0.0
    for name, (width, _) in target_layers(model, setup.targets).items():
        block, _, layer = name.removeprefix("transformer_blocks.").partition(".")
        if not name.startswith("transformer_blocks.") or layer in ("attn2.to_k", "attn2.to_v"):
            continue  # outside of the blocks, or of the captions' few tokens
        small += setup.rank * value
        place = {"attn1.to_q": "attn1", "attn1.to_k": "attn1", "attn1.to_v": "attn1"}.get(layer, layer)
        if shared and layer.endswith("to_out.0"):
            continue
        kept = f"{block}.{place}" if shared else name
        if kept not in inputs:
            inputs[kept] = width * (value + mask)
            feed_forward += inputs[kept] if layer.startswith("ff.") else 0
    return (sum(inputs.values()) + small) / model.layers, feed_forward / model.layers


@dataclass(frozen=True)
class Step:
    """``activations`` is the most that stands in activations at a time; ``with_gradients`` the most together with
    ``gradients``, which come as the others go. ``kept`` names what is kept."""

    activations: int
    with_gradients: int
    kept: str


def step_peak(model: TransformerFacts, size: Size, setup: TrainingSetup, gradients: int) -> Step:
    """The peaks of a training step, followed from the last block back to the first."""
    table = (WHOLE if setup.full else ADAPTER)[setup.weight_bytes]
    unit = size.tokens * model.width
    block, feed_forward = block_saved(model, size, setup)
    latents = LATENT_TENSORS * 4 * model.latent_channels * size.tokens
    latents += size.clips * TEXT_TOKENS * (model.caption_channels + 2 * model.width) * setup.weight_bytes
    live = max(table.live, table.timed_live if setup.timed else 0) * unit
    ends = table.ends * unit + latents
    pieces = recomputed_pieces(model.layers, setup.recompute) if setup.checkpointing else []
    if not pieces:
        whole = model.layers * block + ends + live
        kept = counted(model.layers, "whole block")
        copies = _cast_bytes(model, setup)
        return Step(round(whole + copies), round(max(whole + copies, block + ends + live + gradients)), kept)
    recompute = setup.recompute
    ends += (table.timed_shared if setup.timed else table.shared) * unit
    waiting = table.waiting * unit
    held = _held(model.layers, pieces, block, waiting, recompute)
    if recompute.feed_forward:
        held = [block - feed_forward + (0 if recompute.moved else waiting)] * model.layers
        pieces = [range(number, number + 1) for number in range(model.layers)]
    fetched = waiting * (2 if recompute.ahead else 1) if recompute.moved else 0
    most = together = 0.0
    for number in reversed(range(model.layers)):
        piece = next((found for found in pieces if number in found), None)
        now = sum(held[: number + 1]) + ends + live
        if piece is not None:
            again = feed_forward if recompute.feed_forward else len(piece) * block
            now = sum(held[: piece.stop]) + ends + fetched + again + table.recomputing * unit
        most = max(most, now)
        together = max(together, now + gradients * (model.layers - 1 - number) / model.layers)
    return Step(round(most), round(max(together, most)), _kept_words(model.layers, pieces, recompute))


def recomputed_pieces(layers: int, recompute: Recompute) -> list[range]:
    """The runs of blocks that are recomputed, as ``model/checkpointing.py`` makes them."""
    end = max(layers - recompute.free_blocks, 0)
    starts = range(0, end, recompute.stride or recompute.interval)
    return [range(start, min(start + recompute.interval, end)) for start in starts]


def _held(layers: int, pieces: list[range], block: float, waiting: float, recompute: Recompute) -> list[float]:
    """What each block has left behind when the forward pass is over: all of it, a piece's input, or nothing."""
    held = [block] * layers
    for piece in pieces:
        for number in piece:
            held[number] = 0.0
        held[piece.start] = 0.0 if recompute.moved else waiting
    return held


def _cast_bytes(model: TransformerFacts, setup: TrainingSetup) -> int:
    """Autocast keeps copies of float32 adapters in the dtype that is computed in."""
    if setup.full or setup.adapter_bytes <= setup.weight_bytes:
        return 0
    layers = target_layers(model, setup.targets).values()
    return setup.weight_bytes * sum(setup.rank * sum(shape) for shape in layers)


def _kept_words(layers: int, pieces: list[range], recompute: Recompute) -> str:
    if recompute.feed_forward:
        return "all but the feed-forwards'"
    free = layers - sum(len(piece) for piece in pieces)
    again = max(len(piece) for piece in pieces)
    computed = ("one" if again == 1 else str(again)) if free else counted(again, "block")
    parts = [*([counted(free, "whole block")] if free else []), f"{computed} being computed again"]
    if len(pieces) > 1 and not recompute.moved:
        parts.append("the others' inputs" if again == 1 else "the other pieces' inputs")
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]


def forward_peak(model: TransformerFacts, size: Size, setup: TrainingSetup) -> int:
    """The most that a pass without gradients holds, beside its weights."""
    tokens = size.tokens * (FORWARD[setup.weight_bytes] * model.width + 4 * LATENT_TENSORS * model.latent_channels)
    text = size.clips * TEXT_TOKENS * (8 * model.width + setup.weight_bytes * model.caption_channels)
    return round(tokens + text)
