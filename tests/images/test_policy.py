"""The policy of the images holds for the Dockerfiles as they are, and finds each break that is planted in a copy."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))  # the scripts import each other by their bare names

from dockerfile import read_dockerfile, read_ignored  # noqa: E402
from policy import BEGIN, END, NAMES, RULES, faults_of_folder  # noqa: E402

DIGEST = "@sha256:" + "0" * 64
PRIVATE_KEY = "-----BEGIN EC " + "PRIVATE KEY-----"  # put together here: no scanner is to take it for a real one


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The Dockerfiles to break, beside everything that they copy."""
    for name in (*NAMES, ".dockerignore"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("ltxtrain", "presets", "entrypoint", "requirements", "scripts", "LICENSE", "README.md"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def plant(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_the_files_as_they_are_keep_to_it(folder: Path) -> None:
    assert list(faults_of_folder(folder)) == []


def test_the_script_tells_the_place_and_fails(folder: Path) -> None:
    command = [sys.executable, ROOT / "scripts" / "policy.py", folder]
    whole = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (whole.returncode, whole.stdout) == (0, ""), whole.stderr
    (folder / "Dockerfile.rocm").unlink()
    plant(folder / "Dockerfile.cpu", "FROM scratch AS wheels", "FROM alpine AS wheels")
    broken = subprocess.run(command, capture_output=True, text=True, check=False)
    assert broken.returncode == 1
    line = (folder / "Dockerfile.cpu").read_text().splitlines().index("FROM alpine AS wheels") + 1
    assert f"Dockerfile.cpu:{line}: FROM alpine is neither" in broken.stdout
    assert "Dockerfile.rocm: is missing" in broken.stdout


# ---------------------------------------------------------------- breaks, each in the stage that every image is made of

AT_BASE = "FROM ${BASE_IMAGE} AS base\n"
AFTER_BASE = {
    "ADD of an address": ("ADD https://example.com/tool /usr/bin/tool", "ADD of an address"),
    "ADD of a repository": ("ADD git@example.com:a/b.git /src", "ADD of an address"),
    "curl piped to a shell": ("RUN curl -fsSL https://example.com/x | sh", "curl or wget"),
    "wget piped to bash, on two lines": ("RUN wget -qO- https://example.com/x \\\n  | bash -s", "curl or wget"),
    "curl in a substitution": ('RUN bash -c "$(curl -s https://example.com/x)"', "curl or wget"),
    "curl in a here-document": ("RUN <<SH\ncurl -o /x https://example.com/x\nsh /x\nSH", "curl or wget"),
    "curl in exec form": ('RUN ["curl", "-o", "/x", "https://example.com/x"]', "curl or wget"),
    "git clone": ("RUN git clone https://example.com/a/b.git", "somebody else"),
    "git clone with options": ("RUN cd /src && git -c http.x=y clone --depth 1 b", "somebody else"),
    "pip from a repository": ("RUN pip install --require-hashes git+https://example.com/a/b", "somebody else"),
    "pip without hashes": ("RUN pip install torch", "without --require-hashes"),
    "pip with an upgrade": ("RUN python3 -m pip install -q --upgrade pip", "without --require-hashes"),
    "pip after another command": ("RUN true && pip3 install -r /src/lock.txt", "without --require-hashes"),
    "pip in a here-document": ("RUN <<-'EOT'\n\tpip install \\\n\t  numpy\n\tEOT", "without --require-hashes"),
    "uv without hashes": ("RUN uv pip install numpy", "without --require-hashes"),
    "pip offline, with what is needed": ("RUN pip install --no-index /wheels/a.whl", "without --require-hashes"),
    "npm": ("RUN npm install -g x", "without our hashes"),
    "conda": ("RUN conda create -n x", "without our hashes"),
    "uv sync": ("RUN uv sync", "without our hashes"),
    "apt-get with recommends": ("RUN apt-get update && apt-get install -y tini", "--no-install-recommends"),
    "apt on two lines": ("RUN apt install \\\n    -y tini", "--no-install-recommends"),
    "ssh server": ("RUN apt-get install --no-install-recommends openssh-server", "a server for ssh in base"),
    "ssh, client and server": ("RUN apt-get install --no-install-recommends -y ssh", "a server for ssh in base"),
    "sshd started": ("RUN /usr/sbin/sshd", "a server for ssh in base"),
    "small ssh server": ("RUN apt-get install --no-install-recommends dropbear", "a server for ssh in base"),
    "nvcc": ("RUN nvcc --version", "a GPU toolkit in base"),
    "toolkit": ("RUN apt-get install --no-install-recommends cuda-toolkit-12-9", "a GPU toolkit in base"),
    "headers of CUDA": ("ENV LIBRARY_PATH=/usr/local/cuda/lib64/stubs", "a GPU toolkit in base"),
    "token as an argument": ("ARG HF_TOKEN", "HF_TOKEN looks like a secret"),
    "token as a variable": ("ENV LANG=C WANDB_API_KEY=", "WANDB_API_KEY looks like a secret"),
    "password the old way": ("ENV ROOT_PASSWORD let me in", "ROOT_PASSWORD looks like a secret"),
    "token in a value": ("ENV GREETING=hf_" + "abcdefgh12345678", "GREETING looks like a secret"),
    "token in a label": ("LABEL ltxtrain.access.token=x", "ltxtrain.access.token looks like a secret"),
    "password in an address": ("ARG INDEX=https://me:" + "word@example.com/simple", "INDEX looks like a secret"),
    "key in a script": (f"RUN <<SH\necho '{PRIVATE_KEY}' >/key\nSH", "RUN holds what looks like a secret"),
    "quotes that do not end": ('ENV A="b', "cannot be read"),
    "latest": ("ENV TOOL=busybox:latest", "latest is another image"),
    "an image copied from": (f"COPY --from=busybox:1.36{DIGEST} /bin/busybox /bin/", "is no stage of this file"),
    "an image mounted": ("RUN --mount=type=bind,from=busybox,target=/b true", "from=busybox is no stage"),
    "another user": ("USER ltx", "USER: the entrypoint could not map"),
    "another user by number": ("USER 10001", "USER: the entrypoint could not map"),
    "sudo": ("RUN apt-get install --no-install-recommends sudo", "a way to become root"),
    "set-user bit": ("RUN chmod u+s /usr/bin/tini", "a way to become root"),
    "set-user bit by number": ("RUN chmod 4755 /usr/bin/tini", "a way to become root"),
    "shell between tini and us": ("ENTRYPOINT /opt/ltxtrain/entrypoint/entrypoint.sh", "ENTRYPOINT is not"),
    "no tini": ('ENTRYPOINT ["/opt/ltxtrain/entrypoint/entrypoint.sh"]', "ENTRYPOINT is not"),
    "shell form of CMD": ("CMD train --preset smoke", "CMD in shell form"),
}


@pytest.mark.parametrize("broken", AFTER_BASE)
def test_a_line_that_breaks_it_is_found_with_its_place(folder: Path, broken: str) -> None:
    line, expected = AFTER_BASE[broken]
    path = folder / "Dockerfile.cuda"
    plant(path, AT_BASE, f"{AT_BASE}{line}\n")
    number = path.read_text().splitlines().index(line.splitlines()[0]) + 1
    faults = list(faults_of_folder(folder))
    found = [fault for fault in faults if expected in fault]
    assert found and found[0].startswith(f"Dockerfile.cuda:{number}: "), faults
    # ... and nothing else is: only that the text, which is shared, differs now
    assert {fault for fault in faults if fault not in found} == {
        "Dockerfile.cuda: shared part 1 is not the same as in Dockerfile.cpu"
    }, faults


# ---------------------------------------------------------------- other breaks

REPLACED = {
    "a base without a digest": ("ARG BASE_IMAGE=", "ARG BASE_IMAGE=debian:12\nARG OLD=", "debian:12, not NAME:TAG@"),
    "a base without a tag": ("ARG BASE_IMAGE=", f"ARG BASE_IMAGE=debian{DIGEST}\nARG OLD=", "not NAME:TAG@"),
    "a short digest": ("ARG BASE_IMAGE=", "ARG BASE_IMAGE=debian:12@sha256:0f\nARG OLD=", "not NAME:TAG@"),
    "latest with a digest": ("ARG BASE_IMAGE=", f"ARG BASE_IMAGE=debian:latest{DIGEST}\nARG OLD=", "not NAME:TAG@"),
    "a base without a default": ("ARG BASE_IMAGE=", "ARG BASE_IMAGE\nARG OLD=", "is nothing, not"),
    "a base that nobody declared": ("FROM ${BASE_IMAGE} AS base", "FROM ${OTHER} AS base", "is nothing, not"),
    "a base by name": ("FROM ${BASE_IMAGE} AS base", f"FROM debian:12{DIGEST} AS base", "neither a stage above"),
    "half an argument": ("FROM ${BASE_IMAGE} AS base", "FROM ${BASE_IMAGE}-x AS base", "neither a stage above"),
    "a stage from below": ("FROM base AS python", "FROM plain AS python", "FROM plain is neither a stage above"),
    "a syntax line": ("# ltxtrain", "# syntax=docker/dockerfile:1\n# ltxtrain", "1: a line that changes how"),
    "an escape line": ("# ltxtrain", "#escape=`\n# ltxtrain", "1: a line that changes how"),
    "ssh by default": ("FROM plain\n", "FROM cloud\n", "is made of cloud"),
    "ssh by a copy": ("FROM plain\n", "FROM plain\nCOPY --from=cloud /usr/sbin /usr/sbin\n", "is made of cloud"),
    "the toolkit copied": (
        "FROM plain\n",
        "FROM plain\nCOPY --link --from=sage-wheel /opt/sage /opt/sage\n",
        "sage-wheel: it belongs in the stage of",
    ),
    "the toolkit as the base": ("FROM ${BASE_IMAGE} AS base", "FROM ${TOOLKIT_IMAGE} AS base", "a toolkit's image"),
    "no entrypoint": ("ENTRYPOINT [", "CMD [", "has no ENTRYPOINT"),
    "tini for the whole group": ('"/usr/bin/tini", "--"', '"/usr/bin/tini", "-g", "--"', "ENTRYPOINT is not"),
    "no signal": ("STOPSIGNAL SIGTERM\n", "", "STOPSIGNAL is not SIGTERM"),
    "another signal": ("STOPSIGNAL SIGTERM", "STOPSIGNAL SIGKILL", "STOPSIGNAL is not SIGTERM"),
    "no health check": ("HEALTHCHECK --interval", "#", "HEALTHCHECK does not start"),
    "a health check turned off": ("FROM plain\n", "FROM plain\nHEALTHCHECK NONE\n", "HEALTHCHECK does not start"),
    "a health check in a shell": (
        'CMD ["/opt/ltxtrain/entrypoint/healthcheck.sh"]',
        "CMD /opt/ltxtrain/entrypoint/healthcheck.sh",
        "HEALTHCHECK does not start",
    ),
    "no user": ("useradd --no-log-init --uid 10001", "useradd --uid 1000", "the user 10001 is not made"),
    "a shared part that does not end": (f"{END}\n", "", "do not alternate"),
    "a shared part less": (f"{BEGIN}\n", "", "do not alternate"),
    "a comment that differs": ("# A device's files", "# The device's files", "shared part 1 is not the same"),
}


@pytest.mark.parametrize("broken", REPLACED)
def test_a_break_in_place_of_something_good_is_found(folder: Path, broken: str) -> None:
    old, new, expected = REPLACED[broken]
    plant(folder / "Dockerfile.cuda", old, new)
    faults = list(faults_of_folder(folder))
    assert any(fault.startswith("Dockerfile.cuda:") and expected in fault for fault in faults), faults


def test_every_rule_finds_one_of_the_breaks(folder: Path) -> None:
    """A rule that finds nothing is none."""
    found: set[str] = set()
    for line, _ in AFTER_BASE.values():
        shutil.copy(ROOT / "Dockerfile.cuda", folder / "Dockerfile.cuda")
        plant(folder / "Dockerfile.cuda", AT_BASE, f"{AT_BASE}{line}\n")
        file = read_dockerfile(folder / "Dockerfile.cuda")
        found |= {rule.__name__ for rule in RULES if list(rule(file))}
    for old, new, _ in REPLACED.values():
        shutil.copy(ROOT / "Dockerfile.cuda", folder / "Dockerfile.cuda")
        plant(folder / "Dockerfile.cuda", old, new)
        file = read_dockerfile(folder / "Dockerfile.cuda")
        found |= {rule.__name__ for rule in RULES if list(rule(file))}
    assert found == {rule.__name__ for rule in RULES}


def test_a_shared_part_more_is_found(folder: Path) -> None:
    path = folder / "Dockerfile.cpu"
    path.write_text(f"{path.read_text()}{BEGIN}\n# more\n{END}\n")
    assert any("shared parts, Dockerfile.cpu has" in fault for fault in faults_of_folder(folder))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("!.git", ".git/config would be sent"),
        ("!**/*.env", "presets/cloud.env would be sent"),
        ("!**/.netrc", "entrypoint/.netrc would be sent"),
        ("!**/.ssh", "entrypoint/.ssh/id_ed25519 would be sent"),
        ("!output", "output/run/run.json would be sent"),
        ("!cache/**", "cache/latents/entry.safetensors would be sent"),
        ("!tests", "tests/media/clip.mp4 would be sent"),
        ("!requirements/*", "requirements/hf_token would be sent"),
        ("ltxtrain/facts", "ltxtrain/facts/image.py would be missing in the image"),
        ("**/*.css", "ltxtrain/report/page.css would be missing in the image"),
        ("entrypoint", "entrypoint/entrypoint.sh would be missing in the image"),
    ],
)
def test_what_is_sent_to_the_engine_is_what_the_image_needs(folder: Path, line: str, expected: str) -> None:
    path = folder / ".dockerignore"
    path.write_text(f"{path.read_text()}{line}\n")
    assert f".dockerignore: {expected}" in [fault.removesuffix(" to the engine") for fault in faults_of_folder(folder)]


def test_a_context_without_the_list_is_found(folder: Path) -> None:
    (folder / ".dockerignore").unlink()
    assert list(faults_of_folder(folder)) == [".dockerignore: is missing"]


def test_a_copy_of_nothing_is_found(folder: Path) -> None:
    (folder / "LICENSE").unlink()
    assert list(faults_of_folder(folder)) == ["COPY LICENSE: there is no such file"]


# ---------------------------------------------------------------- the reader


def test_here_documents_comments_and_long_lines_are_read_as_a_builder_reads_them(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "ARG A=1\n"
        "FROM --platform=linux/amd64 x as One\n"
        "RUN --network=none --mount=type=bind,from=two,target=/w <<'SH' && cat <<-END >/y\n"
        "FROM z\n"
        "# no instruction\n"
        "SH\n"
        "\tRUN no\n"
        "\tEND\n"
        "\n"
        "env B=2 \\\n"
        "    # a comment in between\n"
        "    C='3 4'\n"
        "FROM one\n"
        'RUN cat <<<"no here-document"\n'
        'CMD ["a", "b c"]\n'
    )
    file = read_dockerfile(tmp_path / "Dockerfile")
    assert file.arguments == {"A": "1"}
    assert [(stage.line, stage.name, stage.base) for stage in file.stages] == [(2, "one", "x"), (13, "", "one")]
    run, env = file.stages[0].instructions
    assert (run.flags, run.taken_from()) == (("--network=none", "--mount=type=bind,from=two,target=/w"), ["two"])
    assert run.script == "FROM z\n# no instruction\n\tRUN no"
    assert (env.line, env.name, env.pairs()) == (10, "ENV", [("B", "2"), ("C", "3 4")])
    assert [one.name for one in file.stages[1].instructions] == ["RUN", "CMD"]
    assert file.stages[1].instructions[1].words() == ["a", "b c"]
    assert [stage.name for stage in file.made_of(file.stages[1])] == ["", "one"]


def test_the_list_of_what_is_left_out_is_read_as_a_builder_reads_it(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("# words\n*\n!keep\n/keep/not/\n**/*.env\n!keep/b?/c.env\n")
    ignored = read_ignored(tmp_path / ".dockerignore")
    out = {path for path in ("a", "a/b", "keep/not/x", "x.env", "keep/a/x.env", "keep/bb2/c.env") if path in ignored}
    assert out == {"a", "a/b", "keep/not/x", "x.env", "keep/a/x.env", "keep/bb2/c.env"}
    assert not any(path in ignored for path in ("keep", "keep/x", "keep/deep/x", "keep/nothing", "keep/b1/c.env"))
