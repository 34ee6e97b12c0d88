"""The model room: the only place that knows diffusers and transformers.

Importing it silences notes and inner progress bars of the libraries (kernels for hardware that is absent, shards of a
file); errors still come through, and ltxtrain shows its own progress.
"""

import logging
import os

os.environ.setdefault("TORCHAO_FORCE_SKIP_LOADING_SO_FILES", "1")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
for _chatty in ("torchao", "torch.utils._pytree", "bitsandbytes", "bitsandbytes.cextension"):
    logging.getLogger(_chatty).setLevel(logging.ERROR)
