"""What answers may be no Hub at all, and what lies in the folder no record: told or passed over, never believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ltxtrain.errors import DataError, LtxtrainError
from ltxtrain.prepare import fetch_ask
from ltxtrain.prepare.fetch_record import RECORD
from tests.doctor.fake_hub import Reply
from tests.prepare.fetch_hub import DataHub
from tests.prepare.test_fetch import DATA, run, visible


@pytest.mark.parametrize("place", [0, 1], ids=["set", "list"])
@pytest.mark.parametrize("body", [b"<html>login</html>", b"7", b"{}", b'[{"a": 1}, 2]', b"[" * 100_000, b"\xff"])
def test_what_is_no_answer_of_a_hub_is_told(hub: DataHub, tmp_path: Path, place: int, body: bytes) -> None:
    hub.answers = [*[json.dumps({"sha": "0" * 40}).encode()][:place], body]
    with pytest.raises(DataError, match="is no Hub") as refused:
        run(tmp_path / "set")
    assert "login" in str(refused.value.hint) and not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    "odd",
    [
        *({"size": size} for size in (-1, None, "x", True, 1 << 60)),
        *({"path": path} for path in (5, None)),
        *({"oid": digest} for digest in (5, "../x")),
        *({"lfs": large} for large in ([1], 3, {"oid": "x"})),
    ],
    ids=str,
)
def test_a_field_that_is_none_is_told(hub: DataHub, tmp_path: Path, odd: dict[str, object]) -> None:
    hub.odd = odd
    with pytest.raises(DataError, match=r"is no Hub \(a file without"):
        run(tmp_path / "set")


@pytest.mark.parametrize("body", [[], "text", {"errors": 5}, {"errors": [None]}])
def test_a_refusal_of_another_form_is_told(hub: DataHub, tmp_path: Path, body: object) -> None:
    hub.refusal = Reply(500, body)
    with pytest.raises(LtxtrainError):
        run(tmp_path / "set")


def test_two_things_of_one_name_refuse_the_set(hub: DataHub, tmp_path: Path) -> None:
    hub.files["folder/one.txt/more.txt"] = b"x"
    with pytest.raises(DataError, match=r"two things of one name: folder/one\.txt"):
        run(tmp_path / "set")


def test_a_list_without_an_end_is_given_up_and_its_pages_are_asked_of_the_hub_alone(
    hub: DataHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_ask, "MOST_PAGES", 20)
    hub.endless = True
    with pytest.raises(DataError, match="more than 20 pages"):
        run(tmp_path / "set")
    assert hub.pages == 20


@pytest.mark.parametrize(
    "record",
    [
        '{"dataset": "someone/clips", "files": {"a": {"bytes": Infinity, "mtime_ns": 1, "blob": "", "sha256": ""}}}',
        "[" * 100_000,
        '{"dataset": "\\u001b]0;x", "files": {}}',
        '{"dataset": "someone/clips", "files": 5}',
    ],
    ids=["infinity", "deep", "escape", "number"],
)
def test_a_record_that_cannot_be_read_is_none(hub: DataHub, tmp_path: Path, record: str) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / RECORD).write_text(record)
    done, _ = run(tmp_path / "set")
    assert visible(done.root) == DATA
