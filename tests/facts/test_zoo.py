"""The zoo: every strange file that people, phones, downloads and attackers make, each with its verdict.

All kinds lie in one folder, as they would in real life, and go through the plan's own selection.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from ltxtrain.plan.records import Dropped, clip_name
from ltxtrain.plan.select import ProbedClip, Selection, SelectionRule, select_samples
from tests.datasets import PLAIN
from tests.facts import zoo_files as made
from tests.facts.zoo_files import changed, clip, content, cut, link_to, picture, sound, timed

RULE = SelectionRule(framerate=25.0, alignment=32, rounding=2, seed=1)
CAPTION = b"a man walks\n"
FAST = {"movflags": "faststart"}
X264 = {"codec": "libx264", "pixels": "yuv420p"}
MJPEG = {"codec": "mjpeg", "pixels": "yuvj420p", "form": "avi"}
INTERLACED = {"x264-params": "tff=1:interlaced=1"}
ROOT = os.geteuid() == 0

Verdict = str | dict[str, object]  # the reason, or what the facts of a clip that is used must say
USED: Verdict = {}

# name of the file: how it is made, verdict[, what is in its caption file; None: no such file]
VIDEOS: dict[str, tuple[object, ...]] = {
    # ---- sound files of every container and coding
    "plain.mp4": (clip(), {"frames": 25, "width": 64, "height": 48, "codec": "mpeg4", "interlaced": False}),
    "UPPER.MP4": (clip(), {"frames": 25}),
    "phone.mov": (clip(form="mov", **X264), {"codec": "h264"}),
    "film.mkv": (clip(form="matroska"), {"frames": 25, "declared_frames": 0}),
    "web.webm": (clip(codec="libvpx-vp9", form="webm", frames=12), {"codec": "vp9", "frames": 12}),
    "camera.avi": (clip(**MJPEG), {"codec": "mjpeg", "frames": 25}),
    "program.mpg": (clip(codec="mpeg1video", form="mpeg"), {"codec": "mpeg1video"}),
    "transport.mp4": (clip(codec="mpeg2video", form="mpegts"), {"frames": 25}),
    "matroska in spite of its name.mp4": (clip(form="matroska"), {"frames": 25}),
    "x" * 247 + ".mp4": (clip(), USED, None),  # the longest name there is: its caption has the same stem
    "two.mp4": (clip(), USED),
    "two.mkv": (clip(form="matroska"), USED),
    # ---- unusual, and used as what they are
    "odd.mp4": (clip(codec="ffv1", form="matroska", size=(65, 49), pixels="yuv444p"), {"width": 65, "height": 49}),
    "ten bits.mkv": (clip(codec="ffv1", form="matroska", pixels="yuv420p10le"), {"pixel_format": "yuv420p10le"}),
    "alpha.mkv": (clip(codec="ffv1", form="matroska", pixels="yuva420p"), {"pixel_format": "yuva420p"}),
    "prores.mov": (clip(codec="prores_ks", form="mov", pixels="yuva444p10le"), {"codec": "prores"}),
    "interlaced.mp4": (clip(**X264, options=INTERLACED), {"interlaced": True, "frames": 25}),
    "turned.mp4": (clip(rotation=90), {"width": 48, "height": 64, "rotation": 90}),
    "120 fps.mp4": (clip(fps=120, frames=120), {"fps": pytest.approx(120), "frames": 120}),
    "phone rate.mkv": (clip(form="matroska", frames=[0, 30, 90, 100, 300, 310, 600]), {"variable_rate": True}),
    "twice each time.mkv": (timed([n // 2 * 80 for n in range(24)]), {"frames": 12}),
    "before zero.mp4": (clip(frames=[n * 40 - 400 for n in range(25)]), USED),
    "edit list.mp4": (changed(made.shift_edit_list, **X264, frames=35), {"frames": 25}),
    "cover picture.mp4": (clip(song=True), {"frames": 25, "width": 64}),
    "over 4 GiB.mp4": (made.sparse((4 << 30) + 999, clip_in_front=True), {"frames": 25}),
    "link inside.mp4": (link_to("plain.mp4"), {"frames": 25}),
    "header of a giant.avi": (changed(made.giant_header(65_535), **MJPEG), {"width": 64}),
    # ---- cut off
    "cut in the index.mp4": (cut(0.95), "damaged"),
    "cut in the pictures.mp4": (cut(0.5), "damaged"),
    "cut in the first box.mp4": (cut(0.003), "damaged"),
    "cut with the index in front.mp4": (cut(0.7, muxing=FAST), {"declared_frames": 25}),
    "cut.mkv": (cut(0.7, form="matroska"), USED),
    "cut.avi": (cut(0.7, form="avi"), USED),
    "header alone.mkv": (cut(0.02, form="matroska"), "damaged"),
    # ---- nothing to train on
    "one frame.mp4": (clip(frames=1), "too-short"),
    "all at once.mkv": (timed([0] * 25), "too-short"),
    "sound.mp4": (sound(), "no-video"),
    "sound.mkv": (sound("matroska"), "no-video"),
    "song with a cover.mp4": (sound(cover=True), "no-video"),
    "coding of nobody.mkv": (changed(made.unknown_codec, form="matroska"), "no-video"),
    "days.mkv": (clip(form="matroska", frames=[0, 40, 100_000_000]), "too-large"),
    "large.avi": (changed(made.giant_pictures(12_000), **MJPEG), "too-large"),
    "giant.avi": (changed(made.giant_pictures(65_535), **MJPEG), "damaged"),
    # ---- no video at all, whatever the name says
    "nothing.mp4": (content(b""), "empty"),
    "one byte.mp4": (content(b"\0"), "not-video"),
    "zeros over 4 GiB.mp4": (made.sparse((4 << 30) + 999, clip_in_front=False), "not-video"),
    "text.mp4": (content(b"a man walks\n" * 99), "not-video"),
    "page.mp4": (content(b"<!DOCTYPE html><title>404</title>"), "not-video"),
    "list.mp4": (content(b"ffconcat version 1.0\nfile plain.mp4\n"), "not-video"),
    "stream.mp4": (content(b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hosts\n"), "not-video"),
    "session.mp4": (content(b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n"), "not-video"),
    "pointer of git.mp4": (content(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "not-video"),
    "png.mp4": (picture("PNG"), "not-video"),
    "gif.mp4": (picture("GIF", "P"), "not-video"),
    "waves.avi": (sound("wav"), "not-video"),
    "archive.mp4": (lambda path: zipfile.ZipFile(path, "w").writestr("a", "b"), "not-video"),
    "magic and noise.mkv": (content(b"\x1a\x45\xdf\xa3" + bytes(range(256)) * 8), "damaged"),
    # ---- no file
    "folder.mp4": (Path.mkdir, "unreadable"),
    "pipe.mp4": (os.mkfifo, "unreadable"),
    "socket.mp4": (made.listening, "unreadable"),
    "device.mp4": (made.device, "unreadable") if ROOT else (content(b""), "empty"),
    "link to nothing.mp4": (link_to("gone.mp4"), "unreadable"),
    "link in a circle.mp4": (link_to("link in a circle.mp4"), "unreadable"),
    "link out.mp4": (link_to("../outside/secret.mp4"), "outside-folder"),
    "line\nbreak.mp4": (clip(), "unreadable", None),
    os.fsdecode(b"latin-\xe9.mp4"): (clip(), "unreadable", None),
    # ---- captions
    "no caption.mp4": (clip(), "no-caption", None),
    "empty caption.mp4": (clip(), "no-caption", b""),
    "blank caption.mp4": (clip(), "no-caption", b" \n\t\n"),
    "cp1252.mp4": (clip(), "bad-caption", "the man’s hat".encode("cp1252")),
    "utf-16.mp4": (clip(), "bad-caption", "a man".encode("utf-16")),
    "novel.mp4": (clip(), "bad-caption", b"a man walks " * 9000),
    "byte order mark.mp4": (clip(), USED, b"\xef\xbb\xbfa man"),
    "nul.mp4": (clip(), USED, b"a m\0an"),
    "caption out.mp4": (clip(), "outside-folder", Path("../outside/secret.txt")),
    # ---- hidden files are of the operating system
    "._plain.mp4": (content(b"\0\5\x16\7"), "not found"),
    ".hidden.mp4": (clip(), "not found"),
}

IMAGES: dict[str, tuple[object, ...]] = {
    "plain.png": (picture("PNG"), {"frames": 1, "width": 64, "height": 48, "kind": "image", "codec": "png"}),
    "photo.JPG": (picture("JPEG"), {"codec": "jpeg"}),
    "phone.jpeg": (made.turned_picture, {"width": 48, "height": 64}),
    "print.jpg": (picture("JPEG", "CMYK"), {"pixel_format": "CMYK"}),
    "web.webp": (picture("WEBP"), {"codec": "webp"}),
    "moving.webp": (made.animated, {"frames": 1}),
    "old.bmp": (picture("BMP"), USED),
    "new.avif": (picture("AVIF"), {"codec": "avif"}),
    "scan.tiff": (picture("TIFF", "I;16"), USED),
    "alpha.png": (picture("PNG", "RGBA"), {"pixel_format": "RGBA"}),
    "palette.png": (picture("PNG", "P", transparency=0), {"pixel_format": "P"}),
    "png in spite of its name.jpg": (picture("PNG"), {"codec": "png"}),
    "measured.tiff": (picture("TIFF", "F"), "damaged"),
    "bomb.png": (content(made.bomb(60_000, 60_000)), "too-large"),
    "half.png": (made.half_a_picture, "damaged"),
    "short of data.png": (content(made.bomb(4000, 4000)), "damaged"),
    "nothing.png": (content(b""), "empty"),
    "text.png": (content(b"a man"), "not-image"),
    "drawing.png": (content(b'<svg xmlns="http://www.w3.org/2000/svg"/>'), "not-image"),
    "program.png": (content(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "not-image"),
    "video.png": (clip(), "not-image"),
    "pipe.png": (os.mkfifo, "unreadable"),
    "link out.png": (link_to("../outside/secret.png"), "outside-folder"),
}


def fill(folder: Path, kinds: dict[str, tuple[object, ...]]) -> None:
    """Every kind with its caption; beside the folder, what nobody may read."""
    outside = folder.parent / "outside"
    outside.mkdir(parents=True, exist_ok=True)
    folder.mkdir()
    made.encoded(outside / "secret.mp4")
    picture("PNG")(outside / "secret.png")
    (outside / "secret.txt").write_text("a secret\n")
    for name, (make, _, *caption) in kinds.items():
        path = folder / name
        make(path)  # type: ignore[operator]
        text = caption[0] if caption else CAPTION
        if isinstance(text, Path):
            path.with_suffix(".txt").symlink_to(text)
        elif text is not None:
            path.with_suffix(".txt").write_bytes(text)  # type: ignore[arg-type]


def seen(folder: Path) -> dict[str, tuple[int, ...]]:
    """Everything below ``folder`` with size, mode and times, but those of reading."""
    return {
        str(path): (state.st_size, state.st_mode, state.st_mtime_ns, state.st_ctime_ns)
        for path in [folder, *folder.rglob("*")]
        for state in [path.lstat()]
    }


class Zoo:
    def __init__(self, folder: Path, kind: str) -> None:
        self.kinds = VIDEOS if kind == "video" else IMAGES
        self.folder = folder
        fill(folder, self.kinds)
        (folder / ("x" * 247 + ".txt")).write_bytes(CAPTION)
        before = seen(folder.parent)
        self.opened: list[str] = []
        with watched(self.opened):
            self.selection = select_samples(replace(PLAIN, root=folder, kind=kind, min_frames=9), RULE)
        self.changed = {name for name, state in seen(folder.parent).items() if before.get(name) != state}


LISTENING: list[list[str]] = []


def overhear(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and LISTENING and isinstance(arguments[0], (str, bytes, os.PathLike)):
        for found in LISTENING:
            found.append(os.fsdecode(arguments[0]))


@contextmanager
def watched(found: list[str]) -> Iterator[None]:
    """Files that this process opens meanwhile, as Python's own audit tells. A hook stays for ever: it falls silent."""
    sys.addaudithook(overhear)
    LISTENING.append(found)
    yield
    LISTENING.remove(found)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Zoo]:
    known: dict[str, Zoo] = {}

    def get(kind: str) -> Zoo:
        if kind not in known:
            known[kind] = Zoo(tmp_path_factory.mktemp(kind) / "set", kind)
        return known[kind]

    return get


