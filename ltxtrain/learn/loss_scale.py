"""The loss scale of float16, so that small gradients do not vanish (Micikevicius et al. 2018, section 3.2)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

START = 2.0**16
LEAST = 2.0**-14
GROWS_AFTER = 2000  # steps without an overflow


@dataclass
class LossScale:
    """The loss is multiplied by ``value`` and the gradients are divided by it. ``good`` steps went well since it last
    changed. A step that overflows is computed again with half the scale, so none is left out."""

    value: float = START
    good: int = 0

    def lower(self) -> bool:
        """After an overflow. False when a lower scale would not help."""
        self.value, self.good = self.value / 2, 0
        return self.value >= LEAST

    def went_well(self) -> None:
        self.good += 1
        if self.good == GROWS_AFTER:
            self.value, self.good = self.value * 2, 0

    def state(self) -> dict[str, Any]:
        return asdict(self)

    def restore(self, state: dict[str, Any] | None) -> None:
        """Put back what ``state`` gave; a checkpoint of a run in another format has none."""
        if state is not None:
            self.value, self.good = float(state["value"]), int(state["good"])
