"""A Hub that cannot be reached, or refuses, is told by its reason; tokens are never shown; little is fetched."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import huggingface_hub.constants
import pytest
from huggingface_hub.utils import close_session

from ltxtrain.doctor import hub
from ltxtrain.doctor.findings import Finding
from ltxtrain.doctor.hub import check_hub
from tests.doctor.children import wrong
from tests.doctor.fake_hub import DESCRIPTION, FILE, MODEL, WHOAMI, FakeHub, Reply, certificate, described

PLANTED = (
    "hub-offline",
    "hub-address",
    "hub-dns",
    "hub-refused",
    "hub-timeout",
    "hub-tls",
    "hub-proxy",
    "hub-unreachable",
    "hub-down",
    "hub-not-a-hub",
    "hub-rate-limit",
    "token-malformed",
    "token-left-out",
    "token-unreadable",
    "token-invalid",
    "model-name",
    "model-gated",
    "model-token-rights",
    "model-missing",
    "model-revision",
    "model-empty",
    "model-refused",
    "clock-off",
)
TOKEN = "hf_" + "aBcDeFgH" * 4
GATED = f"Access to model {MODEL} is restricted. You must have access to it and be authenticated to access it."
pytestmark = pytest.mark.usefixtures("online")


def look(revision: str | None = None, cached: bool = False) -> list[Finding]:
    """What is found. Three promises always hold: no token is shown, one line is about the clock, it ends soon."""
    started = time.monotonic()
    findings = check_hub(MODEL, revision, cached)
    assert TOKEN not in repr(findings) and "s3cret" not in repr(findings)
    assert [finding.check for finding in findings].count("clock") == 1
    assert time.monotonic() - started < 15
    return findings


def by_check(findings: list[Finding], check: str) -> Finding:
    return next(finding for finding in findings if finding.check == check)


# ---------------------------------------------------------------- what is right


def test_a_mirror_that_gives_the_model_is_named_and_little_is_fetched(
    server: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    findings = look()
    assert [(finding.check, finding.state) for finding in findings] == [
        (check, "ok") for check in ("hub", "token", "model", "clock")
    ]
    assert f"{server.address} (a mirror, from HF_ENDPOINT)" in findings[0].says
    assert "alice" in findings[1].says and "commit 1234abcd1234" in findings[2].says
    assert [(method, path) for method, path, _ in server.asked] == [
        ("GET", DESCRIPTION),
        ("GET", WHOAMI),
        ("HEAD", FILE),
    ]
    assert {authorization for *_, authorization in server.asked} == {f"Bearer {TOKEN}"}
    assert server.sent < 10_000


def test_without_a_token_nobody_is_asked_whose_it_is(server: FakeHub) -> None:
    findings = look()
    assert wrong(findings) == [] and by_check(findings, "token").code == "token-not-given"
    assert {authorization for *_, authorization in server.asked} == {""}


def test_a_token_that_is_not_to_be_sent_is_not_sent(server: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    assert by_check(look(), "token").code == "token-not-sent"
    assert {authorization for *_, authorization in server.asked} == {""}


def test_a_revision_is_asked_for(server: FakeHub) -> None:
    server.replies |= {f"{DESCRIPTION}/revision/refs%2Fpr%2F1": described()}
    server.replies |= {
        f"/{MODEL}/resolve/refs%2Fpr%2F1/model_index.json": Reply(302, headers={"Location": "http://x/"})
    }
    assert wrong(look("refs/pr/1")) == []


def test_a_mirror_without_accounts_leaves_the_token_to_the_model(
    server: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    server.replies[WHOAMI] = Reply(404, b"<html>")
    server.replies[DESCRIPTION] = Reply(body={"id": MODEL})
    findings = look()
    assert wrong(findings) == [] and by_check(findings, "token").code == "token-unchecked"


@pytest.mark.parametrize("model", ["ltxtrain/tiny", "here"])
def test_a_model_on_this_disk_asks_nobody(
    server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    name = str(tmp_path) if model == "here" else model
    findings = check_hub(name, None, False)
    assert (findings[0].state, findings[0].code) == ("skipped", "hub-not-needed")
    assert server.asked == []


# ---------------------------------------------------------------- out of reach


def test_an_address_with_a_password_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://alice:s3cret@hub.invalid")
    assert wrong(findings := look()) == ["hub-address"]
    assert "s3cret" not in repr(findings)


def test_no_such_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid/?key=s3cret")
    assert wrong(findings := look()) == ["hub-dns"] and "https://hub.invalid" in findings[0].says
    assert findings[0].state == "fault"


def test_a_closed_port_and_one_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        assert wrong(look()) == ["hub-refused"]
        deaf.listen()
        monkeypatch.setattr(hub, "SECONDS", 0.3)
        assert wrong(look()) == ["hub-timeout"]


def test_a_server_that_sends_one_byte_at_a_time_does_not_hold_the_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        with connection, contextlib.suppress(ConnectionError):
            for _ in range(40):
                connection.sendall(b"x")
                time.sleep(0.05)

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        threading.Thread(target=drip, args=(listener,), daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listener.getsockname()[1]}")
        monkeypatch.setattr(hub, "SECONDS", 0.5)
        assert wrong(look()) == ["hub-timeout"]


def test_a_connection_that_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(listener: socket.socket) -> None:
        listener.accept()[0].close()

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        threading.Thread(target=cut, args=(listener,), daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listener.getsockname()[1]}")
        assert wrong(look()) == ["hub-unreachable"]


def test_no_tls_at_that_port(server: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.address.replace("http:", "https:"))
    assert wrong(look()) == ["hub-tls"]


@pytest.mark.parametrize(
    ("until", "trusted", "fix"), [("20990101", False, "SSL_CERT_FILE"), ("20210101", True, "set the clock")]
)
def test_a_certificate_that_nobody_vouches_for_or_that_is_over(
    server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: str, trusted: bool, fix: str
) -> None:
    made, key = certificate(tmp_path, until)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(made))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    monkeypatch.setenv("HF_ENDPOINT", f"https://localhost:{server.server_port}")
    findings = look()
    assert wrong(findings) == ["hub-tls"] and fix in findings[0].fix, findings[0]


def test_a_proxy_that_leads_nowhere_is_named_without_its_password(
    server: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        for name, value in (
            ("HTTP_PROXY", f"http://alice:s3cret@127.0.0.1:{port}"),
            ("http_proxy", f"http://127.0.0.1:{port}"),
            ("ALL_PROXY", f"socks5://alice:s3cret@127.0.0.1:{port}"),
        ):
            with monkeypatch.context() as only:
                only.setenv(name, value)
                close_session()
                findings = look()
                assert wrong(findings) == ["hub-proxy"]
                assert name in findings[0].says and f"127.0.0.1:{port}" in findings[0].says
                only.setenv("NO_PROXY", "127.0.0.1")
                close_session()
                if not name.startswith("ALL"):
                    assert wrong(look()) == []
                    only.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
                    assert wrong(look()) == ["hub-refused"]


def test_a_proxy_that_asks_for_a_password(server: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.address)
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    server.replies = {f"http://hub.invalid{DESCRIPTION}": Reply(407)}
    assert wrong(look()) == ["hub-proxy"]


def test_out_of_reach_is_a_warning_where_the_model_is_on_this_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        findings = look(cached=True)
        assert wrong(findings) == ["hub-refused"] and findings[0].state == "warning"


@pytest.mark.parametrize("address", ["hub.example", "ftp://hub.example", "http://[::1", "https://", "http://h:99999"])
def test_what_is_no_address(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    assert wrong(look()) == ["hub-address"]


@pytest.mark.parametrize(("cached", "state"), [(False, "fault"), (True, "skipped")])
def test_the_offline_switch(monkeypatch: pytest.MonkeyPatch, cached: bool, state: str) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    finding = look(cached=cached)[0]
    assert (finding.code, finding.state) == ("hub-offline", state) and "HF_HUB_OFFLINE" in finding.says


# ---------------------------------------------------------------- what answers is not what is wanted

PORTAL = Reply(200, b"<html>log in</html>", headers={"Content-Type": "text/html"})


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (PORTAL, "hub-not-a-hub"),
        (Reply(302, b"", headers={"Location": "/login"}), "hub-not-a-hub"),
        (Reply(404, b"<html>", headers={"Content-Type": "text/html"}), "hub-not-a-hub"),
        (Reply(200, [1, 2]), "hub-not-a-hub"),
        (Reply(503, b"<html>", headers={"Content-Type": "text/html"}), "hub-down"),
        (Reply(429, {"error": "rate"}, headers={"RateLimit": '"api";r=0;t=55'}), "hub-rate-limit"),
        (Reply(429, {"error": "rate"}, headers={"Retry-After": "55"}), "hub-rate-limit"),
        (Reply(401, {"error": "Repository not found"}, "RepoNotFound", "Repository not found"), "model-missing"),
        (Reply(404, {"error": "Not found"}), "model-missing"),
        (Reply(404, {"error": "Invalid rev id: gone"}, "RevisionNotFound", "Invalid rev id: gone"), "model-revision"),
        (Reply(403, {"error": GATED}, "GatedRepo", GATED), "model-gated"),
        (Reply(403, {"error": "Access to this resource is disabled."}), "model-refused"),
        (described(siblings=[]), "model-empty"),
    ],
)
def test_answers_in_place_of_the_models_description(server: FakeHub, reply: Reply, code: str) -> None:
    server.replies |= {DESCRIPTION: reply, "/login": PORTAL}
    findings = look()
    assert wrong(findings) == [code]
    if code == "hub-rate-limit":
        assert "again in 55 s" in findings[0].says
    cached = look(cached=True)
    assert wrong(cached) == [code] and all(finding.state != "fault" for finding in cached)


def test_an_endless_answer_is_not_read_to_its_end(server: FakeHub) -> None:
    server.replies[DESCRIPTION] = Reply(200, b" " * 30_000_000)
    assert wrong(look()) == ["hub-not-a-hub"]
    assert server.sent < 20_000_000, "what is on its way when the connection is closed is some megabytes"


@pytest.mark.parametrize("token", ["", TOKEN])
def test_a_licence_that_is_to_be_accepted_is_told_with_its_page(
    server: FakeHub, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    """The description of such a model is public: only its files tell."""
    monkeypatch.setenv("HF_TOKEN", token)
    server.replies[FILE] = Reply(403 if token else 401, b"", "GatedRepo", GATED)
    findings = look()
    finding = by_check(findings, "model")
    assert wrong(findings) == ["model-gated"] and f"https://huggingface.co/{MODEL}" in finding.fix
    assert ("as alice" if token else "set HF_TOKEN") in finding.fix
    assert ("GET", FILE, "") not in server.asked


def test_a_token_without_the_right_to_this_model(server: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    told = "Please enable access to public gated repositories in your fine-grained token settings."
    server.replies[FILE] = Reply(403, b"", "GatedRepo", told)
    findings = look()
    assert wrong(findings) == ["model-token-rights"] and told in by_check(findings, "model").says


def test_a_token_that_the_hub_does_not_know(server: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub then refuses public models as well; that is the token's fault, and told once."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    wrong_token = Reply(401, {"error": "Invalid credentials in Authorization header"})
    server.replies |= {WHOAMI: Reply(401, {"error": "Invalid username or password."}), DESCRIPTION: wrong_token}
    assert wrong(look()) == ["token-invalid"]
    server.replies[WHOAMI] = Reply(404, b"")
    assert wrong(look()) == ["token-invalid"]


@pytest.mark.parametrize("token", [f'"{TOKEN}"', f"{TOKEN} {TOKEN}", "hf_ümlaut"])
def test_a_token_with_letters_that_no_token_has_is_not_sent(
    server: FakeHub, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    findings = look()
    assert wrong(findings) == ["token-malformed"] and f"{len(token)} characters" in by_check(findings, "token").says
    assert {authorization for *_, authorization in server.asked} == {""}


def test_a_token_of_a_file_is_used_as_in_every_command(
    server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setenv("HF_TOKEN_FILE", str(tmp_path / "token"))
    assert wrong(look()) == ["token-unreadable"]
    (tmp_path / "token").write_text("\n")
    assert wrong(look()) == ["token-left-out"]
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert wrong(look()) == []
    assert {authorization for *_, authorization in server.asked} == {"", f"Bearer {TOKEN}"}


def test_a_reference_to_a_secret_that_was_not_filled_in_is_no_token(
    server: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "{{ RUNPOD_SECRET_hf }}")
    assert wrong(look()) == ["token-left-out"]
    assert {authorization for *_, authorization in server.asked} == {""}


def test_a_token_file_that_cannot_be_read(server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "folder"))
    assert wrong(look()) == ["token-unreadable"]


def test_a_text_of_the_server_that_holds_a_token_is_left_out(server: FakeHub) -> None:
    server.replies[DESCRIPTION] = Reply(403, {"error": f"no rights for {TOKEN}"})
    assert wrong(look()) == ["model-refused"]


def test_a_name_that_is_neither_folder_nor_repository() -> None:
    for name in ("./gone", "/gone/model", "just-a-name", "a/b/c"):
        assert wrong(check_hub(name, None, False)) == ["model-name"]


@pytest.mark.parametrize(("off_s", "headers"), [(-3600, {}), (-7200, {"Age": "3600"})])
def test_the_hubs_time_tells_that_this_clock_is_wrong(server: FakeHub, off_s: float, headers: dict[str, str]) -> None:
    server.off_s = off_s
    server.replies = {path: Reply(reply.status, reply.body, headers=headers) for path, reply in server.replies.items()}
    findings = look()
    assert wrong(findings) == ["clock-off"]
    assert findings[-1].says.startswith(("1 h 00 min ahead", "59 min 59 s ahead"))


def test_the_same_in_a_process_of_its_own_with_nothing_but_variables(server: FakeHub, tmp_path: Path) -> None:
    """The library reads most variables once, at import: so a run would see them."""
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    script = (
        "import sys; from ltxtrain.doctor.hub import check_hub\n"
        f"print([f.code for f in check_hub({MODEL!r}, None, False)], 'torch' in sys.modules)"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment)
    assert (done.stdout.strip(), done.stderr) == ("['ok', 'ok', 'ok', 'ok'] False", "")
    assert {authorization for *_, authorization in server.asked} == {f"Bearer {TOKEN}"}
