"""The Hub or its mirror: whether it answers, knows the token, and gives this model. Tokens are never shown.

Three small requests at most (who the token belongs to, the model's description, the head of one of its files), through
huggingface_hub's own session, so that proxies, certificates and the offline switch count as they will in the download.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from urllib.parse import quote, urlsplit

from ltxtrain import __version__
from ltxtrain.config.secrets import first_line, holds_token
from ltxtrain.doctor.findings import Finding, fault, ok, skipped, warning
from ltxtrain.doctor.process import SET_CLOCK, check_clock
from ltxtrain.errors import ConfigError
from ltxtrain.facts.hub_login import ENDPOINT, TOKEN_LETTERS, is_address, take_hub_token
from ltxtrain.facts.models import BUILT_IN, REPOSITORY
from ltxtrain.units import format_duration

SECONDS = 10.0
MOST_BYTES = 300_000  # of one answer; descriptions have some ten thousand
USUAL_FILE = "model_index.json"
# Licences are accepted and tokens made at the Hub itself, whatever mirror is asked.
TOKEN_PAGE = f"{ENDPOINT}/settings/tokens"
# Codes of OpenSSL for a certificate that is not valid yet, or no longer: mostly this machine's clock.
CERTIFICATE_TIMES = (9, 10)


@dataclass(frozen=True)
class Answer:
    """What came back. ``offset_s`` is the server's clock minus this one's, None where the server told no time."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    offset_s: float | None

    @property
    def json(self) -> dict[str, object] | None:
        try:
            found = json.loads(self.body)
        except ValueError:
            return None
        return found if isinstance(found, dict) else None

    @property
    def reason(self) -> str:
        """The Hub's word for what is wrong, such as ``GatedRepo``."""
        return self.headers.get("x-error-code", "")

    @property
    def message(self) -> str:
        """The Hub's sentence, short and in one line; nothing when it looks as if it held a token."""
        told = self.headers.get("x-error-message") or str((self.json or {}).get("error", ""))
        text = " ".join(re.sub(r"[^\x20-\x7e]+", " ", told).split())
        return "" if holds_token(text) else text[:160]


