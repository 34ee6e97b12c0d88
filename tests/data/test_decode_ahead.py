"""Windows decoded by children, ahead of the caller: the same frames, in order, and a bad clip harms nobody else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ltxtrain.data import cache_decode
from ltxtrain.data.cache_decode import Decoder
from ltxtrain.data.frames import FrameRequest, cut_of, decode_frame, decode_frames, decode_window
from ltxtrain.errors import DataError
from ltxtrain.facts.children import Children, Reply, Task
from ltxtrain.facts.media import MediaError
from ltxtrain.plan.records import Bucket, Sample
from tests import warm

Clip = Callable[..., Path]
SampleOf = Callable[..., Sample]
NumbersOf = Callable[[np.ndarray], list[int]]


def decode_ahead(samples: list[Sample], workers: int) -> Iterator[tuple[Sample, np.ndarray | DataError]]:
    with closing(Decoder(max(cut_of(sample).bytes for sample in samples), workers)) as decoder:
        yield from decoder.stream(samples)


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_decoding_ahead_gives_the_same_in_the_same_order(
    workers: int, clip: Clip, sample_of: SampleOf, tmp_path: Path
) -> None:
    path = clip("clip.mkv", 60)
    samples = [sample_of(path, 9, start=index / 5, name=f"set/clip#{index}") for index in range(6)]
    Image.new("RGB", (200, 150), (9, 99, 199)).save(tmp_path / "still.png")
    still = replace(sample_of(tmp_path / "still.png", 1), kind="image", resize=(128, 96))
    samples.insert(3, still)
    ahead = list(decode_ahead(samples, workers))
    assert [sample for sample, _ in ahead] == samples
    for sample, frames_FHWC in ahead:
        assert isinstance(frames_FHWC, np.ndarray)
        assert np.array_equal(frames_FHWC, decode_window(sample))


def test_bad_clip_comes_as_its_error_and_the_others_go_on(clip: Clip, sample_of: SampleOf, tmp_path: Path) -> None:
    good = sample_of(clip("good.mkv", 30), 9)
    (tmp_path / "bad.mkv").write_bytes(b"\x1a\x45\xdf\xa3 and nothing else")
    (tmp_path / "none.png").write_bytes(b"no image")
    samples = [
        good,
        replace(good, path=str(tmp_path / "bad.mkv")),
        replace(good, bucket=Bucket(128, 96, 89)),  # longer than the clip
        replace(good, path=str(tmp_path / "gone\nand\x1b[31m.mkv")),
        replace(good, path=str(tmp_path / "none.png"), kind="image"),
        good,
    ]
    found = [entry for _, entry in decode_ahead(samples, 2)]
    assert isinstance(found[0], np.ndarray) and isinstance(found[5], np.ndarray)
    words = ("cannot be decoded: Invalid data", "ends early", "cannot be opened", "cannot be opened: its first bytes")
    for sample, entry, what in zip(samples[1:5], found[1:5], words, strict=True):
        assert isinstance(entry, DataError)
        assert entry.message.startswith(sample.path) and what in entry.message
        assert "\x1b" not in entry.message.removeprefix(sample.path)
        assert entry.hint


class Hostile(Children):
    """Children whose replies somebody else has written."""

    reply = Reply({})

    def run(self, tasks: object) -> object:  # type: ignore[override]
        return (self.reply for _ in tasks)  # type: ignore[attr-defined]


REPLIES = {
    "fewer bytes": Reply({}, bytearray(5)),
    "more bytes": Reply({}, bytearray(1 << 20)),
    "an error that is no text": Reply({"error": {"a": [1]}}),
    "escapes": Reply({"error": "\x1b[2J\x00" + "x" * 5000}),
    "died": Reply(None, failure="crashed", detail="ended by a signal: Killed"),
    "slow": Reply(None, failure="too-slow", detail="it took longer than 60 s"),
}


@pytest.mark.parametrize("kind", REPLIES)
def test_reply_of_another_size_or_form_is_an_error(
    kind: str, clip: Clip, sample_of: SampleOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hostile, "reply", REPLIES[kind])
    monkeypatch.setattr(cache_decode, "Children", Hostile)
    ((_, found),) = decode_ahead([sample_of(clip(), 9)], 1)
    assert isinstance(found, DataError)
    assert found.message.isprintable() and len(found.message) < 1000


def test_child_that_dies_is_an_error_of_its_clip(
    clip: Clip, sample_of: SampleOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real child, which is killed in the middle of a clip that would take it long."""
    long = clip("long.mkv", 2000)
    sample = sample_of(long, 1993)
    monkeypatch.setattr(cache_decode, "decode_task", lambda cut: Task(vars(cut), 0.05, cut.bytes))
    ((_, found),) = decode_ahead([sample], workers=1)
    assert isinstance(found, DataError)
    assert "longer than" in found.message


