"""Every test runs offline, with one thread, and without anybody's own configuration."""

from __future__ import annotations

import gc
import os

from hypothesis import settings

# Before any test imports torch or a hub client: they read these once.
for name in [name for name in os.environ if name.startswith(("LTXTRAIN_", "LTX_"))]:
    del os.environ[name]
os.environ.update(
    OMP_NUM_THREADS="1",
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    WANDB_MODE="offline",
    NO_COLOR="1",
)

# The same examples each time, so that a failure is seen by everybody; no deadline, so that a busy machine causes none.
settings.register_profile("house", derandomize=True, deadline=None)
settings.load_profile("house")


def pytest_collection_finish() -> None:
    """What collecting has imported stays to the end: a run looks for rubbish after each phase, and not in there again.

    Each look through all of PyTorch and diffusers took longer than four steps of the tiny model.
    """
    gc.collect()
    gc.freeze()