def verdict(selection: Selection, name: str) -> Dropped | ProbedClip | None:
    told = name.replace("\n", "\\n").encode("utf-8", "surrogateescape").replace(b"\xe9", b"\\xe9").decode()
    dropped = [entry for entry in selection.dropped if entry.path == told]
    used = {sample.path for sample in selection.samples}
    probed = [entry for entry in selection.probed if entry.found.name == name and str(entry.found.path) in used]
    assert len(dropped) + len(probed) <= 1
    return (dropped or probed or [None])[0]  # type: ignore[list-item]


def check(zoo: Zoo, name: str) -> None:
    found, expected = verdict(zoo.selection, name), zoo.kinds[name][1]
    if expected == "not found":
        assert found is None
    elif isinstance(expected, str):
        assert isinstance(found, Dropped), found
        assert found.reason == expected, found
        assert found.detail
        assert found.detail.isprintable()
    else:
        assert isinstance(found, ProbedClip), found
        facts = {key: getattr(found.facts, key) for key in expected}  # type: ignore[attr-defined]
        assert facts == expected


@pytest.mark.parametrize("name", VIDEOS, ids=lambda name: ascii(name)[1:40])
def test_video_gets_its_verdict(name: str, zoo: Callable[[str], Zoo]) -> None:
    check(zoo("video"), name)


