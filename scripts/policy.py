"""Fail where a Dockerfile breaks what the images promise: pinned, checked, without secrets, without ssh by default.

python scripts/policy.py [FOLDER]        default: the repository; prints FILE:LINE: what is wrong

Each rule is one function from a Dockerfile to sentences. What needs an engine to be seen stands in `make image-test`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from dockerfile import Dockerfile, Instruction, Stage, read_dockerfile, read_ignored

from ltxtrain.config.secrets import holds_token, is_secret_key

NAMES = ("Dockerfile.cpu", "Dockerfile.cuda", "Dockerfile.rocm")
BEGIN = "# ---- shared from here: the same text in Dockerfile.cpu, Dockerfile.cuda and Dockerfile.rocm ----"
END = "# ---- shared until here ----"
CLOUD = "cloud"
ENTRYPOINT = ["/usr/bin/tini", "--", "/opt/ltxtrain/entrypoint/entrypoint.sh"]
USER_NUMBER = "10001"

PINNED = re.compile(r"[a-z0-9][a-z0-9._/:-]*:(?!latest@)\w[\w.-]*@sha256:[0-9a-f]{64}")
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://|git@", re.IGNORECASE)
SSH_SERVER = re.compile(r"openssh|sshd\b|dropbear|\binstall\b.*\sssh\b", re.IGNORECASE)
TOOLKIT = re.compile(r"\bnvcc\b|-devel\b|cuda-toolkit|/usr/local/cuda\b|rocm-dev\b|hipcc\b", re.IGNORECASE)
OTHER_INSTALLERS = re.compile(
    r"(?:^|[\s/])(?:easy_install|pipx|conda|mamba|npm|npx|gem|cargo|uvx)\s|\buv (?:sync|add|tool|run)\b"
)
ROOT_AGAIN = re.compile(r"\b(?:sudo|gosu|su-exec)\b|\bchmod\b.*(?:[+=]\w*s\b|\b0?[4-7][0-7]{3}\b)")
# What must never be sent to the engine, and with it perhaps into a layer.
PRIVATE = (
    *(
        ".git/config",
        ".venv/bin/python",
        "output/run/run.json",
        "cache/latents/entry.safetensors",
        "tests/media/clip.mp4",
    ),
    *(".env", "ltxtrain/.env", "presets/cloud.env", ".netrc", "entrypoint/.netrc", "entrypoint/.ssh/id_ed25519"),
    *("hf_token", "requirements/hf_token", "ltxtrain/token.txt"),
)
CODE = (".py", ".toml", ".sh", ".css", ".js", ".txt", ".typed")


def main() -> None:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
    faults = list(faults_of_folder(root))
    for fault in faults:
        print(fault)
    sys.exit(1 if faults else 0)


def faults_of_folder(root: Path) -> Iterator[str]:
    """Every fault of the three Dockerfiles of ``root`` and of its .dockerignore."""
    files = []
    for name in NAMES:
        if (root / name).is_file():
            files.append(read_dockerfile(root / name))
        else:
            yield f"{name}: is missing"
    for file in files:
        for rule in RULES:
            yield from (f"{file.path.name}:{fault}" for fault in rule(file))
    yield from shared_text(files)
    yield from build_context(root, files)


def _at(place: Stage | Instruction, sentence: str) -> str:
    return f"{place.line}: {sentence}"


def _default(file: Dockerfile) -> Stage | None:
    """What a build without --target makes."""
    return file.stages[-1] if file.stages else None


def _last(file: Dockerfile, name: str) -> Instruction | None:
    """The instruction of that name that counts in the default stage."""
    found = [one for stage in file.chain(_default(file)) for one in stage.instructions if one.name == name]
    return found[-1] if found else None


# ---------------------------------------------------------------- where things come from


def pinned_bases(file: Dockerfile) -> Iterator[str]:
    """A base is a stage above, nothing, or an argument whose default names one image by tag and digest."""
    above: set[str] = set()
    for stage in file.stages:
        argument = re.fullmatch(r"\$\{(\w+)\}|\$(\w+)", stage.base)
        if argument:
            default = file.arguments.get(argument[1] or argument[2], "")
            if not PINNED.fullmatch(default):
                yield _at(stage, f"the default of {stage.base} is {default or 'nothing'}, not NAME:TAG@sha256:DIGEST")
        elif stage.base.lower() not in above | {"scratch"}:
            yield _at(stage, f"FROM {stage.base} is neither a stage above nor an argument with a pinned default")
        above.add(stage.name)


def known_sources(file: Dockerfile) -> Iterator[str]:
    """What is copied or mounted from elsewhere comes from a stage of this file, not from an image by name."""
    for _, one in file.instructions():
        for name in one.taken_from():
            if file.stage(name) is None:
                yield _at(one, f"from={name} is no stage of this file")


def no_latest(file: Dockerfile) -> Iterator[str]:
    for number, line in enumerate(file.text.splitlines(), 1):
        if not line.lstrip().startswith("#") and re.search(r":latest\b", line):
            yield f"{number}: latest is another image tomorrow"


def no_directive(file: Dockerfile) -> Iterator[str]:
    """``# syntax=`` lets an image that nobody pinned read the file; ``# escape=`` makes another language of it."""
    for number in file.directives:
        yield f"{number}: a line that changes how the file is read"


