"""Fill in a cloud's template with your image, and print what is ready to be sent.

    python3 deploy/render.py runpod      --image NAME:TAG@sha256:... [--kind amd] [-- FLAGS OF TRAIN]
    python3 deploy/render.py runpod-pod  --template ID [--kind amd] [--interruptible] [--network-volume ID]
    python3 deploy/render.py vast        --image NAME:TAG@sha256:... [--mode args] [--command] [-- FLAGS OF TRAIN]

JSON goes to stdout, for deploy/create.py or for reading while you fill in a form; --command prints the line for the
tool vastai instead. Warnings go to stderr. Exit code 2: refused. Needs nothing but Python 3.9.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PRESETS = HERE.parent / "presets"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
NAME = re.compile(r"(?:[a-z0-9][a-z0-9.-]*(?::[0-9]+)?/)?[a-z0-9]+(?:(?:[._/]|__|-+)[a-z0-9]+)*")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
PLACEHOLDER = re.compile(r"REGISTRY|DIGEST|\bTEMPLATE\b|\bONSTART\b")
TOKEN = re.compile(r"\b(?:hf_|rpa_|sk-|ghp_)[A-Za-z0-9_-]{8,}")
# What Vast's own tool asks for unless it is told not to; the JSON has to say it.
VAST_DEFAULTS = ("verified", "external", "rentable")
# The tool counts these in GB, the JSON in MB.
VAST_IN_GB = ("gpu_ram", "cpu_ram")
OPERATORS = {"eq": "=", "neq": "!=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


class Refused(Exception):
    """What is wrong, and what to do about it."""

    def __init__(self, says: str, hint: str) -> None:
        super().__init__(says)
        self.hint = hint


@dataclass(frozen=True)
class Image:
    """The parts of NAME:TAG@DIGEST; at least one of tag and digest is there."""

    name: str
    tag: str
    digest: str

    @property
    def version(self) -> str:
        """TAG@DIGEST, or the one that there is."""
        return "@".join(part for part in (self.tag, self.digest) if part)

    def __str__(self) -> str:
        return self.name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def read_image(text: str, tag_only: bool) -> Image:
    """The image that the user named. Refuses placeholders, and what could be another image tomorrow."""
    if PLACEHOLDER.search(text):
        raise Refused(f"--image {text} is the placeholder of the template", "name the image that you have pushed")
    rest, _, digest = text.partition("@")
    name, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        name, tag = rest, ""
    if not NAME.fullmatch(name) or (tag and not TAG.fullmatch(tag)) or (digest and not DIGEST.fullmatch(digest)):
        raise Refused(f"--image {text} is no name of an image", "NAME:TAG@sha256: and 64 hexadecimal digits")
    if tag == "latest" or not (tag or digest):
        raise Refused(f"--image {text} is another image tomorrow", "name a tag of its own, and the digest")
    if tag_only and not tag:
        raise Refused(f"--image {text} has no tag", "leave --tag-only out, or name a tag")
    if not digest and not tag_only:
        hint = "docker inspect --format '{{index .RepoDigests 0}}' IMAGE tells it after a push; --tag-only goes without"
        raise Refused(f"--image {text} has no digest", hint)
    if tag_only:
        warn("no digest: whoever can push this tag decides what runs beside your token")
    if tag and "cloud" not in tag:
        warn(
            f"the tag {tag} does not say cloud: without that stage (make image-cuda STAGE=cloud) there is no ssh server"
        )
    return Image(name, tag, "" if tag_only else digest)


def train_command(template: list[str], preset: str | None, flags: list[str]) -> list[str]:
    """The template's command, with the user's preset and further flags. What stands before ``train`` stays."""
    before = template[: template.index("train")]
    preset = preset or template[template.index("--preset") + 1]
    known = sorted(path.stem for path in PRESETS.glob("*.toml"))
    if preset not in known:
        raise Refused(f"--preset {preset} does not exist", f"one of {', '.join(known)}")
    if any(TOKEN.search(flag) for flag in flags):
        raise Refused("the flags hold a token", "tokens are kept as secrets of the cloud: see the README beside")
    return [*before, "train", "--preset", preset, *flags, "--yes"]


def check_kind(image: Image, kind: str) -> None:
    """Warn where the tag speaks of the other maker's hardware."""
    other = {"nvidia": "rocm", "amd": "cuda"}[kind]
    if other in image.tag:
        warn(f"the tag {image.tag} says {other}, and the template is for {kind}")