@pytest.mark.parametrize("name", IMAGES)
def test_image_gets_its_verdict(name: str, zoo: Callable[[str], Zoo]) -> None:
    check(zoo("image"), name)


@pytest.mark.parametrize("kind", ["video", "image"])
def test_used_and_dropped_are_all_that_was_found(kind: str, zoo: Callable[[str], Zoo]) -> None:
    selection = zoo(kind).selection
    used = {clip_name(sample) for sample in selection.samples}
    assert len(used) + len(selection.dropped) == selection.found
    assert selection.found == sum(entry[1] != "not found" for entry in zoo(kind).kinds.values())
    assert len(zoo(kind).kinds) >= {"video": 60, "image": 20}[kind]


@pytest.mark.parametrize("kind", ["video", "image"])
def test_nothing_outside_is_read_and_nothing_is_written(kind: str, zoo: Callable[[str], Zoo]) -> None:
    assert zoo(kind).changed == set()
    outside = [path for path in zoo(kind).opened if "outside" in Path(path).parts or "secret" in path]
    assert outside == []
    assert any(str(zoo(kind).folder) in path for path in zoo(kind).opened), "the watch sees captions being read"


AUDITED = """
import json, os, sys
from pathlib import Path
opened = []
folder = Path(sys.argv[1])
room = memoryview(bytearray(1 << 20))
from ltxtrain.facts.probe_child import answer
import av, PIL.Image
PIL.Image.init()
def note(event, what):
    if event.startswith(WATCHED) and not isinstance(what[0], int):  # a number is of a file that is open
        opened.append([event, str(what[0])])
sys.addaudithook(note)
for path in sorted(folder.iterdir()):
    if path.suffix != ".txt" and not path.is_symlink():
        kind = "video" if sys.argv[2] == "video" else "image"
        answer({"do": "probe", "path": str(path), "kind": kind, "within": None}, room)
print(json.dumps(opened))
"""


