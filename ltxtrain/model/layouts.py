"""Names of adapter weights in the files of other programs.

diffusers' ``LTXPipeline.load_lora_weights`` reads ``transformer.MODULE.lora_A.weight``; alpha comes from the file's
metadata. ComfyUI reads ``diffusion_model.MODULE.lora_A.weight`` and ``.alpha``, with the module names of Lightricks'
own code, which differ from diffusers' outside of the blocks' projections.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch

DIFFUSERS_PREFIX = "transformer."
COMFYUI_PREFIX = "diffusion_model."
# diffusers' name -> Lightricks' name, for the linear modules that are not called the same in both.
LIGHTRICKS_NAMES = {"proj_in": "patchify_proj", "time_embed": "adaln_single"}


def diffusers_layout(adapter: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{DIFFUSERS_PREFIX}{name}": tensor.contiguous() for name, tensor in adapter.items()}


def diffusers_metadata(peft_config: Mapping[str, object]) -> str:
    """The JSON text that diffusers stores under ``lora_adapter_metadata``; without it a loader assumes alpha = rank."""
    return json.dumps(
        {f"{DIFFUSERS_PREFIX}{key}": value for key, value in peft_config.items()}, indent=2, sort_keys=True
    )


def comfyui_layout(adapter: Mapping[str, torch.Tensor], alpha: float) -> dict[str, torch.Tensor]:
    """With one float32 scalar ``.alpha`` for each module: ComfyUI scales by alpha / rank."""
    renamed = {f"{COMFYUI_PREFIX}{_lightricks_name(name)}": tensor.contiguous() for name, tensor in adapter.items()}
    modules = [name.removesuffix(".lora_A.weight") for name in renamed if name.endswith(".lora_A.weight")]
    return renamed | {f"{module}.alpha": torch.tensor(alpha, dtype=torch.float32) for module in modules}


def _lightricks_name(name: str) -> str:
    head, dot, rest = name.partition(".")
    return LIGHTRICKS_NAMES.get(head, head) + dot + rest
