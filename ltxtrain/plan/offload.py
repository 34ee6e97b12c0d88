"""Checkpointing and offload against the transformer's number of blocks, and against the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ltxtrain.config.explain import placed
from ltxtrain.errors import ConfigError, Fault
from ltxtrain.facts.machine import OWN_MEMORY
from ltxtrain.plan.support import DEVICES

if TYPE_CHECKING:
    from ltxtrain.config import TrainConfig
    from ltxtrain.config.compute import MemoryConfig
    from ltxtrain.config.optim import OptimizerConfig
    from ltxtrain.facts.models import TransformerFacts

SWAP = "musubi_blocks_to_swap"


def check_swap(config: TrainConfig, transformer: TransformerFacts | None, sources: Mapping[str, str]) -> None:
    """Raise ``ConfigError`` where more blocks are to be swapped than the transformer has, as far as it is known."""
    count = config.memory.musubi_blocks_to_swap
    if transformer is None or count <= transformer.layers:
        return
    key, place = placed(SWAP, sources.get(SWAP, "default"))
    problem = f"{count} is more than the {transformer.layers} blocks of the transformer"
    raise ConfigError([Fault(key, problem, place, f"give {transformer.layers} at most")])


def block_notices(config: TrainConfig, transformer: TransformerFacts | None) -> list[str]:
    """Counts of blocks above what there is: they are taken as all of them."""
    if transformer is None:
        return []
    layers = transformer.layers
    return [
        f"{name} is {count}, more than the {layers} blocks that there are: {meaning}"
        for name, count, meaning in _counts(config)
        if count > layers
    ]


def _counts(config: TrainConfig) -> Iterator[tuple[str, int, str]]:
    memory = config.memory
    if memory.gradient_checkpointing:
        yield (
            "gradient_checkpointing_free_blocks",
            memory.gradient_checkpointing_free_blocks,
            "all of them keep their activations, as without gradient_checkpointing",
        )
        interval = memory.gradient_checkpointing_interval or 1
        yield "gradient_checkpointing_interval", interval, "all of them are one recomputed piece"
    if memory.enable_group_offload and memory.group_offload_type == "block_level":
        count = memory.group_offload_blocks_per_group
        yield "group_offload_blocks_per_group", count, "all of them are one group, and none waits elsewhere"


def offload_notices(memory: MemoryConfig, device: str) -> list[str]:
    """Offload on a device whose memory is the main memory, and a stream where none is used. ``device`` is the kind of
    the machine: cuda, rocm, mps or cpu."""
    notices = []
    names = ("enable_group_offload", "enable_model_cpu_offload", SWAP)
    asked = [name for name in names if getattr(memory, name)]
    if asked and device not in OWN_MEMORY:
        notices.append(_saves_nothing(asked, device))
    if memory.enable_group_offload and memory.group_offload_use_stream:
        told = "group_offload_use_stream has no effect"
        if device != "cuda":
            notices.append(f"{told} on {DEVICES[device]}: it is for NVIDIA GPUs alone")
        elif memory.group_offload_to_disk_path:
            notices.append(f"{told} with group_offload_to_disk_path: weights are waited for while they are read")
    return notices


def update_notices(optimizer: OptimizerConfig, device: str) -> list[str]:
    """The optimiser's update in main memory, on a device whose memory that is."""
    asked = optimizer.optimizer_cpu_offload_method != "none" and device not in OWN_MEMORY
    return [_saves_nothing(["optimizer_cpu_offload_method"], device)] if asked else []


def _saves_nothing(names: list[str], device: str) -> str:
    saves = "saves" if len(names) == 1 else "save"
    return f"{' and '.join(names)} {saves} nothing on {DEVICES[device]}, whose memory is the main memory"