@pytest.mark.parametrize("kind", ["video", "image"])
def test_children_open_the_file_that_is_asked_for_and_nothing_else(kind: str, zoo: Callable[[str], Zoo]) -> None:
    events = ("open", "socket.", "subprocess.", "os.exec", "os.posix_spawn", "os.system", "ctypes.dlopen")
    code = AUDITED.replace("WATCHED", repr(events))
    command = [sys.executable, "-c", code, str(zoo(kind).folder), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    opened = json.loads(done.stdout)
    assert {event for event, _ in opened} == {"open"}
    assert {Path(path).parent for _, path in opened if not path.endswith((".py", ".pyc"))} == {zoo(kind).folder}


@pytest.mark.skipif(not ROOT or sys.platform != "linux", reason="only root can give files to other users")
def test_file_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    made.encoded(tmp_path / "a.mp4")
    os.chown(tmp_path / "a.mp4", 54321, 54321)
    (tmp_path / "a.mp4").chmod(0o600)
    code = (
        "import sys; from pathlib import Path; from ltxtrain.facts.media import probe_clips\n"
        "print([found.reason for found in probe_clips([Path(sys.argv[1])])])"
    )
    powers = "-dac_override,-dac_read_search"
    command = ["setpriv", f"--bounding-set={powers}", f"--inh-caps={powers}", sys.executable, "-c", code]
    done = subprocess.run([*command, str(tmp_path / "a.mp4")], capture_output=True, text=True, check=False)
    assert done.stdout == "['unreadable']\n", done.stderr
