"""Gradient checkpointing: which activations a training step keeps, which it recomputes, and where the rest waits.

    backend       what is recomputed            where its input waits
    torch         whole blocks, in pieces       on the device
    unsloth       whole blocks, in pieces       in main memory
    torch-ffn     each block's feed-forward     on the device
    unsloth-ffn   each block's feed-forward     in main memory

A piece is ``gradient_checkpointing_interval`` consecutive blocks: fewer inputs wait, and more activations are there at
once while a piece is recomputed. All of it gives the gradients of plain training bit for bit, dropout included: torch's
own checkpoint puts the random state back before it recomputes.

Shape legend: B batch, S tokens, D width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.utils.checkpoint
from diffusers import LTXVideoTransformer3DModel

from ltxtrain.config.compute import MemoryConfig
from ltxtrain.model.activations import MovedInputs

Recompute = Callable[..., Any]


def set_checkpointing(transformer: LTXVideoTransformer3DModel, memory: MemoryConfig) -> None:
    """Let ``transformer`` recompute what ``memory`` says. To be called once, after the adapter is attached.

    Without gradients, as in validation, nothing is recomputed and nothing is kept.
    """
    if not memory.gradient_checkpointing:
        return
    blocks = list(transformer.transformer_blocks)
    backend, in_host_memory = _backend_of(memory)
    recompute = _recompute(MovedInputs(memory.gradient_checkpointing_offload_prefetch) if in_host_memory else None)
    pieces = recomputed_pieces(
        len(blocks),
        interval=memory.gradient_checkpointing_interval or 1,
        stride=memory.gradient_checkpointing_segment_stride,
        free=memory.gradient_checkpointing_free_blocks,
    )
    if backend == "ffn":
        for (number,) in pieces:
            feed_forward = blocks[number].ff
            # Set on the instance, so that no module changes its name; of the class, so that twice is the same as once.
            forward = functools.partial(type(feed_forward).forward, feed_forward)
            feed_forward.forward = functools.partial(recompute, forward)
        return
    first = {blocks[piece.start]: tuple(blocks[piece.start : piece.stop]) for piece in pieces}
    later = {blocks[number] for piece in pieces for number in piece[1:]}

    def run(block: torch.nn.Module, hidden_BSD: torch.Tensor, *others: Any) -> torch.Tensor:
        """The model calls this for each block in turn; the first block of a piece computes all of the piece."""
        if block in later:
            return hidden_BSD
        if block not in first:
            return block(hidden_BSD, *others)
        return recompute(functools.partial(_in_turn, first[block]), hidden_BSD, *others)

    transformer.enable_gradient_checkpointing(run)


def recomputed_pieces(layers: int, *, interval: int, stride: int | None, free: int) -> list[range]:
    """The runs of blocks that are recomputed: each of ``interval`` blocks, one begun at each ``stride``-th block.

    The last ``free`` blocks keep their activations. The backward pass begins with these, and lets go of them before it
    recomputes the others: so they cost nothing up to the size of one piece, and later ones cost more than early ones
    would save.

    >>> recomputed_pieces(7, interval=2, stride=None, free=2)
    [range(0, 2), range(2, 4), range(4, 5)]
    >>> recomputed_pieces(8, interval=2, stride=4, free=0)
    [range(0, 2), range(4, 6)]
    """
    end = max(layers - free, 0)
    return [range(start, min(start + interval, end)) for start in range(0, end, stride or interval)]


def _backend_of(memory: MemoryConfig) -> tuple[str, bool]:
    name = memory.gradient_checkpointing_backend
    return ("ffn" if name.endswith("-ffn") else "blocks"), name.startswith("unsloth")


def _recompute(moved: MovedInputs | None) -> Recompute:
    """``recompute(function, hidden_BSD, *others)``: its result, its inner activations forgotten until backward."""

    def plain(function: Callable[..., Any], *arguments: Any) -> Any:
        return torch.utils.checkpoint.checkpoint(function, *arguments, use_reentrant=False)

    def with_moved_input(function: Callable[..., Any], hidden_BSD: torch.Tensor, *others: Any) -> Any:
        if not torch.is_grad_enabled():
            return function(hidden_BSD, *others)
        with moved.waiting(hidden_BSD):
            return torch.utils.checkpoint.checkpoint(function, hidden_BSD, *others, use_reentrant=False)

    return plain if moved is None else with_moved_input


def _in_turn(blocks: Sequence[torch.nn.Module], hidden_BSD: torch.Tensor, *others: Any) -> torch.Tensor:
    for block in blocks:
        hidden_BSD = block(hidden_BSD, *others)
    return hidden_BSD