def runpod(given: argparse.Namespace, flags: list[str]) -> dict[str, Any]:
    """The body that creates a template of RunPod."""
    template = read_json(HERE / "runpod" / f"template.{given.kind}.json")
    image = read_image(given.image, given.tag_only)
    check_kind(image, given.kind)
    template["imageName"] = str(image)
    template["dockerStartCmd"] = train_command(template["dockerStartCmd"], given.preset, flags)
    template["env"]["LTX_ON_EXIT"] = given.on_exit
    for field, value in {
        "name": given.name,
        "volumeInGb": given.volume,
        "containerDiskInGb": given.disk,
        "containerRegistryAuthId": given.registry_auth,
    }.items():
        if value:
            template[field] = value
    if given.hf_secret:
        template["env"]["HF_TOKEN"] = f"{{{{ RUNPOD_SECRET_{given.hf_secret} }}}}"
    return template


def runpod_pod(given: argparse.Namespace, flags: list[str]) -> dict[str, Any]:
    """The body that creates a pod of RunPod from a template of yours."""
    if flags:
        raise Refused("a pod takes its command from its template", "give the flags of train to: render.py runpod")
    if PLACEHOLDER.search(given.template):
        raise Refused(f"--template {given.template} is a placeholder", "deploy/create.py tells the id of your template")
    pod = read_json(HERE / "runpod" / f"pod.{given.kind}.json")
    pod["templateId"] = given.template
    pod["interruptible"] = given.interruptible
    if given.gpu:
        pod["gpuTypeIds"] = given.gpu
    if given.network_volume:
        pod["networkVolumeId"] = given.network_volume
    return pod


def vast(given: argparse.Namespace, flags: list[str]) -> dict[str, Any]:
    """The body that creates a template of Vast."""
    template = read_json(HERE / "vast" / f"template.{given.mode}.json")
    onstart = (HERE / "vast" / "onstart.sh").read_text(encoding="utf-8")
    image = read_image(given.image, given.tag_only)
    if not image.tag:
        raise Refused(f"--image {image} has no tag", "Vast keeps name and tag apart and takes no tag for latest")
    check_kind(image, "nvidia")
    ready = shlex.split(template["args_str"]) or shlex.split("train --preset bf16 --yes")
    command = shlex.join(train_command(ready, given.preset, flags))
    template["image"], template["tag"] = image.name, image.version
    template["env"] = with_variable(template["env"], "LTX_ON_EXIT", given.on_exit)
    if given.mode == "ssh":
        template["onstart"] = onstart.replace(shlex.join(ready), command, 1)
    else:
        template["args_str"] = command
    if given.name:
        template["name"] = given.name
    if given.disk:
        template["recommended_disk_space"] = given.disk
        template["extra_filters"]["disk_space"] = {"gte": given.disk}
    return template


def with_variable(options: str, name: str, value: str) -> str:
    """Docker's ``-e A=b -p 22:22`` with one variable set."""
    words = shlex.split(options)
    kept = [word if not word.startswith(f"{name}=") else f"{name}={value}" for word in words]
    return shlex.join(kept)


