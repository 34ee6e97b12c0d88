"""The options whose values are names with a verdict: number formats, optimisers, attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ltxtrain.config.attentions import ATTENTIONS
from ltxtrain.config.formats import FORMATS
from ltxtrain.config.optimizers import OPTIMIZERS
from ltxtrain.config.verdicts import Verdict

_OF_FORMATS = {name: known.verdict for name, known in FORMATS.items()}

VERDICTS: Final[Mapping[str, Mapping[str, Verdict]]] = {
    "base_model_precision": _OF_FORMATS,
    "text_encoder_1_precision": _OF_FORMATS,
    "optimizer": {name: known.verdict for name, known in OPTIMIZERS.items()},
    "attention_mechanism": {name: known.verdict for name, known in ATTENTIONS.items()},
}
