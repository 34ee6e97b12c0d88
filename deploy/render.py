"""Fill in a cloud's template with your image, and print what is ready to be sent.

    python3 deploy/render.py runpod      --image NAME:TAG@sha256:... [--kind amd] [-- FLAGS OF TRAIN]
    python3 deploy/render.py runpod-pod  --template ID [--kind amd] [--interruptible] [--network-volume ID]
    python3 deploy/render.py vast        --image NAME:TAG@sha256:... [--mode args] [--command] [-- FLAGS OF TRAIN]

JSON goes to stdout, for deploy/create.py or for reading while you fill in a form; --command prints the line for the
tool vastai instead. Warnings go to stderr. Exit code 2: refused. Needs nothing but Python 3.9; where ltxtrain can be
run here, it checks the flags of train.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

from image_name import WHAT_A_DIGEST_IS, check_kind, read_image
from refusal import PLACEHOLDER, Parser, Refused, check_given, tell_refusal, warn
from training_words import train_command

HERE = Path(__file__).resolve().parent
# What Vast's own tool asks for unless it is told not to; the JSON has to say it.
VAST_DEFAULTS = ("verified", "external", "rentable")
# The tool counts these in GB, the JSON in MB.
VAST_IN_GB = ("gpu_ram", "cpu_ram")
OPERATORS = {"eq": "=", "neq": "!=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
# The model is about 24 GB; clips, cache, checkpoints and results need the rest.
LEAST_GB = 40
TEMPLATE_ID = re.compile(r"[A-Za-z0-9_-]+")
IMAGE = "REGISTRY/NAME:0.1.0-cuda-cloud@sha256:DIGEST"
EXAMPLES = {
    "runpod": f"render.py runpod --image {IMAGE} -- --max-train-steps 3000 > template.json",
    "runpod-pod": "render.py runpod-pod --template ID > pod.json",
    "vast": f"render.py vast --image {IMAGE} -- --max-train-steps 3000 > template.json",
}


def runpod(given: argparse.Namespace, flags: list[str]) -> dict[str, Any]:
    """The body that creates a template of RunPod."""
    template = read_json(HERE / "runpod" / f"template.{given.kind}.json")
    check_size("--volume", given.volume, LEAST_GB)
    check_size("--disk", given.disk, 5)
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
    if PLACEHOLDER.search(given.template) or not TEMPLATE_ID.fullmatch(given.template):
        raise Refused(
            f"--template {given.template} is a placeholder, or no id", "deploy/create.py tells the id of your template"
        )
    pod = read_json(HERE / "runpod" / f"pod.{given.kind}.json")
    pod["templateId"] = given.template
    pod["interruptible"] = given.interruptible
    if given.gpu:
        pod["gpuTypeIds"] = [check_gpu(name, given.kind) for name in given.gpu]
    if given.network_volume:
        warn("a pod on a network volume cannot be stopped, only terminated: it costs after training until you do that")
        pod["networkVolumeId"] = given.network_volume
    return pod


def check_gpu(name: str, kind: str) -> str:
    """The name as RunPod has it. Refuses every other."""
    known = read_json(HERE / "runpod" / "schema.json")["$defs"]["RunpodPod"]["properties"]["gpuTypeIds"]["items"][
        "enum"
    ]
    if name not in known:
        near = [other for other in known if name.lower() in other.lower()]
        near = near or difflib.get_close_matches(name, known, 3, 0.6)
        listed = ", ".join(other for other in known if other.startswith("AMD") == (kind == "amd"))
        hint = f"did you mean {' or '.join(near[:3])}?" if near else f"those that can train here: {listed}"
        raise Refused(f"--gpu {name} is not in RunPod's list of GPUs that can train here", hint)
    if name.startswith("AMD") != (kind == "amd"):
        raise Refused(f"--gpu {name} is not of --kind {kind}", f"--kind {'nvidia' if kind == 'amd' else 'amd'}")
    return name


def check_size(flag: str, size: int | None, least: int) -> None:
    if size is not None and size < least:
        why = "the model alone is about 24" if least == LEAST_GB else "the container's own files need it"
        raise Refused(f"{flag} {size} is too small", f"at least {least} GB: {why}")


def vast(given: argparse.Namespace, flags: list[str]) -> dict[str, Any]:
    """The body that creates a template of Vast."""
    template = read_json(HERE / "vast" / f"template.{given.mode}.json")
    check_size("--disk", given.disk, LEAST_GB)
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


def parser() -> Parser:
    examples = "\n".join(f"  python3 deploy/{line}" for line in EXAMPLES.values())
    layout = argparse.RawDescriptionHelpFormatter
    whole = Parser(
        prog="render.py", description="Fill in a cloud's template with your image, and print it.", allow_abbrev=False,
        formatter_class=layout,
        epilog=f"examples:\n{examples}\n\n{WHAT_A_DIGEST_IS}.\nrender.py WHAT --help tells more.",
    )  # fmt: skip
    kinds = whole.add_subparsers(dest="what", required=True, metavar="WHAT")

    image = Parser(add_help=False)
    image.add_argument("--image", required=True, metavar="NAME:TAG@DIGEST", help=f"your image; {WHAT_A_DIGEST_IS}")
    image.add_argument("--tag-only", action="store_true", help="go without the digest")
    image.add_argument("--preset", help="instead of the template's preset")
    image.add_argument("--name", help="instead of the template's name")
    image.add_argument("--disk", type=int, metavar="GB", help="disk of the container (Vast: the only disk)")
    image.add_argument("--on-exit", choices=("stop-pod", "sleep", "exit"), default="stop-pod", help="LTX_ON_EXIT")

    hardware = Parser(add_help=False)
    hardware.add_argument("--kind", choices=("nvidia", "amd"), default="nvidia", help="maker of the GPU")

    def add(what: str, about: str, parents: list[Parser]) -> Parser:
        train = (
            "Behind -- stand flags of ltxtrain train; they are checked by ltxtrain validate, where it can be run here."
        )
        if what == "runpod-pod":
            train = "It takes no -- FLAGS of ltxtrain train: they belong to the template (render.py runpod)."
        usage = f"render.py {what} [flags below]" + ("" if what == "runpod-pod" else " [-- FLAGS of ltxtrain train]")
        return kinds.add_parser(
            what, parents=parents, help=about, description=f"Print {about}.", allow_abbrev=False, usage=usage,
            formatter_class=layout, epilog=f"{train}\n\nexample:\n  python3 deploy/{EXAMPLES[what]}",
        )  # fmt: skip

    one = add("runpod", "a template of RunPod", [image, hardware])
    one.add_argument("--volume", type=int, metavar="GB", help=f"size of /workspace, at least {LEAST_GB}")
    one.add_argument("--hf-secret", metavar="NAME", help="set HF_TOKEN from your RunPod secret of this name")
    one.add_argument("--registry-auth", metavar="ID", help="RunPod's id of the login for a private image")

    two = add("runpod-pod", "a pod of RunPod", [hardware])
    two.add_argument("--template", required=True, metavar="ID", help="the id of your template")
    two.add_argument("--gpu", action="append", metavar="NAME", help="accept this GPU; say it again for more")
    two.add_argument("--interruptible", action="store_true", help="cheaper, and may be stopped at any time")
    two.add_argument("--network-volume", metavar="ID", help="mount this network volume at /workspace")

    three = add("vast", "a template of Vast", [image])
    three.add_argument("--mode", choices=("ssh", "args"), default="ssh", help="Vast's ssh, or the image's entrypoint")
    three.add_argument("--command", action="store_true", help="print the line for the tool vastai instead of JSON")
    return whole


def read_words(words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our own flags, and those of train behind ``--``."""
    cut = words.index("--") if "--" in words else len(words)
    given, strange = parser().parse_known_args(words[:cut])
    if strange:
        hint = f"flags of ltxtrain train stand behind --, as in: {EXAMPLES[given.what]}"
        if given.what == "runpod-pod":
            hint = "flags of ltxtrain train belong to the template: render.py runpod --image ... -- FLAGS"
        raise Refused(f"{' '.join(strange)}: no flag of render.py {given.what}", hint)
    check_given(given)
    return given, words[cut + 1 :]


def main(words: list[str]) -> int:
    if not words:
        print(parser().format_help(), file=sys.stderr, end="")
        return 2
    try:
        given, flags = read_words(words)
        body = {"runpod": runpod, "runpod-pod": runpod_pod, "vast": vast}[given.what](given, flags)
        text = vast_command(body) if getattr(given, "command", False) else json.dumps(body, indent=2)
    except Refused as refusal:
        tell_refusal(refusal)
        return 2
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
