"""Which kernels compute attention, through diffusers' back ends.

diffusers' own ``set_attention_backend`` also changes the default of the whole process, which then holds for every model
that is loaded later; here each attention of one transformer is told by itself.
"""

from __future__ import annotations

from diffusers import LTXVideoTransformer3DModel
from diffusers.models.attention_dispatch import AttentionBackendName

from ltxtrain.config.attentions import ATTENTIONS, OWN
from ltxtrain.config.compute import SpeedConfig


def set_attention(transformer: LTXVideoTransformer3DModel, speed: SpeedConfig, *, training: bool) -> None:
    """Let ``transformer`` attend as ``attention_mechanism`` says; with ``training`` by what has a backward pass.

    Captions are attended to with their mask, by PyTorch's own kernels where the chosen ones take none. That the
    packages are there is checked before anything is loaded.
    """
    attention = ATTENTIONS[speed.attention_mechanism]
    chosen = attention.backend if attention.trains or not training else OWN
    clip, caption = AttentionBackendName(chosen), AttentionBackendName(chosen if attention.masked else OWN)
    for block in transformer.transformer_blocks:
        block.attn1.processor._attention_backend = clip
        block.attn2.processor._attention_backend = caption
