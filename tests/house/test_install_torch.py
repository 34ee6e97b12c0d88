"""Each build of torch comes from where its list may come from: real pip, real wheels, local indexes."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MACHINE = f"{platform.system()} {platform.machine()}"
pytestmark = pytest.mark.skipif(
    MACHINE != "Linux x86_64", reason="the builds that are tried here are for Linux on x86-64"
)


class Site:
    """A folder served over HTTP, as package indexes are, and the addresses that were asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        asked = self.asked

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, format: str, *words: object) -> None:
                asked.append(self.path)

        def handler(*words: object) -> Handler:
            return Handler(*words, directory=str(folder))  # type: ignore[arg-type]

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)  # type: ignore[arg-type]
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"

    def offer(self, index: str, wheel: Path) -> None:
        """Put ``wheel`` into ``index`` with its hash and its metadata beside it, as the real indexes do."""
        name, version, _ = wheel.name.split("-", 2)
        page = self.folder / index / name.replace("_", "-") / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(wheel, page.parent)
        with zipfile.ZipFile(wheel) as content:
            metadata = content.read(f"{name}-{version}.dist-info/METADATA")
        (page.parent / f"{wheel.name}.metadata").write_bytes(metadata)
        address = wheel.name.replace("+", "%2B")
        with page.open("a") as text:
            text.write(f'<a href="{address}#sha256={sha256(wheel)}" data-core-metadata="true">{wheel.name}</a>\n')

    def wheels_asked_for(self) -> list[str]:
        return [path for path in self.asked if path.endswith(".whl")]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "served" / "simple").mkdir(parents=True)
    site = Site(tmp_path / "served")
    threading.Thread(target=site.server.serve_forever, daemon=True).start()
    yield site
    site.server.shutdown()
    site.server.server_close()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the scripts, whose lists name small wheels that the test makes."""
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    (tmp_path / "wheels").mkdir()
    return tmp_path


def make_wheel(folder: Path, name: str, version: str, content: str = "", needs: str = "") -> Path:
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{name}/__init__.py", content)
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(
            f"{info}/RECORD", f"{name}/__init__.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n"
        )
    return wheel


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def list_wheels(checkout: Path, kind: str, *wheels: Path) -> None:
    lines = []
    for wheel in wheels:
        name, version, _ = wheel.name.split("-", 2)
        lines.append(f"{name}=={version} --hash=sha256:{sha256(wheel)}\n")
    (checkout / "requirements" / f"torch-{kind}.txt").write_text("".join(lines))


def environment(site: Site, **more: str) -> dict[str, str]:
    """Nothing of this machine's own pip and uv, and the local site as the ordinary package index."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    ordinary = f"{site.address}/simple"
    return {**kept, "PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": ordinary, "UV_DEFAULT_INDEX": ordinary, **more}


def script(checkout: Path, site: Site, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *words]
    environ = environment(site, PIP_NO_CACHE_DIR="1", UV_CACHE_DIR=str(checkout / "uv"), **more)
    return subprocess.run(command, cwd=checkout, env=environ, capture_output=True, text=True, check=False)


def install(checkout: Path, site: Site, kind: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    options = [kind, "--target", str(checkout / "opt"), "--index", site.address, *words]
    return script(checkout, site, "scripts/install_torch.py", *options, **more)


def test_a_folder_of_wheels_stands_in_for_all_indexes(checkout: Path, site: Site) -> None:
    torch = make_wheel(checkout / "wheels", "torch", "2.13.0+cu129")
    library = make_wheel(checkout / "wheels", "library", "12.9")
    list_wheels(checkout, "cu129", torch, library)
    done = install(checkout, site, "cu129", "--wheels", str(checkout / "wheels"))
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (checkout / "opt").glob("*/__init__.py")) == ["__init__.py"] * 2
    assert {"torch", "library"} <= {path.name for path in (checkout / "opt").iterdir()}
    assert not list((checkout / "opt").rglob("*.pyc"))
    assert site.asked == []


def test_an_empty_folder_of_wheels_means_the_network_and_torch_is_looked_for_first(checkout: Path, site: Site) -> None:
    torch = make_wheel(checkout, "torch", "2.13.0+cu129")
    library = make_wheel(checkout, "library", "12.9")
    list_wheels(checkout, "cu129", torch, library)
    site.offer("cu129", torch)
    site.offer("simple", library)
    done = install(checkout, site, "cu129", "--wheels", str(checkout / "wheels"))
    assert done.returncode == 0, done.stderr
    assert f"taking it from {site.address}/cu129" in done.stdout
    # The library was fetched once: the first look, which did not find torch, ended before it.
    assert sorted(site.wheels_asked_for()) == [
        f"/cu129/torch/{torch.name.replace('+', '%2B')}",
        f"/simple/library/{library.name}",
    ]
    assert (checkout / "opt" / "torch" / "__init__.py").exists()


