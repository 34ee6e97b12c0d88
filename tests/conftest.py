"""Every test runs offline, with one thread, and without anybody's own configuration."""

from __future__ import annotations

import os

# Before any test imports torch or a hub client: they read these once.
for name in [name for name in os.environ if name.startswith("LTXTRAIN_")]:
    del os.environ[name]
os.environ.update(
    OMP_NUM_THREADS="1",
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    WANDB_MODE="offline",
    NO_COLOR="1",
)
