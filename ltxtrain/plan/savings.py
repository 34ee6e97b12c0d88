"""What takes less memory: a budget looks here for what is set by hand and stands in its way, advice for a way out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ltxtrain.config.tables import VERDICTS
from ltxtrain.facts.machine import OWN_MEMORY, Machine
from ltxtrain.plan.support import computes

Values = Mapping[str, Any]
# Formats from the nearest to the base model's own to the smallest; of each row the first that the machine computes.
BY_SIZE: Final = (
    ("no_change",),
    ("int8-torchao", "int8-quanto", "fp8wo-torchao"),
    ("nf4-bnb", "int4-quanto", "int4-torchao"),
)
# Groups take the place of these.
INSTEAD: Final[Values] = {"enable_model_cpu_offload": False, "musubi_blocks_to_swap": 0}


def precisions(machine: Machine) -> list[str]:
    """From the base model's own to the smallest that the machine computes."""
    verdicts = VERDICTS["base_model_precision"]
    found = (next((name for name in row if computes(verdicts[name], machine)), None) for row in BY_SIZE)
    return [name for name in found if name]


def savings(machine: Machine) -> Iterator[Values]:
    """Each change that may take less, with what has to change along with it."""
    yield {"gradient_checkpointing": True}
    yield {"gradient_checkpointing_free_blocks": 0}
    yield {"gradient_checkpointing_interval": None}
    for name in precisions(machine)[1:]:
        yield {"base_model_precision": name}
        yield {"text_encoder_1_precision": name}
    yield {"vae_enable_slicing": True}
    yield {"vae_enable_tiling": True}
    yield {"vae_enable_framewise_encoding": True}
    if machine.device in OWN_MEMORY:
        yield {"enable_model_cpu_offload": True}
        yield {"enable_group_offload": True, **INSTEAD}
        yield {"enable_group_offload": True, "group_offload_text_encoder": True, **INSTEAD}
        yield {"enable_group_offload": True, "group_offload_vae": True, **INSTEAD}
