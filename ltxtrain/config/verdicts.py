"""What becomes of each name that an option may have: it works, on these devices, or it is refused for a reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Device = Literal["cuda", "rocm", "mps", "cpu"]
EVERYWHERE: tuple[Device, ...] = ("cuda", "rocm", "mps", "cpu")


@dataclass(frozen=True)
class Verdict:
    """``on`` is empty for a name that is refused everywhere; ``why`` then says why, and ``instead`` is the nearest name
    that works. Of a name that works, ``why`` says what is to be known about it, and ``instead`` is for other devices.

    ``needs`` is the package that computes it, where that is not among the ordinary dependencies, and ``install`` how to
    get it, where ``pip install`` alone does not; ``capability`` the least compute capability of an NVIDIA card, where
    there is one.
    """

    on: tuple[Device, ...] = EVERYWHERE
    needs: str = ""
    capability: tuple[int, int] | None = None
    why: str = ""
    instead: str = ""
    install: str = ""

    @property
    def refused(self) -> bool:
        return not self.on