def no_address(file: Dockerfile) -> Iterator[str]:
    for _, one in file.instructions("ADD"):
        if ADDRESS.search(one.text):
            yield _at(one, "ADD of an address: nobody checks what comes")


def no_download(file: Dockerfile) -> Iterator[str]:
    """Stricter than nothing piped to a shell: what was fetched unchecked could be run a line later as well."""
    for _, one in file.instructions("RUN"):
        if re.search(r"\b(?:curl|wget)\b", "\n".join(one.commands())):
            yield _at(one, "curl or wget: what they fetch is not checked; apt and pip check")


def no_clone(file: Dockerfile) -> Iterator[str]:
    for _, one in file.instructions("RUN"):
        for command in one.commands():
            if re.search(r"\bgit\b.*\b(?:clone|fetch|pull|submodule)\b|\bgit\+", command):
                yield _at(one, f"code from a repository of somebody else: {command}")


def hashed_packages(file: Dockerfile) -> Iterator[str]:
    """pip takes what a list with hashes names, or what lies there already; scripts/install_torch.py sees to its own."""
    for _, one in file.instructions("RUN"):
        for command in one.commands():
            if OTHER_INSTALLERS.search(f"{command} "):
                yield _at(one, f"an installer without our hashes: {command}")
            if not re.search(r"\bpip[\d.]*\b.*\s(?:install|wheel|download)\b", command):
                continue
            offline = "--no-index" in command.split() and "--no-deps" in command.split()
            if "--require-hashes" not in command.split() and not offline:
                yield _at(one, f"pip without --require-hashes: {command}")


def few_packages(file: Dockerfile) -> Iterator[str]:
    for _, one in file.instructions("RUN"):
        for command in one.commands():
            if re.search(r"\b(?:apt|apt-get|aptitude)\b.*\sinstall\b", command) and (
                "--no-install-recommends" not in command.split()
            ):
                yield _at(one, f"apt-get install without --no-install-recommends: {command}")


# ---------------------------------------------------------------- what is in it


def no_secret(file: Dockerfile) -> Iterator[str]:
    """Arguments, variables and labels are read by whoever has the image. A secret is mounted while it is needed."""
    declared = [(1, name, value) for name, value in file.arguments.items()]
    for _, one in file.instructions("ARG", "ENV", "LABEL"):
        try:
            declared += [(one.line, name, value) for name, value in one.pairs()]
        except ValueError as error:
            yield _at(one, f"{one.name} cannot be read: {error}")
    for line, name, value in declared:
        key = "revision" if re.search(r"(?:revision|commit)$", name, re.IGNORECASE) else ""
        if is_secret_key(name.replace(".", "_")) or holds_token(value, key):
            yield f"{line}: {name} looks like a secret"
    for _, one in file.instructions("RUN", "COPY", "ADD", "CMD", "ENTRYPOINT", "HEALTHCHECK"):
        if holds_token(str(one)):
            yield _at(one, f"{one.name} holds what looks like a secret")


def ssh_only_in_the_cloud(file: Dockerfile) -> Iterator[str]:
    for stage, one in file.instructions():
        if stage.name != CLOUD and SSH_SERVER.search(str(one)):
            yield _at(one, f"a server for ssh in {stage.title}: it belongs in the stage {CLOUD}")
    default = _default(file)
    if default is not None and any(stage.name == CLOUD for stage in file.made_of(default)):
        yield _at(default, f"the stage that is built by default is made of {CLOUD}")


def toolkit_only_where_asked(file: Dockerfile) -> Iterator[str]:
    """Neither the default image nor the cloud's is made of a stage with a compiler for GPUs."""
    seen = {stage.line: stage for top in (_default(file), file.stage(CLOUD)) for stage in file.made_of(top)}
    for stage in seen.values():
        base = file.arguments.get(stage.base.strip("${}"), stage.base)
        if TOOLKIT.search(base):
            yield _at(stage, f"{stage.title} is made of a toolkit's image: {base}")
        for one in stage.instructions:
            if TOOLKIT.search(str(one)):
                yield _at(one, f"a GPU toolkit in {stage.title}: it belongs in the stage of SageAttention")


