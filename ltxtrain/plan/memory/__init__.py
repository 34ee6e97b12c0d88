"""Peak memory of each phase, line by line, from sizes alone. Plain functions; nothing is loaded or measured.

Phases never hold what they do not need: the text encoder alone, the VAE alone, then the transformer. Factors that
stand here were counted from every tensor that real models make, at the sizes of the releases; what libraries take
beside tensors stands in lines of its own. Everything is bytes.
"""

from ltxtrain.plan.memory.activations import TEXT_TOKENS
from ltxtrain.plan.memory.phases import estimate_memory
from ltxtrain.plan.memory.pixels import GROUP_FRAMES, GROUP_STRIDE, TILE, in_groups, in_tiles
from ltxtrain.plan.memory.setup import Offload, Recompute, TrainingSetup

__all__ = [
    "GROUP_FRAMES",
    "GROUP_STRIDE",
    "TEXT_TOKENS",
    "TILE",
    "Offload",
    "Recompute",
    "TrainingSetup",
    "estimate_memory",
    "in_groups",
    "in_tiles",
]