def check_hub(model: str, revision: str | None, cached: bool) -> list[Finding]:
    """The Hub, the token, the model and the clock by the Hub's time. ``cached``: the model's files are on this disk."""
    if model in BUILT_IN:
        return [skipped("hub", "hub-not-needed", f"{model} is built in"), check_clock(None)]
    if os.path.exists(os.path.expanduser(model)):  # noqa: PTH110, PTH111 - Path's own raises where nobody has a home
        return [skipped("hub", "hub-not-needed", f"{model} is on this disk"), check_clock(None)]
    if not REPOSITORY.fullmatch(model):
        says = f"{model} is neither a folder here nor a repository's name (OWNER/NAME)"
        return [fault("model", "model-name", says, "check the spelling, or name the folder's path"), check_clock(None)]
    from huggingface_hub import is_offline_mode

    if is_offline_mode():
        return [_offline(model, cached), check_clock(None)]
    endpoint = (os.environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")
    if not is_address(endpoint):
        says = f"HF_ENDPOINT is {_shown(endpoint)}, which is no address"
        return [fault("hub", "hub-address", says, "HF_ENDPOINT=https://HOST, or unset it"), check_clock(None)]
    if "@" in urlsplit(endpoint).netloc:
        says = f"HF_ENDPOINT is {_shown(endpoint)} with a name or password, which the client writes into logs"
        return [fault("hub", "hub-address", says, "HF_ENDPOINT=https://HOST, without them"), check_clock(None)]
    return _Visit(endpoint, model, revision, cached).findings()


def _offline(model: str, cached: bool) -> Finding:
    name = "HF_HUB_OFFLINE" if os.environ.get("HF_HUB_OFFLINE") else "TRANSFORMERS_OFFLINE"
    if cached:
        return skipped("hub", "hub-offline", f"{name} is set, and {model} is on this disk")
    says = f"{name} is set, and {model} is not on this disk"
    return fault("hub", "hub-offline", says, f"unset {name}, or fetch the model first where there is a network")


class _Visit:
    """One look at the Hub: what is told later depends on what was answered before."""

    def __init__(self, endpoint: str, model: str, revision: str | None, cached: bool) -> None:
        self.endpoint = endpoint
        self.shown = _shown(endpoint)
        self.model = model
        self.revision = revision
        self.cached = cached
        self.account = ""
        self.offset_s: float | None = None

    def findings(self) -> list[Finding]:
        token_finding, token = self._token()
        found = [token_finding] if token_finding else []
        if token_finding and token_finding.state == "fault":
            token = None
        path = f"/api/models/{self.model}"
        if self.revision:
            path += f"/revision/{quote(self.revision, safe='')}"
        answer = self._ask("GET", path, token)
        if isinstance(answer, Finding):
            return [answer, *found, check_clock(None)]
        if token and token_finding is None:
            token_finding = self._ask_whose(token)
            found.append(token_finding)
        hub = self._hub(answer)
        found = [hub, *found]
        if hub.state == "ok" and not (token_finding and token_finding.state == "fault"):
            found.append(self._model(answer, token))
        return [*found, check_clock(None if self.offset_s is None else time.time() + self.offset_s)]

    def _token(self) -> tuple[Finding | None, str | None]:
        """A finding where there is something to tell before the token is used, and the token."""
        from huggingface_hub import get_token

        fix = f"set HF_TOKEN to one from {TOKEN_PAGE}, without quotes"
        try:
            told = take_hub_token()
            token = get_token()
        except ConfigError as error:
            return fault("token", "token-unreadable", error.message.splitlines()[0], error.hint or fix), None
        except (OSError, ValueError) as error:
            says = f"the token cannot be read ({type(error).__name__})"
            return fault("token", "token-unreadable", says, fix), None
        if token and os.environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").upper() in ("1", "ON", "YES", "TRUE"):
            return skipped("token", "token-not-sent", "HF_HUB_DISABLE_IMPLICIT_TOKEN keeps it from being sent"), None
        if not token and told:
            return warning("token", "token-left-out", told[0], fix), None
        if not token:
            return skipped("token", "token-not-given", "none is given; public models need none"), None
        if not TOKEN_LETTERS.fullmatch(token):
            says = f"it has {len(token)} characters, and some (quotes, spaces, braces) are in no token"
            return fault("token", "token-malformed", says, fix), None
        return None, token

    def _ask_whose(self, token: str) -> Finding:
        answer = self._ask("GET", "/api/whoami-v2", token)
        fix = f"make a new one at {TOKEN_PAGE} and set HF_TOKEN to it"
        if isinstance(answer, Finding):
            return skipped("token", "token-unchecked", f"nobody tells whose it is: {answer.says}")
        name = (answer.json or {}).get("name")
        if answer.status == HTTPStatus.OK and isinstance(name, str):
            self.account = re.sub(r"[^\w.-]", "", name)[:60]
            return ok("token", f"accepted, of the account {self.account}")
        if answer.status == HTTPStatus.UNAUTHORIZED:
            says = f"{self.shown} does not know it: it is mistyped, expired or was withdrawn"
            return fault("token", "token-invalid", says, fix)
        return skipped("token", "token-unchecked", f"{self.shown} does not tell whose it is ({answer.status})")

    def _hub(self, answer: Answer) -> Finding:
        """Whether it was a hub that answered."""
        if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            wait = _wait_s(answer)
            says = f"{self.shown} answers that there were too many requests from here"
            says += f"; again in {format_duration(wait)}" if wait else ""
            return warning("hub", "hub-rate-limit", says, "wait, or set HF_TOKEN, with which more are allowed")
        if answer.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            return self._proxy("asks for a name and a password")
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            says = f"{self.shown} has a fault of its own ({answer.status})"
            return self._unreachable("hub-down", says, "try again later, or set HF_ENDPOINT to a mirror")
        described = (answer.json or {}).keys() & {"id", "modelId", "error"}
        if not described and not answer.reason:
            kind = answer.headers.get("content-type", "no type").split(";")[0]
            says = f"{self.shown} answers, but not as a hub ({answer.status}, {kind})"
            fix = "check HF_ENDPOINT, and whether this network asks for a login in a browser first"
            return self._unreachable("hub-not-a-hub", says, fix)
        return ok("hub", f"{self._name()} answers{_proxies_text(self.endpoint)}")

    def _model(self, answer: Answer, token: str | None) -> Finding:
        if answer.status >= HTTPStatus.BAD_REQUEST:
            return self._refused(answer)
        described = answer.json or {}
        listed = described.get("siblings")
        entries = listed if isinstance(listed, list) else [{"rfilename": USUAL_FILE}]
        files = [str(entry.get("rfilename")) for entry in entries if isinstance(entry, dict)]
        if not files:
            return self._out_of_reach("model-empty", f"{self.model} holds no files", "check the model's name")
        file = USUAL_FILE if USUAL_FILE in files else files[0]
        revision = quote(self.revision or "main", safe="")
        head = self._ask("HEAD", f"/{self.model}/resolve/{revision}/{quote(file)}", token)
        if isinstance(head, Finding):
            return Finding("model", head.state, head.code, head.says, head.fix)
        if head.status >= HTTPStatus.BAD_REQUEST:
            return self._refused(head)
        commit = str(described.get("sha") or "")[:12]
        return ok("model", f"{self.model} can be fetched ({len(files)} files{f', commit {commit}' if commit else ''})")

    def _refused(self, answer: Answer) -> Finding:
        told = f": {answer.message}" if answer.message else ""
        page = f"{ENDPOINT}/{self.model}"
        if "fine-grained" in answer.message.lower():
            says = f"the token has not the right to read {self.model}{told}"
            return self._out_of_reach("model-token-rights", says, f"give it that right at {TOKEN_PAGE}")
        if answer.reason == "GatedRepo":
            who = f"as {self.account}" if self.account else "and set HF_TOKEN to your token"
            says = f"the licence of {self.model} is to be accepted first{told}"
            return self._out_of_reach("model-gated", says, f"accept it at {page}, {who}")
        if answer.reason == "RevisionNotFound":
            says = f"{self.model} has no revision {self.revision}"
            return self._out_of_reach("model-revision", says, "leave revision out, or name a commit or branch it has")
        if "invalid credentials" in answer.message.lower():
            return fault("token", "token-invalid", f"{self.shown} does not know it", f"make a new one at {TOKEN_PAGE}")
        if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            says = f"{self.model} was not looked at: too many requests from here"
            return warning("model", "hub-rate-limit", says, "wait, or set HF_TOKEN, with which more are allowed")
        if answer.reason == "RepoNotFound" or answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND):
            may = f"{self.account} may not see it" if self.account else "it is private"
            fix = "check the spelling" + ("" if self.account else ", and set HF_TOKEN if it is a private model")
            return self._out_of_reach("model-missing", f"{self.shown} has no {self.model}, or {may}", fix)
        return self._out_of_reach("model-refused", f"{self.model}: answer {answer.status}{told}", f"look at {page}")

    def _out_of_reach(self, code: str, says: str, fix: str) -> Finding:
        """A fault, or a warning where the files are on this disk already."""
        if self.cached:
            return warning("model", code, f"{says}; the files on this disk are used", fix)
        return fault("model", code, says, fix)

    def _unreachable(self, code: str, says: str, fix: str) -> Finding:
        if self.cached:
            return warning("hub", code, f"{says}; {self.model} is on this disk", fix)
        return fault("hub", code, says, fix)

    def _proxy(self, what: str) -> Finding:
        says = f"the proxy{_proxies_text(self.endpoint)} {what}"
        return self._unreachable("hub-proxy", says, "correct that variable, or unset it if there is no proxy")

    def _name(self) -> str:
        return self.shown if self.endpoint == ENDPOINT else f"{self.shown} (a mirror, from HF_ENDPOINT)"

    def _ask(self, method: str, path: str, token: str | None) -> Answer | Finding:
        """The answer, or what kept it away. Its own time limit: looking up a name has none in the library."""
        result: list[Answer | Exception] = []

        def work() -> None:
            try:
                result.append(_request(method, self.endpoint + path, token))
            except _request_errors() as error:  # _failed tells them apart
                result.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(SECONDS)
        found = result[0] if result else TimeoutError()
        if isinstance(found, Exception):
            return self._failed(found)
        if found.offset_s is not None:
            self.offset_s = found.offset_s
        return found

    def _failed(self, error: Exception) -> Finding:
        chain = _chain(error)
        certificate = next((link for link in chain if isinstance(link, ssl.SSLError)), None)
        if certificate is not None:
            return self._tls(certificate)
        if isinstance(error, ImportError) or type(error).__name__ == "ProxyError":
            return self._proxy(f"cannot be used: {first_line(error)}")
        code, words = _kind(chain)
        if _proxies_text(self.endpoint):
            return self._proxy(f"does not lead there: {words}")
        fix = "check the network, or set HF_ENDPOINT to a mirror"
        return self._unreachable(code, f"{self._name()}: {words}", fix)

    def _tls(self, error: ssl.SSLError) -> Finding:
        reason = getattr(error, "verify_message", "") or error.reason or "no secure connection"
        says = f"{self._name()} is not trusted: {str(reason).lower().replace('_', ' ')}"
        if getattr(error, "verify_code", 0) in CERTIFICATE_TIMES:
            return self._unreachable("hub-tls", f"{says} (by this machine's clock)", SET_CLOCK)
        fix = "check HF_ENDPOINT; if your network reads along, name its certificate in SSL_CERT_FILE"
        return self._unreachable("hub-tls", says, fix)


