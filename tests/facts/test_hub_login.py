"""A token comes from a variable or a file, reaches the Hub's requests, and is shown nowhere."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ltxtrain.errors import ConfigError
from ltxtrain.facts.hub_login import take_hub_token

# Put together here, so that no scanner takes them for real ones.
TOKEN = "hf_" + "aBcDeFgH0123456789"
OTHER = "hf_" + "zYxWvUtS9876543210"


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()
    return folder


def file_with(folder: Path, content: bytes, name: str = "token") -> str:
    (folder / name).write_bytes(content)
    return str(folder / name)


@pytest.mark.parametrize("content", [TOKEN, f"{TOKEN}\n", f"{TOKEN}\r\n", f" {TOKEN}\n\n"])
def test_a_file_gives_the_token_without_the_end_of_its_line(tmp_path: Path, secrets: Path, content: str) -> None:
    env = {"HF_TOKEN_FILE": file_with(tmp_path, content.encode())}
    assert take_hub_token(env, secrets) == []
    assert env["HF_TOKEN"] == TOKEN


def test_a_mounted_secret_needs_no_variable(secrets: Path) -> None:
    file_with(secrets, f"{TOKEN}\n".encode(), "HF_TOKEN")
    env: dict[str, str] = {}
    assert take_hub_token(env, secrets) == []
    assert env == {"HF_TOKEN": TOKEN}


def test_the_variable_counts_before_its_file_and_the_file_before_the_mounted_secret(
    tmp_path: Path, secrets: Path
) -> None:
    mounted, named = f"{TOKEN}3", file_with(tmp_path, OTHER.encode())
    file_with(secrets, mounted.encode(), "HF_TOKEN")
    env = {"HF_TOKEN": TOKEN, "HF_TOKEN_FILE": named}
    told = take_hub_token(env, secrets)
    assert env["HF_TOKEN"] == TOKEN
    assert [sentence.split(":")[0].endswith("differ") for sentence in told] == [True, True]
    env = {"HF_TOKEN": "", "HF_TOKEN_FILE": named}
    told += take_hub_token(env, secrets)
    assert env["HF_TOKEN"] == OTHER
    assert not any(secret in " ".join(told) for secret in (TOKEN, OTHER, mounted))


def test_taken_again_it_is_the_same_and_nothing_is_told(tmp_path: Path, secrets: Path) -> None:
    env = {"HF_TOKEN_FILE": file_with(tmp_path, f"{TOKEN}\n".encode())}
    assert take_hub_token(env, secrets) + take_hub_token(env, secrets) == []
    assert env["HF_TOKEN"] == TOKEN


def test_nothing_given_is_nothing_taken(secrets: Path) -> None:
    env: dict[str, str] = {"HF_TOKEN_FILE": ""}
    assert take_hub_token(env, secrets) == [] and "HF_TOKEN" not in env


def test_an_empty_file_is_told_and_gives_nothing(tmp_path: Path, secrets: Path) -> None:
    env = {"HF_TOKEN_FILE": file_with(tmp_path, b"\n")}
    assert take_hub_token(env, secrets) == ["HF_TOKEN_FILE is empty: no token is taken from it"]
    assert "HF_TOKEN" not in env


@pytest.mark.parametrize("content", [b"", b"\n"])
def test_an_empty_mounted_secret_is_none(secrets: Path, content: bytes) -> None:
    file_with(secrets, content, "HF_TOKEN")
    env: dict[str, str] = {}
    assert take_hub_token(env, secrets) == [] and env == {}


def test_a_device_is_no_token_and_nothing_is_told(secrets: Path) -> None:
    (secrets / "HF_TOKEN").symlink_to("/dev/zero")
    env = {"HF_TOKEN_FILE": "/dev/null"}
    assert take_hub_token(env, secrets) == [] and "HF_TOKEN" not in env


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["a folder", "a pipe"])
def test_what_is_no_file_is_told_unless_there_is_a_token(secrets: Path, make: Callable[[Path], None]) -> None:
    make(secrets / "HF_TOKEN")
    assert take_hub_token({}, secrets) == [f"{secrets}/HF_TOKEN cannot be read: HF_TOKEN is not set"]
    assert take_hub_token({"HF_TOKEN": TOKEN}, secrets) == []


@pytest.mark.parametrize("reference", ["{{ RUNPOD_SECRET_hf_token }}", "{{RUNPOD_SECRET_hf_token}}"])
def test_a_reference_that_was_not_filled_in_is_dropped(tmp_path: Path, secrets: Path, reference: str) -> None:
    env = {"HF_TOKEN": reference}
    told = take_hub_token(env, secrets)
    assert env == {}
    assert told == ["HF_TOKEN is a reference to a RunPod secret that was not filled in: it is not used"]
    env = {"HF_TOKEN": reference, "HF_TOKEN_FILE": file_with(tmp_path, TOKEN.encode())}
    assert take_hub_token(env, secrets) == told and env["HF_TOKEN"] == TOKEN


@pytest.mark.parametrize("name", ["missing", ""], ids=["a missing file", "a folder"])
def test_a_file_that_cannot_be_read_is_refused_with_its_name(tmp_path: Path, secrets: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read") as refused:
        take_hub_token({"HF_TOKEN_FILE": str(tmp_path / name)}, secrets)
    assert len(refused.value.faults) == 1 and "from HF_TOKEN_FILE" in refused.value.message
    assert "mount the file" in str(refused.value.hint)


def test_what_the_entrypoint_has_read_is_not_read_again(tmp_path: Path, secrets: Path) -> None:
    file_with(secrets, TOKEN.encode(), "HF_TOKEN")
    env = {"LTX_SECRETS_READ": "1"}
    assert take_hub_token(env, secrets) == [] and "HF_TOKEN" not in env
    (secrets / "HF_TOKEN").unlink()
    (secrets / "HF_TOKEN").mkdir()
    assert take_hub_token(env, secrets) == [], "it has been told"
    env |= {"HF_TOKEN_FILE": file_with(tmp_path, OTHER.encode())}
    assert take_hub_token(env, secrets) == [] and env["HF_TOKEN"] == OTHER, "named afterwards, in a shell"


def told_to_an_ordinary_user(env: dict[str, str], secrets: Path) -> str:
    """What ``take_hub_token`` tells in a process without root's rights."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            os.write(write, "\n".join(take_hub_token(env, secrets)).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as stream:
        return stream.read()


