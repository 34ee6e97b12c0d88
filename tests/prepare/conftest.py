"""A Hub that answers on this machine, and the library that asks it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
from huggingface_hub.utils import close_session

from ltxtrain.prepare import fetch
from tests.prepare.fetch_hub import FILES, DataHub, serving


@pytest.fixture
def online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The library reads its switch once, at import: what the tests set for all is taken back."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(fetch, "FIRST_WAIT_S", 0.01)
    close_session()
    yield
    close_session()


@pytest.fixture
def hub(online: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[DataHub]:
    with serving(dict(FILES)) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        yield server
