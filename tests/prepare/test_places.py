"""A name that somebody else chose leads to no place but one below the folder, and through no link."""

from __future__ import annotations

from pathlib import Path

import pytest

from ltxtrain.errors import DataError
from ltxtrain.prepare.places import inside


@pytest.mark.parametrize("name", ["../x.mp4", "a/../../x.mp4", "/etc/x.mp4", "a//x.mp4", "./x.mp4", "", "a\0b"])
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="leads out of"):
        inside(tmp_path, name)


@pytest.mark.parametrize("name", ["link/x.mp4", "deep/link", "gone"])
def test_no_link_is_followed_not_even_one_that_leads_nowhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "root/deep").mkdir(parents=True)
    (tmp_path / "root/link").symlink_to(tmp_path)
    (tmp_path / "root/deep/link").symlink_to(tmp_path / "x.mp4")
    (tmp_path / "root/gone").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is a link"):
        inside(tmp_path / "root", name)


def test_files_are_told_from_folders(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").mkdir()
    (tmp_path / "b.mp4").touch()
    with pytest.raises(DataError, match="is no file"):
        inside(tmp_path, "a.mp4")
    assert inside(tmp_path, "b.mp4") == tmp_path / "b.mp4"
    assert inside(tmp_path, "new/c.mp4") == tmp_path / "new/c.mp4"
