"""What was found out about files is remembered as long as they do not change, and never believed when damaged."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltxtrain.facts import media, media_memo
from ltxtrain.facts.media import ClipFacts, MediaError, probe_clips
from ltxtrain.facts.media_facts import from_plain, plain, printable
from ltxtrain.facts.media_memo import Memo, stamp_of
from ltxtrain.facts.reasons import REASONS

MakeClip = Callable[..., Path]


@pytest.fixture
def clips(make_clip: MakeClip, tmp_path: Path) -> list[Path]:
    """A good one, a bad one, one that is not there. They count as settled at once."""
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    return [make_clip("good.mp4", frames=5), bad, tmp_path / "gone.mp4"]


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media_memo, "SETTLED_AFTER_S", -1e9)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files that children are asked to open."""
    asked: list[Path] = []
    real = media.probe_task

    def note(path: Path, kind: media.Kind, root: Path | None) -> media.Task:
        asked.append(path)
        return real(path, kind, root)

    monkeypatch.setattr(media, "probe_task", note)
    return asked


def told(found: list[ClipFacts | MediaError]) -> list[object]:
    return [(entry.reason, entry.detail) if isinstance(entry, MediaError) else entry for entry in found]


def test_facts_and_refusals_are_remembered_and_what_may_mend_itself_is_not(
    clips: list[Path], opened: list[Path], tmp_path: Path
) -> None:
    first = probe_clips(clips, "video", tmp_path / "memo")
    assert opened == clips
    opened.clear()
    assert told(probe_clips(clips, "video", tmp_path / "memo")) == told(first)
    assert opened == [clips[2]]


def test_changed_file_is_opened_again(clips: list[Path], opened: list[Path], tmp_path: Path) -> None:
    probe_clips(clips, "video", tmp_path / "memo")
    opened.clear()
    os.utime(clips[0], ns=(0, stamp_of(clips[0])[1] + 1))  # type: ignore[index]
    clips[1].write_bytes(b"not video")
    probe_clips(clips, "video", tmp_path / "memo")
    assert opened == clips


def test_file_that_changed_just_now_is_not_remembered(
    clips: list[Path], opened: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time may stand still while it changes once more."""
    monkeypatch.setattr(media_memo, "SETTLED_AFTER_S", 1000)
    probe_clips(clips, "video", tmp_path / "memo")
    assert not (tmp_path / "memo").exists()
    probe_clips(clips, "video", tmp_path / "memo")
    assert opened == 2 * clips


def test_other_kind_other_program_and_other_folder_are_other_facts(
    clips: list[Path], opened: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe_clips(clips[:2], "video", tmp_path / "memo")
    assert [getattr(entry, "reason", "") for entry in probe_clips(clips[:2], "image", tmp_path / "memo")] == [
        "not-image",
        "not-image",
    ]
    opened.clear()
    probe_clips(clips[:2], "video", tmp_path / "memo", tmp_path.parent)
    assert len(opened) == 2
    monkeypatch.setattr(media, "program", lambda: "av 99")
    probe_clips(clips[:2], "video", tmp_path / "memo")
    assert len(opened) == 4


def test_two_sets_of_one_folder_share_what_is_known(clips: list[Path], opened: list[Path], tmp_path: Path) -> None:
    for part in (clips[:1], clips[1:2], clips[:2]):
        probe_clips(part, "video", tmp_path / "memo", tmp_path)
    assert opened == clips[:2]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "flipped bit": lambda data: data[:-30] + bytes([data[-30] ^ 1]) + data[-29:],
    "cut off": lambda data: data[:-7],
    "emptied": lambda data: b"",
    "other first line": lambda data: b"x" + data,
    "no JSON": lambda data: b"\xff\xfe" * 50,
    "deep": lambda data: b"[" * 100_000,
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_memo_is_a_miss(kind: str, clips: list[Path], opened: list[Path], tmp_path: Path) -> None:
    first = probe_clips(clips[:2], "video", tmp_path / "memo")
    (note,) = (tmp_path / "memo").iterdir()
    note.write_bytes(DAMAGE[kind](note.read_bytes()))
    opened.clear()
    assert told(probe_clips(clips[:2], "video", tmp_path / "memo")) == told(first)
    assert opened == clips[:2]


def test_goes_on_where_nothing_can_be_written(clips: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert len(probe_clips(clips, "video", tmp_path / "file" / "memo")) == 3


def test_stopped_or_killed_it_remembers_what_was_found_and_tells_how_far_it_is(
    make_clip: MakeClip, opened: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = [make_clip(f"{number}.mp4", frames=2) for number in range(4)]
    heard: list[tuple[int, int]] = []

    def stop(done: int, count: int) -> None:
        heard.append((done, count))
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        probe_clips(several, "video", tmp_path / "memo", progress=stop)
    opened.clear()
    monkeypatch.setattr(media_memo, "KEEP_EVERY_S", -1)
    heard_now: list[object] = []

    def look(done: int, count: int) -> None:
        heard_now.append((done, count, len(Memo(tmp_path / "memo", tmp_path, "video", media.program())._entries)))

    probe_clips(several, "video", tmp_path / "memo", progress=look)
    assert opened == several[2:]
    assert heard == [(1, 4), (2, 4)]
    assert heard_now == [(1, 2, 3), (2, 2, 4)]
    probe_clips(several, "video", tmp_path / "memo", progress=stop)
    assert len(heard) == 2


def test_ten_thousand_known_clips_are_answered_at_once(tmp_path: Path, opened: list[Path]) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    paths = [folder / f"clip_{number:05d}.mp4" for number in range(10_000)]
    known = Memo(tmp_path / "memo", folder, "video", media.program())
    for path in paths:
        path.touch()
        facts = ClipFacts(path, 0, 64, 48, 0, 25, 25, 25.0, 0.0, 1.0, False, "h264", "yuv420p", 1.0)
        known.remember(path, stamp_of(path), facts)
    known.keep(paths)
    began = time.process_time()
    found = probe_clips(paths, "video", tmp_path / "memo", folder)
    assert time.process_time() - began < 2.0  # a quarter of a second on a quiet machine
    assert opened == []
    assert all(isinstance(entry, ClipFacts) for entry in found)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
GOOD = plain(ClipFacts(Path("a"), 9, 64, 48, 0, 25, 25, 25.0, 0.0, 1.0, False, "h264", "yuv420p", 1.0))


@given(name=st.sampled_from([*GOOD, "other"]), value=json_values)
def test_facts_with_anything_in_a_field_are_facts_or_nothing(name: str, value: object) -> None:
    found = from_plain(Path("a"), json.loads(json.dumps(GOOD | {name: value})))
    if found is not None:
        assert isinstance(found, ClipFacts)
        assert found.width > 0 and found.frames > 0
        assert {
            key: type(entry) for key, entry in plain(found).items() if key not in ("fps", "declared_s")
        }.items() >= {
            ("codec", str),
            ("bytes", int),
            ("interlaced", bool),
        }


@given(
    said=json_values | st.fixed_dictionaries({"reason": st.sampled_from(REASONS) | json_values, "detail": json_values})
)
def test_whatever_else_is_said_is_a_reason_or_nothing(said: object) -> None:
    found = from_plain(Path("a"), said)
    assert found is None or (isinstance(found, MediaError) and found.reason in REASONS and found.detail.isprintable())


@given(st.text(max_size=1000))
def test_texts_of_others_fit_on_a_line_of_a_terminal(text: str) -> None:
    assert printable(text).isprintable()
    assert len(printable(text)) <= 304
