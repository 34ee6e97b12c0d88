"""Ask RunPod or Vast to stop this machine: ``python3 -I stop_pod.py runpod|vast ID``. Standard library alone.

The key comes from the environment (RUNPOD_API_KEY, CONTAINER_API_KEY) and goes into one header, to no other host:
redirects are not followed. Exit code 0 when the cloud has taken the request, else 1 and one line that says why.
"""

from __future__ import annotations

import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

TRIES = 3
PAUSE_SECONDS = 1
TIMEOUT_SECONDS = 20


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def request_for(cloud: str, machine: str) -> urllib.request.Request:
    """The request that stops ``machine``. LTX_RUNPOD_API and LTX_VAST_API name another server."""
    machine = urllib.parse.quote(machine, safe="")
    if cloud == "runpod":
        base = os.environ.get("LTX_RUNPOD_API") or "https://rest.runpod.io/v1"
        return authorised(f"{base}/pods/{machine}/stop", "POST", b"", "RUNPOD_API_KEY")
    base = os.environ.get("LTX_VAST_API") or "https://console.vast.ai/api/v0"
    return authorised(f"{base}/instances/{machine}/", "PUT", b'{"state": "stopped"}', "CONTAINER_API_KEY")


def authorised(url: str, method: str, body: bytes, key_name: str) -> urllib.request.Request:
    key = os.environ.get(key_name, "").strip()
    if not key:
        sys.exit(f"{key_name} is not set")
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    return urllib.request.Request(url, data=body, method=method, headers=headers)


def main() -> None:
    request = request_for(*sys.argv[1:3])
    opener = urllib.request.build_opener(NoRedirect)
    problem = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE_SECONDS)
        try:
            with opener.open(request, timeout=TIMEOUT_SECONDS):
                return
        except urllib.error.HTTPError as error:
            problem = f"{request.host} answers {error.code} {error.reason}"
            if error.code < 500 and error.code != 429:
                break  # asking again changes nothing
        except OSError as error:
            problem = f"{request.host} cannot be reached: {getattr(error, 'reason', error)}"
    sys.exit(problem)


if __name__ == "__main__":
    main()
