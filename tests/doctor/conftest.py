"""What the doctor's tests share."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can reach: pytest's own are closed to them."""
    folder = Path(tempfile.mkdtemp(prefix="ltxtrain-doctor-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)
