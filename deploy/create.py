"""Send a body that deploy/render.py has printed, and tell the id of what was made.

    python3 deploy/render.py runpod --image ... | python3 deploy/create.py runpod-template
    python3 deploy/render.py runpod-pod --template ID | python3 deploy/create.py runpod-pod
    python3 deploy/render.py vast --image ... | python3 deploy/create.py vast-template

The key is read from the environment, RUNPOD_API_KEY or VAST_API_KEY, and goes nowhere but to that cloud. A pod costs
from the moment it is made; a template costs nothing. Needs nothing but Python 3.9.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import urllib.error
import urllib.request
from typing import Any

from render import PLACEHOLDER, Refused

# What to make: where to send it, the variable with the key.
PLACES = {
    "runpod-template": ("https://rest.runpod.io/v1/templates", "RUNPOD_API_KEY"),
    "runpod-pod": ("https://rest.runpod.io/v1/pods", "RUNPOD_API_KEY"),
    "vast-template": ("https://console.vast.ai/api/v0/template/", "VAST_API_KEY"),
}
SECONDS = 60


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another place."""

    def redirect_request(self, *_: Any) -> None:
        return None


def read_body(text: str) -> dict[str, Any]:
    """The body from stdin. Refuses what is no JSON object and what has placeholders left."""
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Refused("what came in on stdin is no JSON object", "put deploy/render.py before it: see --help")
    for field in ("imageName", "image", "tag", "templateId", "onstart"):
        if PLACEHOLDER.search(str(body.get(field, ""))):
            raise Refused(f"{field} holds a placeholder: {body[field]}", "deploy/render.py fills it in")
    return body


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
    except (OSError, ValueError) as error:
        raise Refused(f"{url}: {error}", "look on the web page whether it was made before you try again") from None
    if not isinstance(made, dict) or made.get("success") is False:
        raise Refused(f"{url} answered: {json.dumps(made)[:500].replace(key, '(key)')}", "look at the fields it names")
    return made


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


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="create.py", description="Send what deploy/render.py has printed.")
    parser.add_argument("what", choices=sorted(PLACES))
    parser.add_argument("--url", help="send it there instead (for a proxy, and for the tests)")
    given = parser.parse_args(words)
    url, variable = PLACES[given.what]
    try:
        key = os.environ.get(variable, "").strip()
        if not key:
            raise Refused(f"{variable} is not set", "export it in this shell; it is never read from a command line")
        print(tell(given.what, send(given.url or url, key, read_body(sys.stdin.read()))))
    except Refused as refusal:
        print(f"error: {refusal}\nhint: {refusal.hint}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