def test_caller_that_leaves_early_leaves_no_child_behind(clip: Clip, sample_of: SampleOf) -> None:
    sample = sample_of(clip("clip.mkv", 60), 9)
    before = children_of(os.getpid())
    ahead = decode_ahead([sample] * 20, workers=2)
    next(ahead)
    ahead.close()  # type: ignore[attr-defined]
    assert children_of(os.getpid()) == before


def children_of(pid: int) -> set[str]:
    task = Path(f"/proc/{pid}/task")
    if not task.exists():
        pytest.skip("no /proc here")
    return {child for thread in task.iterdir() for child in (thread / "children").read_text().split()}


WITH_TORCH = """
import sys, torch
from pathlib import Path
from ltxtrain.data.cache_decode import Decoder
from ltxtrain.plan.records import Bucket, Sample
torch.ones(100, 100) @ torch.ones(100, 100)
sample = Sample("s/c#0", "s", sys.argv[1], ("a",), 0.0, 25.0, Bucket(128, 96, 9), (128, 96), (0, 0), 0, False)
for _, found in Decoder(128 * 96 * 9 * 3, 2).stream([sample] * 3):
    print(found.shape, torch.from_numpy(found).sum().item() > 0, found.flags.writeable)
"""


def test_works_with_torch_in_the_parent_and_needs_none_in_the_child(clip: Clip) -> None:
    done = warm.run(WITH_TORCH, clip())
    assert (done.stdout, done.stderr) == ("(9, 96, 128, 3) True True\n" * 3, "")
    code = "import sys, ltxtrain.data.decode_child; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_small_pictures_come_in_order_and_keep_their_shape(clip: Clip, numbers_of: NumbersOf, tmp_path: Path) -> None:
    path = clip("clip.mkv", 60)
    Image.new("RGB", (400, 100), (200, 100, 50)).save(tmp_path / "wide.png")
    requests = [
        FrameRequest(path, 0.0, "video", (128, 96)),
        FrameRequest(path, 1.4, "video", (999, 999)),
        FrameRequest(path, 99.0, "video", (128, 96)),
        FrameRequest(tmp_path / "gone.mkv", 0.0, "video", (64, 64)),
        FrameRequest(tmp_path / "wide.png", 0.0, "image", (64, 64)),
        FrameRequest(path, 0.4, "video", (64, 64)),
    ]
    found = list(decode_frames(requests))
    assert isinstance(found[3], MediaError) and found[3].reason == "unreadable"
    pictures = [entry for entry in found if isinstance(entry, np.ndarray)]
    assert numbers_of(np.stack(pictures[:3])) == [0, 35, 59]
    assert [picture.shape for picture in pictures[3:]] == [(16, 64, 3), (48, 64, 3)]
    assert pictures[3].reshape(-1, 3).mean(0).tolist() == [200, 100, 50]
    assert np.array_equal(decode_frame(*requests[0]), pictures[0])
    with pytest.raises(MediaError):
        decode_frame(*requests[3])


def test_children_stay_for_the_next_stream_and_samples_are_taken_as_they_are_decoded(
    clip: Clip, sample_of: SampleOf
) -> None:
    sample = sample_of(clip("clip.mkv", 60), 9)
    taken: list[int] = []

    def samples() -> Iterator[Sample]:
        for number in range(20):
            taken.append(number)
            yield sample

    before = children_of(os.getpid())
    decoder = Decoder(cut_of(sample).bytes, 1)
    try:
        for done, (_, found) in enumerate(decoder.stream(samples())):
            assert isinstance(found, np.ndarray) and len(taken) <= done + 3
        (child,) = children_of(os.getpid()) - before
        assert len(list(decoder.stream([sample] * 2))) == 2
        assert children_of(os.getpid()) - before == {child}
    finally:
        decoder.close()


def test_ctrl_c_in_the_terminal_ends_parent_and_children_without_a_word_of_the_children(clip: Clip) -> None:
    lines = [line for line in WITH_TORCH.splitlines() if "torch" not in line or line.startswith("import")]
    code = "\n".join(lines).replace(", torch", "").replace("* 3", "* 100000") + "\n    print('x', flush=True)"
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(clip())],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout is not None
    parent.stdout.readline()
    os.killpg(parent.pid, signal.SIGINT)
    _, words = parent.communicate(timeout=30)
    assert words.count("Traceback") == 1 and "KeyboardInterrupt" in words
    until = time.monotonic() + 10  # a process that was killed is gone once the system has seen to it
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < until:
            os.killpg(parent.pid, 0)
            time.sleep(0.05)
