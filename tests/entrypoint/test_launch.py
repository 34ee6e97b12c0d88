"""The image's command `ltxtrain`, as `docker exec` and shells start it: beside the container's own command."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.entrypoint.conftest import AS_ORDINARY_USER, LTXTRAIN, SCRIPTS, Container, needs_box

pytestmark = needs_box

LAUNCH = "/fake/ltxtrain"
BESIDE = {"LTX_ON_EXIT": "stop-pod", "LTX_LOG": "/output/log", "LTX_HEARTBEAT": "/output/beat"}


@pytest.fixture
def image(box: Container) -> Container:
    """The box with the launcher as its command; the stand-in is in the place of the image's Python."""
    python = box.folder("venv")
    box.mounts.append(f"{python}:/opt/venv/bin")
    (python / "python").write_text(LTXTRAIN)
    (python / "python").chmod(0o755)
    box.program("ltxtrain", (SCRIPTS / "launch.sh").read_text())
    return box


def test_a_command_of_docker_exec_has_the_container_s_user_places_and_secrets(image: Container) -> None:
    output, secrets = image.mount("/output", 1000), image.mount("/run/secrets")
    (image.mount("/data") / "clip.mp4").touch()
    (secrets / "HF_TOKEN").write_text("from a file of root's")
    (secrets / "HF_TOKEN").chmod(0o400)
    image.as_user = ["sh", "-c", '"$@"; exit $?', "sh"]  # as an engine does: the launcher is not process 1
    words = ["train", "--preset", "a b", ""]
    done = image.run(*words, script=LAUNCH)
    main = image.run(*words)
    assert done.argv == main.argv == ["-P", "-m", "ltxtrain", *words]
    assert done.id == main.id == "uid=1000 gid=1000 groups=1000"
    own = {"LTX_HEARTBEAT", "LTX_ON_EXIT"}  # the container's own command's alone
    places = {name: value for name, value in main.env.items() if name not in own | {"_", "OLDPWD", "RECORD_OUTSIDE"}}
    assert places.items() <= done.env.items()
    assert done.env["LTX_DATA_DIR"] == "/data" and done.env["HF_TOKEN"] == "from a file of root's"
    assert not {"LTX_HEARTBEAT", "LTX_BESIDE"} & set(done.env)
    assert output.stat().st_uid == 1000


def test_it_leaves_alone_what_belongs_to_the_container_s_own_command(image: Container) -> None:
    """LTX_ON_EXIT, LTX_LOG and LTX_HEARTBEAT are in the container's environment, so in that of an exec, too."""
    output = image.mount("/output", 1000)
    (output / "beat").write_text("a training lives")
    done = image.run("plan", script=LAUNCH, env=BESIDE | {"FAKE_CODE": "3", "PUBLIC_KEY": "ssh-ed25519 AAAA"})
    assert (done.code, done.err) == (3, "words of ltxtrain\n"), "neither a refusal, a note on ssh, nor waiting"
    assert sorted(path.name for path in output.iterdir()) == ["beat"]
    assert "LTX_HEARTBEAT" not in done.env


def test_why_it_is_root_is_said_by_the_container_s_own_command_alone(image: Container) -> None:
    (image.mount("/output") / "made").touch()
    done = image.run("plan", script=LAUNCH)
    assert done.id.startswith("uid=0 ")
    assert done.err == "words of ltxtrain\n"
    assert "note: this stays root" in image.run("plan").err


def test_on_a_cloud_a_typed_command_takes_no_turn(image: Container) -> None:
    image.mount("/workspace")
    image.mounts.append(f"{image.folder('tmp', 0, 0o1777)}:/tmp")
    cloud = {"RUNPOD_POD_ID": "pod", "FAKE_SECONDS": "9"}
    running = image.start("train", env=cloud)
    running.wait_for()
    typed = image.run("train", script=LAUNCH, env=cloud | {"FAKE_SECONDS": "0", "LTX_ON_EXIT": "sleep"})
    assert typed.ran and typed.env["LTX_OUTPUT_DIR"] == "/workspace/output"
    os.kill(int((running.record / "pid").read_text()), signal.SIGTERM)
    assert running.done().code == 143


def test_a_shell_of_the_container_starts_it_at_once(image: Container) -> None:
    image.mount("/output", 1000)
    done = image.run("sh", "-c", "ltxtrain plan", env={"LTX_HEARTBEAT": "/output/beat"})
    assert (done.code, done.argv) == (0, ["-P", "-m", "ltxtrain", "plan"])
    assert done.id.startswith("uid=1000 ")
    assert done.env["LTX_HEARTBEAT"] == "/output/beat"


def test_an_exec_as_another_user_stays_that_user(image: Container) -> None:
    image.as_user = AS_ORDINARY_USER
    done = image.run("plan", script=LAUNCH)
    assert done.id.startswith("uid=1234 ") and done.env["LTX_OUTPUT_DIR"] == "/output"


def test_as_process_1_it_is_the_container_s_own_command(image: Container) -> None:
    """docker run --entrypoint ltxtrain, or a pod of Kubernetes that names it as its command."""
    output = image.mount("/output", 1000)
    image.namespaces = ["--mount", "--net", "--pid", "--fork", "--kill-child"]
    done = image.run("plan", script=LAUNCH, env={"LTX_LOG": "/output/log"})
    assert done.code == 0, done.err
    assert done.env["LTX_HEARTBEAT"] == "/tmp/ltxtrain.heartbeat"
    assert (output / "log").read_text().count("ltxtrain") == 2


def test_each_image_installs_the_launcher_under_the_name_that_is_typed() -> None:
    root = SCRIPTS.parent
    for kind in ("cpu", "cuda", "rocm"):
        text = Path(root / f"Dockerfile.{kind}").read_text()
        assert "install -D -m 755 /opt/ltxtrain/entrypoint/launch.sh /opt/launch/ltxtrain\n" in text
        assert "COPY --link --from=code /opt/launch/ltxtrain /usr/local/bin/ltxtrain\n" in text
    subprocess.run(["sh", "-n", SCRIPTS / "launch.sh"], check=True)
