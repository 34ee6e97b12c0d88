"""A data set of the Hub comes whole, once, checked, and nowhere but into its folder."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path

import huggingface_hub.constants
import pytest

from ltxtrain.errors import ConfigError, DataError, LtxtrainError, MachineError
from ltxtrain.events import Event, Notice, StageDone, StageProgress, StageStarted
from ltxtrain.prepare import fetch
from ltxtrain.prepare.fetch import Fetched, iter_fetch
from ltxtrain.prepare.fetch_list import full_name, look_up, usual_folder
from ltxtrain.prepare.fetch_part import PARTS, part_path
from ltxtrain.prepare.fetch_record import RECORD
from tests.doctor.fake_hub import Reply
from tests.prepare.fetch_hub import FILES, NAME, DataHub

DATA = {name for name in FILES if name not in ("load.py", "weights.pkl", ".gitattributes")}


pytestmark = pytest.mark.usefixtures("online")


def run(to: Path, revision: str | None = None) -> tuple[Fetched, list[Event]]:
    events = []
    steps = iter_fetch(NAME, to, revision)
    while True:
        try:
            events.append(next(steps))
        except StopIteration as finished:
            return finished.value, events


def visible(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.name != RECORD}


def told(events: list[Event]) -> str:
    return "\n".join(event.message for event in events if isinstance(event, Notice))


def test_videos_captions_and_papers_come_and_nothing_else(hub: DataHub, tmp_path: Path) -> None:
    done, events = run(tmp_path / "set")
    assert visible(done.root) == DATA
    assert all((done.root / name).read_bytes() == FILES[name] for name in DATA)
    assert set(hub.fetched()) == DATA - {"empty.txt"}, "nothing is asked for a file without content"
    assert "licence: mit" in told(events) and "6 files, 3.0 MiB" in told(events)
    assert "load.py" in told(events) and "weights.pkl" in told(events)


def test_the_commit_and_each_files_digest_are_recorded(hub: DataHub, tmp_path: Path) -> None:
    done, _ = run(tmp_path / "set")
    record = json.loads((done.root / RECORD).read_text())
    assert record["commit"] == hub.commit == done.commit and record["dataset"] == NAME
    assert record["from"] == hub.address and set(record["files"]) == DATA
    one = record["files"]["folder/one.mp4"]
    assert (one["sha256"], one["bytes"]) == (hub.entry("folder/one.mp4")["lfs"]["oid"], 3 << 20)  # type: ignore[index]


def test_progress_begins_at_nothing_and_ends_at_all(hub: DataHub, tmp_path: Path) -> None:
    _, events = run(tmp_path / "set")
    stages = [event for event in events if isinstance(event, (StageStarted, StageProgress, StageDone))]
    assert isinstance(stages[0], StageStarted) and stages[0].done == 0 and stages[0].total == 4
    last = stages[-2]
    assert isinstance(last, StageProgress) and last.done == 4 and last.detail == "6/6 files"
    assert isinstance(stages[-1], StageDone)


@pytest.mark.parametrize("keep_record", [True, False])
def test_again_nothing_is_fetched(hub: DataHub, tmp_path: Path, keep_record: bool) -> None:
    done, _ = run(tmp_path / "set")
    if not keep_record:
        (done.root / RECORD).unlink()
    hub.fetched()
    again, events = run(tmp_path / "set")
    assert hub.fetched() == [] and (again.files, again.there) == (0, 6)
    assert "nothing to fetch" in told(events)


def test_what_the_hub_changed_is_fetched_and_what_the_user_changed_is_kept(hub: DataHub, tmp_path: Path) -> None:
    done, _ = run(tmp_path / "set")
    hub.fetched()
    hub.files |= {"folder/two.mp4": b"a better video", "folder/one.txt": b"by the hub\n", "new.txt": b"new\n"}
    del hub.files["folder/two.txt"]
    (done.root / "folder/one.txt").write_text("a cat walks, by hand\n")
    (done.root / "empty.txt").unlink()
    hub.large = {name for name in hub.files if name.endswith(".mp4")}
    again, events = run(tmp_path / "set")
    assert hub.fetched() == ["folder/two.mp4", "new.txt"]
    assert (done.root / "empty.txt").read_bytes() == b""
    assert again.changed == ("folder/one.txt",)
    assert (done.root / "folder/one.txt").read_text() == "a cat walks, by hand\n"
    assert (done.root / "folder/two.mp4").read_bytes() == b"a better video"
    assert "changed here, and kept as they are: folder/one.txt" in told(events)
    assert "no longer in the set, and kept: folder/two.txt" in told(events)


def test_a_cut_connection_goes_on_where_it_was(hub: DataHub, tmp_path: Path) -> None:
    hub.cut["folder/one.mp4"] = [1 << 20, 1 << 20]
    done, events = run(tmp_path / "set")
    assert (done.root / "folder/one.mp4").read_bytes() == FILES["folder/one.mp4"]
    starts = [int(asked[6:-1]) for name, asked in hub.ranges_asked]
    assert len(starts) == 2 and 0 < starts[0] < starts[1] < 3 << 20
    assert [event.done for event in events if isinstance(event, StageProgress)][-1] == 4


def test_a_run_that_ended_goes_on_in_the_next_one(
    hub: DataHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.cut["folder/one.mp4"] = [2 << 20, 0]
    monkeypatch.setattr(fetch, "TRIES", 1)
    with pytest.raises(MachineError, match="out of reach") as failed:
        run(tmp_path / "set")
    assert "run again, and it goes on" in str(failed.value.hint)
    assert "folder/one.mp4" not in visible(tmp_path / "set")
    there = max(part.stat().st_size for part in (tmp_path / "set" / PARTS).glob("*.part"))
    assert there >= 1 << 20
    hub.cut.clear()
    hub.sent = 0
    run(tmp_path / "set")
    assert ("folder/one.mp4", f"bytes={there}-") in hub.ranges_asked
    assert hub.sent < (3 << 20) - there + 10_000
    assert visible(tmp_path / "set") == DATA


def test_a_server_without_ranges_begins_anew(hub: DataHub, tmp_path: Path) -> None:
    hub.ranges = False
    hub.cut["folder/one.mp4"] = [1 << 20]
    done, events = run(tmp_path / "set")
    assert (done.root / "folder/one.mp4").read_bytes() == FILES["folder/one.mp4"]
    assert [event.done for event in events if isinstance(event, StageProgress)][-1] == 4


def test_a_server_that_always_breaks_off_is_given_up(hub: DataHub, tmp_path: Path) -> None:
    hub.cut["folder/two.mp4"] = [0] * 50
    with pytest.raises(MachineError, match="out of reach"):
        run(tmp_path / "set")
    assert len(hub.cut["folder/two.mp4"]) == 50 - fetch.TRIES


def test_a_server_that_sends_next_to_nothing_is_given_up(
    hub: DataHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "SLOW_SECONDS", 0.2)
    monkeypatch.setattr(fetch, "TRIES", 2)
    hub.drip_s = 0.02
    started = time.monotonic()
    with pytest.raises(MachineError, match="comes with less than") as slow:
        run(tmp_path / "set")
    assert time.monotonic() - started < 5 and "it goes on" in str(slow.value.hint)
    assert any(1 <= part.stat().st_size < 100 for part in (tmp_path / "set" / PARTS).glob("*.part"))


@pytest.mark.parametrize("name", ["folder/two.mp4", "folder/two.txt"], ids=["sha256", "git's digest"])
def test_another_content_than_promised_is_fetched_once_more_and_then_refused(
    hub: DataHub, tmp_path: Path, name: str
) -> None:
    false = bytes(len(FILES[name]))
    hub.wrong[name] = [false]
    done, _ = run(tmp_path / "good")
    assert (done.root / name).read_bytes() == FILES[name]
    hub.wrong[name] = [false, false]
    with pytest.raises(DataError, match="came twice with another content"):
        run(tmp_path / "bad")
    assert name not in visible(tmp_path / "bad")
    file = next(file for file in look_up(NAME, None).files if file.name == name)
    assert not part_path((tmp_path / "bad").resolve(), file).exists()


def test_a_part_with_another_beginning_is_found_out(hub: DataHub, tmp_path: Path) -> None:
    run(tmp_path / "set")
    (tmp_path / "set/folder/one.mp4").unlink()
    found = look_up(NAME, None)
    part = part_path((tmp_path / "set").resolve(), next(file for file in found.files if file.name == "folder/one.mp4"))
    part.parent.mkdir()
    part.write_bytes(bytes(1 << 20))
    done, _ = run(tmp_path / "set")
    assert (done.root / "folder/one.mp4").read_bytes() == FILES["folder/one.mp4"]


@pytest.mark.parametrize(
    "name",
    ["../out.txt", "/out.txt", "a/../../out.txt", "a\\..\\out.txt", "a//out.txt", "a\0.txt", "C:/out.txt", "./a.txt"],
)
def test_a_name_that_leads_out_refuses_the_set(hub: DataHub, tmp_path: Path, name: str) -> None:
    hub.files[name] = b"out"
    with pytest.raises(DataError, match="leads out of its folder"):
        run(tmp_path / "deep" / "set")
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("link", ["folder", "folder/one.txt", PARTS])
def test_no_link_is_followed(hub: DataHub, tmp_path: Path, link: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "set" / link).parent.mkdir(parents=True)
    (tmp_path / "set" / link).symlink_to(outside if link != "folder/one.txt" else outside / "one.txt")
    with pytest.raises(DataError, match="is a link"):
        run(tmp_path / "set")
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("kind", ["link", "second name", "fifo", "folder"])
def test_a_part_that_is_no_plain_file_of_its_own_is_not_written_to(hub: DataHub, tmp_path: Path, kind: str) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"")
    file = next(file for file in look_up(NAME, None).files if file.name == "folder/one.txt")
    part = part_path((tmp_path / "set").resolve(), file)
    part.parent.mkdir(parents=True)
    if kind == "link":
        part.symlink_to(victim)
    elif kind == "second name":
        part.hardlink_to(victim)
    elif kind == "fifo":
        os.mkfifo(part)
    else:
        part.mkdir()
    with pytest.raises(DataError, match="is a link or no plain file") as refused:
        run(tmp_path / "set")
    assert refused.value.hint == "remove it"
    assert victim.read_bytes() == b"" and "folder/one.txt" not in visible(tmp_path / "set")


REFUSALS = [
    (Reply(404, {"error": "no"}, "RepoNotFound", "Repository not found"), DataError, "has no data set", "spelling"),
    (Reply(401, {"error": "no"}, "RepoNotFound", "Invalid username"), DataError, "has no data set", "HF_TOKEN"),
    (Reply(403, {"error": "no"}, "GatedRepo", "restricted"), DataError, "accept its terms", "/datasets/someone/clips"),
    (Reply(403, {"error": "no"}, "", "Forbidden"), DataError, "the token may not read", "settings/tokens"),
    (
        Reply(401, {"error": "no"}, "", "Invalid credentials in Authorization header"),
        DataError,
        "does not know the token",
        "make a new one",
    ),
    (Reply(418, {"error": "no"}), DataError, "answer 418", "HF_ENDPOINT"),
]


@pytest.mark.parametrize(("reply", "kind", "words", "hint"), REFUSALS)
def test_each_refusal_is_told_with_what_to_do(
    hub: DataHub, tmp_path: Path, reply: Reply, kind: type[LtxtrainError], words: str, hint: str
) -> None:
    hub.refusal = reply
    with pytest.raises(kind, match=words) as refused:
        run(tmp_path / "set")
    assert hint in str(refused.value.hint)
    assert not (tmp_path / "set").exists()


def test_a_set_that_is_gated_only_for_its_files_is_told(hub: DataHub, tmp_path: Path) -> None:
    steps = iter_fetch(NAME, tmp_path / "set")
    assert isinstance(next(steps), Notice)
    hub.refusal = Reply(403, {"error": "no"}, "GatedRepo", "restricted")
    with pytest.raises(DataError, match="accept its terms"):
        list(steps)


def test_a_revision_is_fetched_or_told_to_be_none(hub: DataHub, tmp_path: Path) -> None:
    run(tmp_path / "set", "v1")
    assert json.loads((tmp_path / "set" / RECORD).read_text())["revision_asked"] == "v1"
    with pytest.raises(DataError, match="has no revision v2"):
        run(tmp_path / "other", "v2")


def test_the_token_is_sent_and_recorded_nowhere(hub: DataHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = "hf_" + "aBcDeFgH" * 4
    monkeypatch.setenv("HF_TOKEN", token)
    done, events = run(tmp_path / "set")
    assert {shown for *_, shown in hub.asked} == {f"Bearer {token}"}
    assert token not in repr(events) + (done.root / RECORD).read_text()


def test_no_network_is_the_machines_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(MachineError, match=r"127\.0\.0\.1:9 is out of reach"):
        run(tmp_path / "set")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MachineError, match="HF_HUB_OFFLINE is set"):
        run(tmp_path / "set")
    monkeypatch.setenv("HF_ENDPOINT", "ftp://me:s3cret@host")
    with pytest.raises(ConfigError, match="is no address") as refused:
        look_up_online(monkeypatch)
    assert "s3cret" not in refused.value.message


def look_up_online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    look_up(NAME, None)


def test_too_little_room_is_told_before_anything_is_fetched(
    hub: DataHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "ROOM_LEFT", 1 << 60)
    with pytest.raises(MachineError, match=r"3.0 MiB are to be fetched, and .* are free"):
        run(tmp_path / "set")
    assert hub.fetched() == []


def test_a_folder_of_another_set_or_of_another_process_is_refused(hub: DataHub, tmp_path: Path) -> None:
    done, _ = run(tmp_path / "set")
    with pytest.raises(ConfigError, match="holds the data set someone/clips"):
        list(iter_fetch("someone/else", tmp_path / "set"))
    (done.root / PARTS).mkdir()
    with (done.root / PARTS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(MachineError, match="another process fetches"):
            run(tmp_path / "set")
    run(tmp_path / "set")


def test_a_file_in_the_place_of_the_folder_is_told(hub: DataHub, tmp_path: Path) -> None:
    (tmp_path / "set").write_text("a file")
    with pytest.raises(MachineError, match="is no folder"):
        run(tmp_path / "set")


def test_names_are_short_full_or_the_address_of_a_page() -> None:
    disney = "sayakpaul/video-dataset-disney-organized"
    assert full_name("disney") == full_name(disney) == full_name(f"https://huggingface.co/datasets/{disney}") == disney
    assert usual_folder("disney") == "disney-black-and-white" and usual_folder(NAME) == "clips"
    for wrong in ("disny", "../x", "a/../b", "a/b/c", "", "a/b?x=1", "https://example.org/datasets/a/b"):
        with pytest.raises(ConfigError, match="no name of a data set"):
            full_name(wrong)
