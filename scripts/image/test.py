"""`make image-test`: build the image for real and run it as its users will, with every step timed.

Needs a container engine, or root on Debian 12, where one is installed and started (scripts/image/engine.sh). Where none
can run, one line says SKIP and why. What was built stays, so that a second run after a change of the code is short.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from build import ROOT, Build, build_command, environment, image_size
from containers import (
    NOBODY,
    Wrong,
    docker,
    expect,
    locked_down,
    logs,
    make_volumes,
    must,
    report,
    run_docker,
    say,
    timed,
)
from data_sets import check_data_sets

SCRIPTS = ROOT / "scripts" / "image"
BASE = "localhost/ltxtrain-base:bookworm"
NAME = "localhost/ltxtrain-test"  # never the tags of images that somebody made for use
OURS = "ltxtrain.test"  # a label of what is built here, so that nothing else is ever removed
LARGEST_CPU_IMAGE = 2_450_000_000  # of it bitsandbytes 125 MB: nf4 and 8-bit optimisers for every kind of hardware
CANNOT = 77
# Long enough to be stopped in the middle, on a fast machine too.
TRAIN = ["train", "--preset", "smoke", "--max-train-steps", "100"]


def main() -> None:
    arguments = read_arguments()
    with alone(arguments.engine):
        test(arguments.engine, arguments.keep)


def test(folder: Path, keep: bool) -> None:
    began = time.monotonic()
    if reason := start_engine(folder):
        print(f"SKIP image-test: {reason}")
        return
    try:
        report("engine up", began)
        run_checks(folder)
        print(f"image-test: passed in {time.monotonic() - began:.0f} s")
    except Wrong as wrong:
        sys.exit(f"image-test: FAILED: {wrong}")
    finally:
        leave_engine(folder, keep)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    place = Path(os.environ.get("LTX_ENGINE", "/var/tmp/ltxtrain-engine"))
    parser.add_argument("--engine", type=Path, default=place, help="where a private engine keeps what it builds")
    parser.add_argument("--keep", action="store_true", help="leave the private engine running")
    return parser.parse_args()


# ---------------------------------------------------------------- the engine and what a build needs


def start_engine(folder: Path) -> str | None:
    """Bring an engine up and point ``docker`` at it. Returns the reason where none can run here."""
    done = subprocess.run([SCRIPTS / "engine.sh", "up", folder], stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode == CANNOT:
        return done.stderr.strip().splitlines()[-1].removeprefix("engine: ")
    if done.returncode:
        sys.exit(f"image-test: the engine failed:\n{done.stderr}")
    for line in (folder / "env").read_text().splitlines():
        name, _, value = line.removeprefix("export ").partition("=")
        os.environ[name] = value
    # The builder of the engine itself: one in a container of its own does not see the images that are built on here.
    os.environ["BUILDX_BUILDER"] = docker("context", "show").strip()
    return None


def leave_engine(folder: Path, keep: bool) -> None:
    """What makes the next run short stays, and no more. In somebody's own engine only our own images are touched."""
    run_docker("image", "prune", "--force", "--filter", f"label={OURS}")
    if os.environ.get("DOCKER_HOST") != f"unix://{folder}/docker.sock":
        return
    run_docker("builder", "prune", "--force", "--keep-storage", "12GB")
    if not keep:
        subprocess.run([SCRIPTS / "engine.sh", "down", folder], check=False)


def base_image() -> str | None:
    """A base of Debian's packages where this machine knows where they are, else the pinned one."""
    if shutil.which("debootstrap") is None or os.getuid() != 0:
        return None
    if "ID=debian" not in Path("/etc/os-release").read_text().splitlines():
        return None
    must([SCRIPTS / "base.sh", BASE, "bookworm"])
    return BASE


def run_checks(folder: Path) -> None:
    with ThreadPoolExecutor() as pool:
        base = pool.submit(timed, "base image", base_image)
        wheels = folder / "wheels"
        timed("wheels", lambda: must(["env", f"PYTHON={sys.executable}", SCRIPTS / "wheels.sh", wheels]))
        build = Build("cpu", "cpu", base=base.result(), wheels=wheels, name=NAME)
        timed("build the CPU image", lambda: build_image(build))
        check_size(build.tag)
        with tempfile.TemporaryDirectory(prefix="ltxtrain-image-") as place:
            undisturbed, stopped = Path(place) / "undisturbed", Path(place) / "stopped"
            lanes = [
                pool.submit(check_mapped_user, build.tag, undisturbed),
                pool.submit(check_stop_and_resume, build.tag, stopped),
                pool.submit(check_other_images, build),
            ]
            check_words(build.tag)
            check_contents(build.tag)
            check_data_sets(build.tag, Path(place) / "sets")
            for lane in lanes:
                lane.result()
            same_exports(undisturbed, stopped)


