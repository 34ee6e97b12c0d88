from __future__ import annotations

from pathlib import Path

import pytest

from ltxtrain.facts.packages import package_lacking


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package in version 1.0.6.post2+cu128, as pip records it."""
    record = tmp_path / "sage_attention-1.0.6.post2.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: sage-attention\nVersion: 1.0.6.post2+cu128\n")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("installed")
def test_a_package_is_there_old_or_not_installed() -> None:
    assert (
        package_lacking("sage-attention")
        == package_lacking("sage-attention>=1.0.6")
        == package_lacking("sage-attention>=1.0")
        == ""
    )
    assert package_lacking("sage-attention>=1.0.10") == (
        "sage-attention 1.0.6.post2+cu128 is installed, and 1.0.10 is the first that will do"
    )
    assert package_lacking("sage-attention-3>=1.0") == "sage-attention-3 is not installed"