def test_a_mounted_secret_of_somebody_else_is_told() -> None:
    with tempfile.TemporaryDirectory() as name:  # the test's own folder may be closed to others
        Path(name).chmod(0o755)
        Path(file_with(Path(name), TOKEN.encode(), "HF_TOKEN")).chmod(0)
        assert told_to_an_ordinary_user({}, Path(name)) == f"{name}/HF_TOKEN cannot be read: HF_TOKEN is not set"
        assert told_to_an_ordinary_user({"HF_TOKEN": OTHER}, Path(name)) == ""


@pytest.mark.parametrize("token", [TOKEN, "a-secret-of-no-known-form", "half/of-a-secret", f"/{TOKEN}"])
def test_the_token_itself_in_place_of_a_file_is_not_shown(secrets: Path, token: str) -> None:
    with pytest.raises(ConfigError) as refused:
        take_hub_token({"HF_TOKEN_FILE": token}, secrets)
    assert token not in f"{refused.value.message} {refused.value.hint}"
    assert "a token itself goes into HF_TOKEN" in str(refused.value.hint)


@pytest.mark.parametrize(
    "content",
    [f"HF_TOKEN={TOKEN}\nWANDB_API_KEY=x\n", f'"{TOKEN}"', f"{TOKEN}\0", f"{TOKEN}é", TOKEN * 400],
    ids=["an environment file", "quotes", "a zero byte", "a letter that is none", "far too much"],
)
def test_a_file_of_something_else_is_refused_and_not_shown(tmp_path: Path, secrets: Path, content: str) -> None:
    env = {"HF_TOKEN_FILE": file_with(tmp_path, content.encode())}
    with pytest.raises(ConfigError, match="something else than a token") as refused:
        take_hub_token(env, secrets)
    assert "HF_TOKEN" not in env and TOKEN not in refused.value.message


# ---------------------------------------------------------------- the program


class Hub(ThreadingHTTPServer):
    """Knows no model, and remembers what was shown to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.shown: list[str | None] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Hub)
        self.server.shown.append(self.headers.get("Authorization"))
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def ltxtrain(tmp_path: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ltxtrain", *words, "--cache", str(tmp_path / "cache")]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    return subprocess.run(
        [*command, "--output", str(tmp_path / "out")], capture_output=True, text=True, env=kept | env, check=False
    )


@pytest.mark.slow
def test_the_program_shows_the_token_of_a_file_to_the_hub_and_to_nobody_else(tmp_path: Path, hub: Hub) -> None:
    asked = ["cache", "--preset", "smoke", "--made-clips", "1", "--pretrained-model-name-or-path", "somebody/private"]
    named = file_with(tmp_path, f"{TOKEN}\n".encode())
    done = ltxtrain(tmp_path, *asked, HF_TOKEN_FILE=named, HF_ENDPOINT=hub.address, HF_HOME=str(tmp_path / "hub"))
    assert done.returncode == 5, done.stderr
    assert "error: somebody/private is neither a folder nor a repository" in done.stderr
    assert set(hub.shown) - {None} == {f"Bearer {TOKEN}"}  # what needs no token is asked without one
    assert TOKEN not in done.stdout + done.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file() and str(path) != named]
    assert written and not any(TOKEN.encode() in path.read_bytes() for path in written)


@pytest.mark.parametrize("command", ["train", "cache"])
def test_a_missing_file_is_one_line_before_any_work(tmp_path: Path, command: str) -> None:
    done = ltxtrain(tmp_path, command, "--preset", "smoke", "--made-clips", "1", HF_TOKEN_FILE=str(tmp_path / "no"))
    assert done.returncode == 2
    assert done.stderr.count("error:") == 1 and "loading torch" not in done.stderr
    assert f"{tmp_path / 'no'}" in done.stderr and "hint: mount the file" in done.stderr
    assert not (tmp_path / "out").exists()
