"""Which modules of the transformer get a LoRA."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ltxtrain.config.explain import placed
from ltxtrain.errors import ConfigError, Fault
from ltxtrain.facts.models import TransformerFacts, linear_names, unmatched_targets

if TYPE_CHECKING:
    from ltxtrain.config.model import AdapterConfig

# The documented targets: the attention projections of every block, self and cross.
DEFAULT_TARGETS = ("to_k", "to_q", "to_v", "to_out.0")


def lora_targets(section: AdapterConfig) -> tuple[str, ...]:
    """Names, or ends of names, of linear modules: from the option's list, or from the JSON file that it names.

    Raises ``ConfigError`` for a file that cannot be read or holds anything but a list of names.
    """
    given = section.peft_lora_target_modules
    if given is None:
        return DEFAULT_TARGETS
    if isinstance(given, tuple):
        return given
    try:
        found = json.loads(given.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ConfigError([Fault("peft_lora_target_modules", f"{given} cannot be read: {error}")]) from error
    if not isinstance(found, list) or not found or not all(isinstance(name, str) for name in found):
        raise ConfigError([Fault("peft_lora_target_modules", f"{given} holds no list of module names")])
    return tuple(found)


def check_targets(section: AdapterConfig, transformer: TransformerFacts | None, source: str = "") -> None:
    """Raise ``ConfigError`` for targets that name no linear module, where the transformer is known.

    ``source`` is where the option comes from: a place such as ``c.json:3``, or a flag, which is its own key.
    """
    if transformer is None:
        return
    wrong = unmatched_targets(transformer, lora_targets(section))
    if wrong:
        names = ", ".join(repr(name) for name in wrong)
        key, place = placed("peft_lora_target_modules", source)
        hint = "the linear modules are called " + ", ".join(linear_names(transformer))
        raise ConfigError([Fault(key, f"no module of the transformer is called {names}", place, hint)])
