"""torchao's Adam with states of 8 and 4 bit, stepped without its compiler.

torchao hands each step to torch.compile, which needs a C++ compiler on the machine and up to a minute at the first
step. The same operations run one by one here; only ``fuse_optimizer`` has them compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torchao.optim import AdamFp8, AdamW4bit, AdamW8bit, AdamWFp8


class _Eager:
    """Its place is before one of torchao's classes."""

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        with torch.compiler.set_stance("force_eager"):
            return super().step(closure)


class EagerAdamW8bit(_Eager, AdamW8bit): ...


class EagerAdamW4bit(_Eager, AdamW4bit): ...


class EagerAdamFp8(_Eager, AdamFp8): ...


class EagerAdamWFp8(_Eager, AdamWFp8): ...


COMPILED = {"adamw8bit": AdamW8bit, "adamw4bit": AdamW4bit, "adamfp8": AdamFp8, "adamwfp8": AdamWFp8}
EAGER = {"adamw8bit": EagerAdamW8bit, "adamw4bit": EagerAdamW4bit, "adamfp8": EagerAdamFp8, "adamwfp8": EagerAdamWFp8}
