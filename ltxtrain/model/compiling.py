"""torch.compile of the transformer: block by block, so that one block is compiled and all use it, or as a whole."""

from __future__ import annotations

import torch
from diffusers import LTXVideoTransformer3DModel

from ltxtrain.config.compute import SpeedConfig

# A shape of clips is a variant of its own, as are a shorter batch, a first frame that is given, and validation. Beyond
# the limit PyTorch would go on uncompiled without a word that anybody reads.
VARIANTS = 512


def compile_blocks(transformer: LTXVideoTransformer3DModel, speed: SpeedConfig) -> None:
    """Let ``transformer`` compile itself at its first use, as ``speed`` says. To be called last, with all in place.

    The functions of the modules are compiled, not the modules: what is hooked to a block, as weights that come from
    main memory for its turn, stays outside. Values are those of eager training but for the rounding of fused sums, and
    dropout draws other numbers.
    """
    if speed.dynamo_backend == "no":
        return
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, VARIANTS)
    torch._dynamo.config.accumulated_recompile_limit = max(torch._dynamo.config.accumulated_recompile_limit, VARIANTS)
    for module in transformer.transformer_blocks if speed.dynamo_use_regional_compilation else (transformer,):
        module.forward = torch.compile(
            module.forward,
            backend=speed.dynamo_backend,
            mode=speed.dynamo_mode if speed.dynamo_backend == "inductor" else None,
            fullgraph=speed.dynamo_fullgraph,
            dynamic=speed.dynamo_dynamic,
        )
