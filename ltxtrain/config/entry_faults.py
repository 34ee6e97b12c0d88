"""What is wrong in one entry of the list of data sets, each with the place of its key."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ltxtrain.config.read_entries import Place
from ltxtrain.errors import Fault


@dataclass
class EntryFaults:
    """Collects the faults of the entry ``id`` that stands at ``place``."""

    id: str
    place: Place
    faults: list[Fault] = field(default_factory=list)

    def add(self, key: str, problem: str, suggestion: str = "") -> None:
        self.faults.append(Fault(f"{self.id}.{key}", problem, self.place.at(key), suggestion))

    def found_file(self, path: Path, root: Path | None) -> Path:
        """``path`` as it is written, or beside the list, or in the folder of the clips: wherever there is a file."""
        folders = [Path(), Path(self.place.document.name).parent, *([root] if root else [])]
        return next((folder / path for folder in folders if (folder / path).is_file()), path)