def right_user(file: Dockerfile) -> Iterator[str]:
    """The image has the user that the entrypoint changes to, begins as root so that it can, and holds no way back."""
    made = False
    for stage in file.chain(_default(file)):
        for one in stage.instructions:
            commands = "\n".join(one.commands()) if one.name == "RUN" else ""
            made = made or bool(re.search(rf"\buseradd\b.*\b{USER_NUMBER}\b", commands))
            if one.name == "USER" and one.text != "0":
                yield _at(one, "USER: the entrypoint could not map PUID and PGID any more")
            if ROOT_AGAIN.search(f"{' '.join(one.flags)}\n{commands}"):
                yield _at(one, "a way to become root again")
    if not made:
        yield f"1: the user {USER_NUMBER} is not made"


# ---------------------------------------------------------------- how it starts and stops


def right_start(file: Dockerfile) -> Iterator[str]:
    """tini starts our entrypoint, without a shell between them, and each word of the command reaches it."""
    entry = _last(file, "ENTRYPOINT")
    if entry is None:
        yield "1: the default stage has no ENTRYPOINT"
    for _, one in file.instructions("ENTRYPOINT"):
        if one.words() != ENTRYPOINT:
            yield _at(one, f"ENTRYPOINT is not {ENTRYPOINT}")
    for _, one in file.instructions("CMD"):
        if one.words() is None:
            yield _at(one, "CMD in shell form: a shell would stand between tini and the program")


def right_stop(file: Dockerfile) -> Iterator[str]:
    signal = _last(file, "STOPSIGNAL")
    if signal is None or signal.text != "SIGTERM":
        yield f"{signal.line if signal else 1}: STOPSIGNAL is not SIGTERM, at which a run saves"


def right_health(file: Dockerfile) -> Iterator[str]:
    check = _last(file, "HEALTHCHECK")
    if check is None or not re.fullmatch(r'CMD \["/opt/ltxtrain/entrypoint/healthcheck\.sh"\]', check.text):
        yield f"{check.line if check else 1}: HEALTHCHECK does not start entrypoint/healthcheck.sh, in exec form"


Rule = Callable[[Dockerfile], Iterator[str]]
RULES: tuple[Rule, ...] = (
    *(pinned_bases, known_sources, no_latest, no_directive, no_address, no_download, no_clone),
    *(hashed_packages, few_packages, no_secret, ssh_only_in_the_cloud, toolkit_only_where_asked, right_user),
    *(right_start, right_stop, right_health),
)


# ---------------------------------------------------------------- all files together


def shared_text(files: list[Dockerfile]) -> Iterator[str]:
    """What stands between the marker lines is the same, letter by letter, in all files."""
    found = {}
    for file in files:
        lines = file.text.splitlines()
        marks = [line for line in lines if line in (BEGIN, END)]
        if not marks or marks != [BEGIN, END] * (len(marks) // 2):
            yield f"{file.path.name}: the lines that begin and end shared text do not alternate"
        else:
            found[file.path.name] = [part.split(END)[0] for part in file.text.split(BEGIN)[1:]]
    first = next(iter(found), "")
    for name, blocks in found.items():
        if len(blocks) != len(found[first]):
            yield f"{name}: {len(blocks)} shared parts, {first} has {len(found[first])}"
        for number, (ours, theirs) in enumerate(zip(blocks, found[first], strict=False), 1):
            if ours != theirs:
                yield f"{name}: shared part {number} is not the same as in {first}"


def build_context(root: Path, files: list[Dockerfile]) -> Iterator[str]:
    """Nothing private is sent to the engine, and all code that is copied is."""
    path = root / ".dockerignore"
    if not path.is_file():
        yield ".dockerignore: is missing"
        return
    ignored = read_ignored(path)
    for private in PRIVATE:
        if private not in ignored:
            yield f".dockerignore: {private} would be sent to the engine"
    copied = {
        word.rstrip("/")
        for file in files
        for _, one in file.instructions("COPY")
        if not one.taken_from()
        for word in one.text.split()[:-1]
    }
    for source in sorted(copied):
        here = [place for top in root.glob(source) for place in (top, *top.rglob("*")) if place.is_file()]
        wanted = [place.relative_to(root).as_posix() for place in here if place.suffix in CODE]
        if not here:
            yield f"COPY {source}: there is no such file"
        yield from (f".dockerignore: {name} would be missing in the image" for name in wanted if name in ignored)


if __name__ == "__main__":
    main()