def build_image(build: Build) -> None:
    command = build_command(replace(build, options=("--progress=plain", f"--label={OURS}=1", *build.options)))
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise Wrong(f"{build.tag} could not be built:\n" + "\n".join(done.stderr.splitlines()[-40:]))


# ---------------------------------------------------------------- the checks


def check_size(tag: str) -> None:
    size = image_size(tag)
    say("its size", f"{size / 1e9:.2f} GB")
    expect(size < LARGEST_CPU_IMAGE, f"{tag} has {size} bytes")


def check_words(tag: str) -> None:
    """What somebody reads who only tries it."""
    said = timed("start (--version)", lambda: docker("run", "--rm", tag, "--version"))
    expect(said.startswith("ltxtrain "), said)
    welcome = timed("start (welcome text)", lambda: docker("run", "--rm", tag))
    for word in (":/data", ":/cache", ":/output", "train"):
        expect(word in welcome, f"the welcome text does not say {word}: {welcome}")
    expect("usage: ltxtrain" in docker("run", "--rm", tag, "ltxtrain", "--help"), "ltxtrain --help")
    wrong = run_docker("run", "--rm", tag, "trian")
    expect(wrong.returncode == 2 and "train" in wrong.stderr, f"trian: {wrong.returncode} {wrong.stderr}")


def check_contents(tag: str) -> None:
    """Who it runs as, what it says of itself, and that nothing is in it that does not belong there."""
    expect(docker("run", "--rm", tag, "id", "-u").strip() == "10001", "the default user")
    facts = json.loads(docker("run", "--rm", tag, "cat", "/opt/ltxtrain/image.json"))
    labels = json.loads(docker("image", "inspect", "--format", "{{json .Config.Labels}}", tag))
    for label, fact in (("revision", "revision"), ("version", "version"), ("base.name", "base")):
        expect(labels[f"org.opencontainers.image.{label}"] == facts[fact] != "unknown", f"{label}: {labels} {facts}")
    expect(labels["ltxtrain.lock"] == facts["lock_sha256"] != "unknown", f"lock: {labels} {facts}")
    bill = json.loads(docker("run", "--rm", tag, "cat", "/opt/sbom/sbom.cdx.json"))
    listed = {component["name"]: component.get("version", "") for component in bill["components"]}
    expect({"torch", "diffusers", "transformers"} <= listed.keys(), f"the bill of materials lists {sorted(listed)}")
    expect(facts["torch"] == listed["torch"], f"torch is {listed['torch']}, image.json says {facts['torch']}")
    programs = "for name in sshd nvcc curl wget pip git; do command -v $name || :; done"
    found = docker("run", "--rm", tag, "sh", "-c", programs) + files_of(tag, "-name", "pip-*")
    expect(not found, f"the plain image holds {found}")
    no_way_to_root(tag)
    timed("doctor", lambda: docker("run", "--rm", tag, "doctor", "--preset", "smoke", "--offline"))


def files_of(tag: str, *tests: str) -> str:
    """What `find` finds in the image, as root."""
    return docker("run", "--rm", "--entrypoint", "find", tag, "/", "-xdev", *tests)


def no_way_to_root(tag: str) -> None:
    found = files_of(tag, "-type", "f", "-perm", "/6000")
    expect(not found, f"with the rights of another user runs in {tag}: {found}")


def check_mapped_user(tag: str, place: Path) -> None:
    """Started as root, as `docker run` does: the files belong to the owner of the output folder."""
    owner = 4321 if os.getuid() == 0 else os.getuid()
    volumes = make_volumes(place, owner)
    words = timed("smoke run", lambda: docker("run", "--rm", *volumes, tag, *TRAIN))
    expect("LoRA (diffusers)" in words, words)
    lora = place / "out/smoke/export/pytorch_lora_weights.safetensors"
    expect(lora.stat().st_uid == owner, f"{lora.name} belongs to {lora.stat().st_uid}, not to {owner}")
    expect(lora.stat().st_mode & 0o044 == 0o044, f"{lora.name} has mode {lora.stat().st_mode:o}")