def _kind(chain: list[BaseException]) -> tuple[str, str]:
    """Code and words for what the operating system said about a connection."""
    for link in chain:
        if isinstance(link, socket.gaierror):
            return "hub-dns", f"its name is not found ({link.strerror})"
        if isinstance(link, ConnectionRefusedError):
            return "hub-refused", "nobody answers at that port"
        if isinstance(link, TimeoutError):
            return "hub-timeout", f"no answer within {SECONDS:g} s"
    return "hub-unreachable", f"it is out of reach ({first_line(chain[-1])})"


def _request(method: str, url: str, token: str | None) -> Answer:
    from huggingface_hub.utils import build_hf_headers, get_session

    headers = build_hf_headers(token=token or False, library_name="ltxtrain", library_version=__version__)
    follow = method == "GET"  # the head of a large file leads to another server, and that it does is the answer
    request = get_session().stream(method, url, headers=headers, timeout=SECONDS, follow_redirects=follow)
    with request as response:
        body = b""
        for part in response.iter_bytes():
            body += part
            if len(body) > MOST_BYTES:
                break
        names = {key.lower(): value for key, value in response.headers.items()}
        return Answer(response.status_code, names, body, _offset(names))


def _request_errors() -> tuple[type[Exception], ...]:
    """What a request may end with: the system's errors, a wrong address, a missing package for a proxy, and the HTTP
    client's own two trees. Which client it is depends on the release of huggingface_hub.
    """
    from huggingface_hub.errors import HfHubHTTPError

    names = {base.__module__.partition(".")[0] for base in HfHubHTTPError.__bases__} - {"builtins"}
    own = [getattr(importlib.import_module(name), tree) for name in names for tree in ("HTTPError", "InvalidURL")]
    return (*own, OSError, ValueError, ImportError)