def test_a_wheel_at_hand_is_taken_without_asking_for_torchs_own_index(checkout: Path, site: Site) -> None:
    torch = make_wheel(checkout / "wheels", "torch", "2.13.0+cpu")
    list_wheels(checkout, "cpu", torch)
    site.offer("cpu", torch)
    done = install(checkout, site, "cpu", PIP_FIND_LINKS=str(checkout / "wheels"))
    assert done.returncode == 0, done.stderr
    assert not [path for path in site.asked if path.startswith("/cpu/")]


@pytest.mark.parametrize("served", [False, True], ids=["at hand", "served"])
def test_a_wheel_with_other_content_is_refused(checkout: Path, site: Site, served: bool) -> None:
    list_wheels(checkout, "cu126", make_wheel(checkout, "torch", "2.13.0+cu126"))
    other = make_wheel(checkout / "wheels", "torch", "2.13.0+cu126", content="print('not what was locked')")
    if served:
        site.offer("cu126", other)
    done = install(checkout, site, "cu126", PIP_FIND_LINKS="" if served else str(checkout / "wheels"))
    assert done.returncode == 1
    assert "HASHES" in done.stderr
    assert not (checkout / "opt" / "torch").exists()


def test_a_list_without_hashes_takes_torchs_own_index_for_all_that_it_names(checkout: Path, site: Site) -> None:
    for name, version in (("torch", "2.13.0+rocm7.2"), ("triton_rocm", "3.7.1")):
        site.offer("rocm7.2", make_wheel(checkout / "wheels", name, version, content="right = True"))
    # pip would prefer this one, were it to see it: a local version sorts above the plain one.
    site.offer("simple", make_wheel(checkout, "triton_rocm", "3.7.1+other", content="right = False"))
    done = install(checkout, site, "rocm72")
    assert done.returncode == 0, done.stderr
    assert "without hashes" in done.stdout
    assert (checkout / "opt" / "triton_rocm" / "__init__.py").read_text() == "right = True"


def test_wheels_are_fetched_from_where_they_would_be_installed_from(checkout: Path, site: Site) -> None:
    """For a build without a network: also torch, which the ordinary package index has not."""
    torch = make_wheel(checkout, "torch", "2.13.0+cu129")
    list_wheels(checkout, "cu129", torch)
    site.offer("cu129", torch)
    words = ("--index", site.address, "--download", "fetched", "--only-binary=:all:", "--python-version", "3.13")
    done = script(checkout, site, "scripts/install_torch.py", "cu129", *words)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (checkout / "fetched").iterdir()] == [torch.name]


def test_a_word_that_is_not_known_is_refused(checkout: Path, site: Site) -> None:
    done = install(checkout, site, "cpu", "--wheel", "here")
    assert (done.returncode, site.asked) == (2, [])
    assert "not known: --wheel here" in done.stderr


def test_a_build_for_another_machine_is_refused_with_those_for_this_one(checkout: Path, site: Site) -> None:
    done = install(checkout, site, "mps")
    assert done.returncode == 1
    assert done.stderr.startswith("error: torch mps is for Darwin arm64, not for Linux x86_64\nhint: ")
    assert "cu129" in done.stderr
    assert site.asked == []


def test_the_list_of_a_build_is_written_from_torchs_own_index(checkout: Path, site: Site) -> None:
    """`scripts/lock.py --torch`: torch and what it needs with all hashes, without what the lock has; torch first."""
    needs = "Requires-Dist: library==12.9\nRequires-Dist: filelock\n"
    torch = make_wheel(checkout, "torch", "2.13.0+cu129", needs=needs)
    library = make_wheel(checkout, "library", "12.9")
    lock = (checkout / "requirements" / "lock.txt").read_text()
    filelock = next(line.split()[0] for line in lock.splitlines() if line.startswith("filelock=="))
    site.offer("cu129", torch)
    site.offer("simple", library)
    site.offer("simple", make_wheel(checkout, "filelock", filelock.removeprefix("filelock==")))
    done = script(checkout, site, "scripts/lock.py", "--torch", "cu129", "--index", site.address)
    assert done.returncode == 0, done.stderr
    written = (checkout / "requirements" / "torch-cu129.txt").read_text()
    lines = [line.strip(" \\") for line in written.splitlines() if not line.startswith("#")]
    assert lines == [
        "torch==2.13.0+cu129",
        f"--hash=sha256:{sha256(torch)}",
        "library==12.9",
        f"--hash=sha256:{sha256(library)}",
    ]
    assert "scripts/lock.py --torch cu129" in written
    assert site.address not in written