def search_params(filters: dict[str, dict[str, Any]]) -> str:
    """The filters of a template as the command line of Vast's tool takes them."""
    words = []
    for field, comparison in filters.items():
        if field in VAST_DEFAULTS:
            continue
        name = {"cuda_max_good": "cuda_vers"}.get(field, field)
        for operator, value in comparison.items():
            shown = value / 1000 if field in VAST_IN_GB else value
            words.append(
                f"{name}{OPERATORS[operator]}{shown:g}" if isinstance(shown, (int, float)) else f"{name}={shown}"
            )
    return " ".join(words)


def vast_command(template: dict[str, Any]) -> str:
    """The line that creates the template with Vast's tool."""
    if template["runtype"] != "ssh":
        hint = "send the JSON with deploy/create.py vast-template, or fill it in on the web page"
        raise Refused("vastai create template has no place for the arguments of mode args", hint)
    words = ["vastai", "create", "template", "--name", template["name"], "--image", template["image"]]
    words += ["--image_tag", template["tag"], "--env", template["env"], "--ssh", "--direct"]
    words += ["--search_params", search_params(template["extra_filters"])]
    words += ["--disk_space", str(template["recommended_disk_space"]), "--desc", template["desc"]]
    words += ["--readme", template["readme"], "--onstart-cmd", template["onstart"]]
    return shlex.join(words)


def read_json(path: Path) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return body


def warn(says: str) -> None:
    print(f"warning: {says}", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(prog="render.py", description="Fill in a cloud's template with your image.")
    kinds = whole.add_subparsers(dest="what", required=True, metavar="WHAT")

    image = argparse.ArgumentParser(add_help=False)
    image.add_argument("--image", required=True, metavar="NAME:TAG@DIGEST", help="the image that you have pushed")
    image.add_argument("--tag-only", action="store_true", help="go without the digest")
    image.add_argument("--preset", help="instead of the template's preset")
    image.add_argument("--name", help="instead of the template's name")
    image.add_argument("--disk", type=int, metavar="GB", help="disk of the container (Vast: the only disk)")
    image.add_argument("--on-exit", choices=("stop-pod", "sleep", "exit"), default="stop-pod", help="LTX_ON_EXIT")

    hardware = argparse.ArgumentParser(add_help=False)
    hardware.add_argument("--kind", choices=("nvidia", "amd"), default="nvidia", help="maker of the GPU")

    one = kinds.add_parser("runpod", parents=[image, hardware], help="a template of RunPod")
    one.add_argument("--volume", type=int, metavar="GB", help="size of /workspace")
    one.add_argument("--hf-secret", metavar="NAME", help="set HF_TOKEN from your RunPod secret of this name")
    one.add_argument("--registry-auth", metavar="ID", help="RunPod's id of the login for a private image")

    two = kinds.add_parser("runpod-pod", parents=[hardware], help="a pod of RunPod")
    two.add_argument("--template", required=True, metavar="ID", help="the id of your template")
    two.add_argument("--gpu", action="append", metavar="NAME", help="accept this GPU; say it again for more")
    two.add_argument("--interruptible", action="store_true", help="cheaper, and may be stopped at any time")
    two.add_argument("--network-volume", metavar="ID", help="mount this network volume at /workspace")

    three = kinds.add_parser("vast", parents=[image], help="a template of Vast")
    three.add_argument("--mode", choices=("ssh", "args"), default="ssh", help="Vast's ssh, or the image's entrypoint")
    three.add_argument("--command", action="store_true", help="print the line for the tool vastai instead of JSON")
    return whole


def main(words: list[str]) -> int:
    cut = words.index("--") if "--" in words else len(words)
    given, flags = parser().parse_args(words[:cut]), words[cut + 1 :]
    try:
        body = {"runpod": runpod, "runpod-pod": runpod_pod, "vast": vast}[given.what](given, flags)
        text = vast_command(body) if getattr(given, "command", False) else json.dumps(body, indent=2)
    except Refused as refusal:
        print(f"error: {refusal}\nhint: {refusal.hint}", file=sys.stderr)
        return 2
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