def _offset(headers: Mapping[str, str]) -> float | None:
    """The server's time minus ours. An answer from a cache tells the time when it was stored, and its age."""
    try:
        age = headers.get("age", "0")
        sent = parsedate_to_datetime(headers["date"]).timestamp() + (int(age) if age.isdigit() else 0)
    except (KeyError, ValueError, TypeError):
        return None
    return sent - time.time()


def _wait_s(answer: Answer) -> int:
    """Seconds until more requests are allowed, by either of the headers that tell it; 0 where none does."""
    after = answer.headers.get("retry-after", "")
    found = re.search(r"\bt\s*=\s*(\d+)", answer.headers.get("ratelimit", ""))
    return int(after) if after.isdigit() else int(found.group(1)) if found else 0


def _chain(error: BaseException) -> list[BaseException]:
    links: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in links:
        links.append(link)
        link = link.__cause__ or link.__context__
    return links


def _shown(address: str) -> str:
    """An address without the name and password that it may hold, and without a query."""
    scheme, mark, rest = address.rpartition("://")
    host, slash, path = rest.partition("?")[0].partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"[:100]


def _proxies_text(endpoint: str) -> str:
    """`` (through HTTPS_PROXY=http://host:3128)`` where the environment names a proxy for ``endpoint``."""
    parts = urlsplit(endpoint)
    if urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2]):
        return ""
    for variable in (f"{parts.scheme}_proxy", "all_proxy"):
        for name in (variable, variable.upper()):
            if os.environ.get(name):
                return f" (through {name}={_shown(os.environ[name])})"
    return ""
