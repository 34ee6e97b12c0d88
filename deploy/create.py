"""Send a body that deploy/render.py has printed, and tell the id of what was made.

    python3 deploy/render.py runpod --image ... > template.json      # look at it
    python3 deploy/create.py runpod-template < template.json
    python3 deploy/render.py runpod-pod --template ID | python3 deploy/create.py runpod-pod
    python3 deploy/render.py vast --image ... | python3 deploy/create.py vast-template

The key is read from the environment, RUNPOD_API_KEY or VAST_API_KEY, and goes nowhere but to that cloud. A pod costs
from the moment it is made; a template costs nothing. Needs nothing but Python 3.9.
"""

from __future__ import annotations

import argparse
import errno
import http.client
import json
import os
import socket
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from refusal import PLACEHOLDER, Parser, Refused, check_given, tell_refusal

HERE = Path(__file__).resolve().parent
# What to make: where to send it, and the variable with the key.
PLACES = {
    "runpod-template": ("https://rest.runpod.io/v1/templates", "RUNPOD_API_KEY"),
    "runpod-pod": ("https://rest.runpod.io/v1/pods", "RUNPOD_API_KEY"),
    "vast-template": ("https://console.vast.ai/api/v0/template/", "VAST_API_KEY"),
}
# What to make: its form, and a field without which it is none of ours.
SHAPES = {
    "runpod-template": ("runpod", "RunpodTemplate", "imageName"),
    "runpod-pod": ("runpod", "RunpodPod", "templateId"),
    "vast-template": ("vast", "VastTemplate", "image"),
}
NO_WAY = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN)
SECONDS = 60
EPILOG = """runpod-template and vast-template cost nothing; runpod-pod costs from the moment it is made.
The key is read from RUNPOD_API_KEY or VAST_API_KEY:  read -rs RUNPOD_API_KEY && export RUNPOD_API_KEY

example:
  python3 deploy/render.py runpod --image REGISTRY/NAME:0.1.0-cuda-cloud@sha256:DIGEST > template.json
  python3 deploy/create.py runpod-template < template.json"""


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another place."""

    def redirect_request(self, *_: Any) -> None:
        return None


def read_body(text: str, what: str) -> dict[str, Any]:
    """The body from stdin. Refuses what is not ready to be sent, and what belongs to another place."""
    if not text.strip():
        raise Refused("nothing came in on stdin, so nothing was sent", "")
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Refused("what came in on stdin is no JSON object", "put deploy/render.py before it: see --help")
    for field in ("imageName", "image", "tag", "templateId", "onstart"):
        if PLACEHOLDER.search(str(body.get(field, ""))):
            raise Refused(f"{field} holds a placeholder: {body[field]}", "deploy/render.py fills it in")
    fault = fault_of(body, what)
    if fault:
        fits = [other for other in SHAPES if not fault_of(body, other)]
        if fits:
            raise Refused(f"stdin holds a {fits[0]}, not a {what}: nothing was sent", f"create.py {fits[0]}")
        raise Refused(f"stdin holds no {what}: {fault}; nothing was sent", "deploy/render.py prints one")
    return body


def fault_of(body: dict[str, Any], what: str) -> str:
    """Why ``body`` does not fit the fields of the cloud's form; empty when it does."""
    folder, name, ours = SHAPES[what]
    form = json.loads((HERE / folder / "schema.json").read_text(encoding="utf-8"))["$defs"][name]
    for field in (ours, *form.get("required", ())):
        if field not in body:
            return f"{field} is missing"
    for field in body:
        if field not in form["properties"]:
            return f"{field} is no field of it"
    return ""


def read_key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key:
        raise Refused(f"{variable} is not set", "export it in this shell; it is never read from a command line")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise Refused(f"{variable} holds characters that are in no key", "copy it again from the cloud's web page")
    return key


def send(url: str, key: str, body: dict[str, Any]) -> dict[str, Any]:
    """POST ``body`` and return the answer."""
    headers = {
        "Authorization": f"Bearer {key}",
        "Content-Type": "application/json",
        "Accept": "application/json",
        "User-Agent": "ltxtrain-deploy",
    }
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")
    try:
        with urllib.request.build_opener(NoRedirect).open(request, timeout=SECONDS) as answer:
            made = json.load(answer)
    except urllib.error.HTTPError as error:
        told = error.read(2000).decode("utf-8", "replace").replace(key, "(key)").strip()
        hint = "is the key right, and may it write?" if error.code in (401, 403) else "look at the fields it names"
        raise Refused(f"{url} answered {error.code}: {told or error.reason}", hint) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        why = getattr(error, "reason", error)
        if never_reached(why):
            raise Refused(f"{url}: {why}: nothing was sent", "is this computer online? then try again") from None
        raise Refused(f"{url}: {why}", "look on the web page whether it was made before you try again") from None
    if not isinstance(made, dict) or made.get("success") is False:
        raise Refused(f"{url} answered: {json.dumps(made)[:500].replace(key, '(key)')}", "look at the fields it names")
    return made


def never_reached(why: object) -> bool:
    """Whether this error comes before anything can have been sent: no name, no connection, no trust."""
    if isinstance(why, (socket.gaierror, ConnectionRefusedError, ssl.SSLCertVerificationError)):
        return True
    return isinstance(why, OSError) and why.errno in NO_WAY


def tell(what: str, made: dict[str, Any]) -> str:
    """What was made, and what to do next."""
    if what == "vast-template":
        template = made.get("template") or {}
        use = f"vastai create instance OFFER --template_hash {template.get('hash_id')} --disk 100"
        return f"template {template.get('id')}, hash {template.get('hash_id')}\nnext: {use}"
    if what == "runpod-template":
        use = f"python3 deploy/render.py runpod-pod --template {made.get('id')} | python3 deploy/create.py runpod-pod"
        return f"template {made.get('id')}\nnext: {use}"
    use = f"runpodctl pod stop {made.get('id')}"
    return f"pod {made.get('id')}, {made.get('costPerHr', '?')} credits an hour\nto stop it: {use}"


def parser() -> Parser:
    parser = Parser(
        prog="create.py", usage="create.py WHAT < BODY.json", epilog=EPILOG, allow_abbrev=False,
        description="Send the JSON that deploy/render.py has printed, from stdin, and tell the id of what was made.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("what", metavar="WHAT", choices=sorted(PLACES), help=", ".join(sorted(PLACES)))
    parser.add_argument("--url", help="send it there instead (for a proxy, and for the tests)")
    return parser


def main(words: list[str]) -> int:
    if not words:
        print(parser().format_help(), file=sys.stderr, end="")
        return 2
    try:
        given = parser().parse_args(words)
        check_given(given)
        url, variable = PLACES[given.what]
        if sys.stdin.isatty():
            raise Refused("stdin is the keyboard", f"create.py {given.what} < BODY.json, with what render.py printed")
        body = read_body(sys.stdin.read(), given.what)
        print(tell(given.what, send(given.url or url, read_key(variable), body)))
    except Refused as refusal:
        tell_refusal(refusal)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