def check_stop_and_resume(tag: str, place: Path) -> None:
    """`docker stop` in training saves and leaves with 143; the same command goes on. All of it locked down."""
    volumes = make_volumes(place, NOBODY)
    locked = locked_down()
    container = docker("run", "--detach", *locked, *volumes, tag, *TRAIN).strip()
    try:
        metrics = place / "out/smoke/metrics.jsonl"
        began = time.monotonic()
        inside = docker("exec", container, "ltxtrain", "plan", "--preset", "smoke")
        expect("/output/smoke" in inside, f"docker exec sees other folders than the container: {inside}")
        wait_for(lambda: metrics.exists() and metrics.stat().st_size > 0, container)
        report("another user, read-only, no network: first step after", began)
        beat = run_docker("exec", container, "/opt/ltxtrain/entrypoint/healthcheck.sh")
        expect(beat.stdout.startswith("healthy: a sign of life"), f"no sign of life: {beat.stdout}{beat.stderr}")
        timed("SIGTERM until it has left", lambda: docker("stop", "--time", "30", container))
        code = docker("inspect", "--format", "{{.State.ExitCode}}", container).strip()
        expect(code == "143", f"after SIGTERM the exit code is {code}: {logs(container)}")
    finally:
        run_docker("rm", "--force", container)
    saved = sorted((place / "out/smoke/checkpoints").glob("step-*/MANIFEST.json"))
    expect(bool(saved), "no checkpoint was saved at SIGTERM")
    steps_before = len(metrics.read_text().splitlines())
    expect(steps_before < 100, "training had ended before it was stopped")
    timed("resume to the end", lambda: docker("run", "--rm", *locked, *volumes, tag, *TRAIN))
    manifest = json.loads((place / "out/smoke/run.json").read_text())
    facts = json.loads(docker("run", "--rm", tag, "cat", "/opt/ltxtrain/image.json"))
    expect(
        manifest["git_commit"] == facts["revision"],
        f"run.json names commit {manifest['git_commit']}, the image {facts}",
    )
    events = [event["event"] for event in manifest["events"]]
    expect(events.count("start") + events.count("resume") == 2, f"run.json tells of {events}")


def check_other_images(build: Build) -> None:
    """Both GPU images and the cloud stage: every stage is built, with the CPU's torch in place of theirs."""
    torch = replace(build, stage="torch")
    build_image(torch)
    instead = ("--build-context", f"torch=docker-image://{torch.tag}")
    for kind, name in (("cuda", "cu129"), ("rocm", "rocm72")):
        gpu = replace(build, kind=kind, torch=name, options=instead)
        timed(f"build Dockerfile.{kind} (torch of the CPU)", partial(build_image, gpu))
        expect(docker("run", "--rm", gpu.tag, "--version").startswith("ltxtrain "), gpu.tag)
        no_way_to_root(gpu.tag)
    with tempfile.TemporaryDirectory(prefix="ltxtrain-sage-") as place:
        timed("build the stage sage (a stand-in for its source)", partial(build_sage, build, Path(place), instead))
    cloud = replace(build, stage="cloud")
    timed("build the cloud stage", lambda: build_image(cloud))
    expect("sshd" in docker("run", "--rm", cloud.tag, "sh", "-c", "command -v sshd"), "the cloud stage has no sshd")
    keys = docker("run", "--rm", cloud.tag, "sh", "-c", "ls /etc/ssh | grep -c host_ || true").strip()
    expect(keys == "0", f"{keys} host keys are in the image")
    no_way_to_root(cloud.tag)


def build_sage(build: Build, place: Path, instead: tuple[str, ...]) -> None:
    """Small folders of the same shape take the place of the toolkit and of the source; the steps are the real ones."""
    compiler = place / "toolkit/usr/local/cuda/bin/nvcc"
    source = place / "source/sageattention.py"
    for path, text in ((compiler, "#!/bin/sh\n"), (source, "STAND_IN = True\n")):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    (source.parent / "setup.py").write_text(
        "import os, setuptools\n"
        "assert os.path.exists(os.environ['CUDA_HOME'] + '/bin/nvcc') and os.environ['TORCH_CUDA_ARCH_LIST']\n"
        "import torch\n"
        "setuptools.setup(name='sageattention', version='0', py_modules=['sageattention'])\n"
    )
    contexts = ("--build-context", f"toolkit={place / 'toolkit'}", "--build-context", f"sageattention={source.parent}")
    sage = replace(build, kind="cuda", torch="cu129", stage="sage", options=(*instead, *contexts))
    build_image(sage)
    seen = docker("run", "--rm", sage.tag, "python", "-c", "import sageattention as s; print(s.STAND_IN)").strip()
    expect(seen == "True", f"sageattention is not found in the stage sage: {seen}")
    found = docker("run", "--rm", sage.tag, "sh", "-c", "command -v nvcc || ls -d /usr/local/cuda || echo none 2>&1")
    expect("none" in found, f"the toolkit is in the image: {found}")


def same_exports(one: Path, other: Path) -> None:
    digests = [
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (place / "out/smoke/export").iterdir()}
        for place in (one, other)
    ]
    expect(digests[0] == digests[1] != {}, f"the resumed run differs from the undisturbed one: {digests}")
    say("resumed and undisturbed run", "the same bytes")


# ---------------------------------------------------------------- small things


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait for other runs: they build the same tags, and the first to end would stop the engine of the next."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("waiting for another image-test", str(folder))
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(lock)


def wait_for(condition: Callable[[], bool], container: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        running = docker("inspect", "--format", "{{.State.Running}}", container).strip() == "true"
        if not running or time.monotonic() > end:
            raise Wrong(f"the container {'hangs' if running else 'ended early'}: {logs(container)}")
        time.sleep(0.1)


if __name__ == "__main__":
    main()
