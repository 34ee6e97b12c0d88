"""Who training runs as, in a root that is laid out like the image."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.entrypoint.conftest import AS_ORDINARY_USER, Container, needs_box

pytestmark = needs_box

WITHOUT_CAPABILITIES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")


def owner(path: Path) -> tuple[int, int]:
    return path.stat().st_uid, path.stat().st_gid


def test_root_becomes_10001_when_nothing_says_who(box: Container) -> None:
    done = box.run("train")
    assert done.id == "uid=10001 gid=10001 groups=10001"


@pytest.mark.parametrize(
    ("owners", "expected"),
    [
        ({"/output": 1000, "/cache": 2000, "/data": 3000}, 1000),
        ({"/output": 0, "/cache": 2000, "/data": 3000}, 2000),
        ({"/output": 0, "/cache": 0, "/data": 3000}, 3000),
        ({"/output": 0, "/cache": 0, "/data": 0}, 10001),
    ],
)
def test_the_user_is_the_owner_of_the_mounted_folders(box: Container, owners: dict[str, int], expected: int) -> None:
    for inside, uid in owners.items():
        box.mount(inside, uid)
    assert box.run("train").id.startswith(f"uid={expected} gid={expected} ")


def test_puid_and_pgid_decide(box: Container) -> None:
    box.mount("/output", 1000)
    assert "uid=4321 gid=8765 " in box.run("train", env={"PUID": "4321", "PGID": "8765"}).id + " "
    assert "uid=4321 gid=4321 " in box.run("train", env={"PUID": "4321"}).id + " "
    assert "uid=1000 gid=8765 " in box.run("train", env={"PGID": "8765"}).id + " "


@pytest.mark.parametrize("name", ["PUID", "PGID"])
@pytest.mark.parametrize("value", ["ada", "-1", "10 00", "99999999999"])
def test_a_user_that_is_no_number_is_one_error_and_a_hint(box: Container, name: str, value: str) -> None:
    done = box.run("train", env={name: value})
    assert (done.code, done.ran) == (2, False)
    assert done.err.splitlines()[0] == f"error: {name} is '{value}', which is no user or group number"
    assert done.err.splitlines()[1].startswith("hint: ")
    assert len(done.err.splitlines()) == 2


def test_only_root_s_own_top_folders_change_hands(box: Container) -> None:
    data, cache, output = (box.mount(inside) for inside in ("/data", "/cache", "/output"))
    for folder in (data, cache, output):
        (folder / "inside").mkdir()
        (folder / "inside" / "file").touch()
    done = box.run("train", env={"PUID": "4321"})
    assert done.code == 0
    assert owner(cache) == owner(output) == (4321, 4321)
    assert owner(data) == (0, 0)
    for folder in (data, cache, output):
        assert owner(folder / "inside") == owner(folder / "inside" / "file") == (0, 0)


@pytest.mark.parametrize("inside", ["/cache", "/output"])
def test_root_goes_on_with_what_it_made_itself_and_says_how_to_choose(box: Container, inside: str) -> None:
    folders = {name: box.mount(name) for name in ("/data", "/cache", "/output")}
    (folders[inside] / "made").touch()
    done = box.run("train")
    assert done.id.startswith("uid=0 gid=0 ")
    [note] = [line for line in done.err.splitlines() if "stays root" in line]
    assert note.startswith("note:") and "files of root's" in note and "-e PUID=1000 -e PGID=1000" in note
    assert owner(folders["/output"]) == (0, 0)
    assert box.run("train", env={"PGID": "4321"}).id.startswith("uid=10001 gid=4321 ")
    assert box.run("train", env={"PUID": "4321"}).id.startswith("uid=4321 ")


def test_root_s_files_in_somebody_s_folders_or_beside_nothing_keep_no_root(box: Container) -> None:
    data, output = box.mount("/data"), box.mount("/output")
    (data / "clip.mp4").touch()
    (output / "lost+found").mkdir()
    assert box.run("train").id.startswith("uid=10001 "), "clips are only read, and a disk brings lost+found"
    os.chown(output, 0, 0)
    (output / "made").touch()
    os.chown(data, 3000, 3000)
    assert box.run("train").id.startswith("uid=3000 ")


def test_folders_of_others_and_folders_for_all_are_left_alone(box: Container) -> None:
    cache, output = box.mount("/cache", 2000), box.mount("/output", 0, 0o1777)
    box.run("train", env={"PUID": "4321"})
    assert owner(cache) == (2000, 2000)
    assert owner(output) == (0, 0)


def test_the_groups_that_the_container_was_given_are_kept_but_not_root_s(box: Container) -> None:
    box.as_user = ["setpriv", "--groups=0,44,993"]
    groups = box.run("train", env={"PUID": "4321"}).id.split("groups=")[1]
    assert set(groups.split(",")) == {"4321", "44", "993"}


def test_a_user_of_docker_s_own_is_left_as_it_is(box: Container) -> None:
    box.as_user = ["setpriv", "--reuid=1234", "--regid=1234", "--groups=44"]
    output = box.mount("/output")
    done = box.run("train", env={"HOME": "/"})
    assert done.code == 0
    assert done.id == "uid=1234 gid=1234 groups=1234,44"
    assert done.env["HOME"] == "/tmp"
    assert done.env["USER"] == done.env["LOGNAME"] == "ltx"
    assert owner(output) == (0, 0)
    assert "note: PUID=7 is not used" in box.run("train", env={"PUID": "7"}).err


def test_a_home_that_can_be_written_is_kept(box: Container) -> None:
    home = box.mount("/home/ada", 1234)
    box.as_user = AS_ORDINARY_USER
    assert box.run("train", env={"HOME": "/home/ada"}).env["HOME"] == "/home/ada"
    home.chmod(0o500)
    assert box.run("train", env={"HOME": "/home/ada"}).env["HOME"] == "/tmp"


def test_root_s_home_and_name_do_not_go_with_the_user(box: Container) -> None:
    env = box.run("train", env={"HOME": "/root", "USER": "root", "LOGNAME": "root"}).env
    assert (env["HOME"], env["USER"], env["LOGNAME"]) == ("/tmp", "ltx", "ltx")
    assert "LTX_ENTERED" not in env


@pytest.mark.parametrize("env", [{"LTX_RUN_AS_ROOT": "1"}, {"PUID": "0"}])
def test_root_can_be_asked_for(box: Container, env: dict[str, str]) -> None:
    output = box.mount("/output", 1000)
    done = box.run("train", env=env)
    assert done.id.startswith("uid=0 gid=0 ")
    assert owner(output) == (1000, 1000)


def test_root_that_may_not_change_its_user_stays_and_says_so_once(box: Container) -> None:
    box.as_user = WITHOUT_CAPABILITIES
    box.mount("/output")
    done = box.run("train")
    assert done.code == 0
    assert done.id.startswith("uid=0 gid=0 ")
    notes = [line for line in done.err.splitlines() if line.startswith("note:")]
    assert len(notes) == 1
    assert "--user" in notes[0]


def test_root_of_a_user_namespace_stays(box: Container) -> None:
    box.namespaces = ["--user", "--map-root-user", "--mount", "--net"]
    box.mount("/output")
    done = box.run("train", env={"PUID": "4321"})
    if "unshare: " in done.err:
        pytest.skip("this kernel allows no user namespaces")
    assert done.id.startswith("uid=0 gid=0 ")
    assert "rootless" in done.err
    assert done.err.count("note:") == 1


def test_a_handed_over_mark_does_not_keep_root(box: Container) -> None:
    assert box.run("train", env={"LTX_ENTERED": "again"}).id.startswith("uid=10001")


def test_new_privileges_are_not_to_be_had_after_root_is_left(box: Container) -> None:
    status = box.run("cat", "/proc/self/status").out
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    assert fields["NoNewPrivs"] == "1"
    assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == int(fields["CapInh"], 16) == 0


@pytest.mark.parametrize(
    "user", [(), AS_ORDINARY_USER, WITHOUT_CAPABILITIES, (*AS_ORDINARY_USER, "--bounding-set=-all")]
)
@pytest.mark.parametrize("read_only", ["alone", "tmpfs"])
def test_it_runs_with_a_read_only_root_as_any_user(box: Container, user: tuple[str, ...], read_only: str) -> None:
    for inside in ("/cache", "/output"):
        box.mount(inside, 0, 0o777)
    box.as_user, box.read_only = user, read_only
    done = box.run("sh", "-c", 'ltxtrain train && : >"${TMPDIR:-/tmp}/x" && : >"$HOME/y" && : >"$LTX_HEARTBEAT"')
    assert done.code == 0, done.err
    assert "cannot" not in done.err
    if read_only == "alone":
        assert done.env["TMPDIR"] == "/cache/tmp"
        assert done.env["LTX_HEARTBEAT"] == f"/dev/shm/ltxtrain-{os.uname().nodename}.heartbeat"
        Path(done.env["LTX_HEARTBEAT"]).unlink(missing_ok=True)
    else:
        assert "TMPDIR" not in done.env
        assert done.env["LTX_HEARTBEAT"] == "/tmp/ltxtrain.heartbeat"
