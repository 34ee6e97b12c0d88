"""What offload leaves on the device, against what it really leaves there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ltxtrain.config.compute import MemoryConfig
from ltxtrain.model.offload import place_transformer
from ltxtrain.model.transformer import facts_of, predict_velocity
from ltxtrain.plan.memory import Offload, TrainingSetup
from ltxtrain.plan.memory.weights import resident_bytes
from tests.allocations import held_bytes
from tests.plan.test_memory_measured import make_transformer

SIZES = {"heads": 8, "head_dim": 32, "layers": 4, "text": 64}
SETUP = TrainingSetup(4, ("to_q",), 4, 4, 1, True, False, "cuda", None)


@pytest.mark.parametrize(
    ("memory", "offload"),
    [
        ({"enable_group_offload": True}, Offload(group=1)),
        ({"enable_group_offload": True, "group_offload_blocks_per_group": 2}, Offload(group=2)),
        ({"enable_group_offload": True, "group_offload_type": "leaf_level"}, Offload(group=1, leaves=True)),
        ({"musubi_blocks_to_swap": 2}, Offload(swapped=2)),
    ],
    ids=str,
)
def test_so_much_of_the_weights_is_on_the_device_at_the_most(memory: dict[str, object], offload: Offload) -> None:
    transformer = make_transformer(SIZES, torch.float32).requires_grad_(False)
    facts, whole = facts_of(transformer), held_bytes(transformer)
    placed = place_transformer(transformer, torch.device("cpu"), MemoryConfig(**memory))  # type: ignore[arg-type]
    resident = [0]
    for module in transformer.modules():
        module.register_forward_hook(lambda *_: resident.append(placed.resident_bytes))
    latents, embeds = torch.zeros(1, 128, 2, 2, 2), torch.zeros(1, 128, SIZES["text"])
    with torch.no_grad():
        predict_velocity(transformer, latents, torch.tensor([0.5]), embeds, None, 25.0)
    real = whole - sum(group.size for group in placed.groups) + max(resident)
    told = resident_bytes(facts, replace(SETUP, offload=offload))
    assert told == pytest.approx(real, rel=0.05)
    assert told < whole
