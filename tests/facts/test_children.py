"""Real child processes that misbehave in every way we can think of: the parent answers all the same, and in order."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ltxtrain.errors import MachineError
from ltxtrain.facts import children
from ltxtrain.facts.children import Children, Reply, Task, child_environment, usable_workers
from ltxtrain.facts.children_memory import SharedMemory

ROOT = Path(__file__).resolve().parents[2]
MEMORY = 1 << 30

# A module like ``probe_child``: what a task says, it does.
CHILD = """
import ctypes, os, signal, sys, time
from ltxtrain.facts.children_serve import serve

def answer(task, room):
    if task["do"] == "bytes":
        pattern = bytes(range(256)) * (task["value"] // 256)
        room[:len(pattern)] = pattern[:len(room)]
        return {}, len(pattern)
    return act(task), 0

def act(task):
    do, value = task["do"], task.get("value")
    if do == "say":
        return {"said": value, "pid": os.getpid()}
    if do == "die":
        os.kill(os.getpid(), value)
    if do == "leave":
        os._exit(value)
    if do == "die once" and not os.path.exists(value):
        os.mkdir(value)
        os.kill(os.getpid(), signal.SIGKILL)
    if do == "hang":
        time.sleep(1000)
    if do == "hang in C":
        ctypes.PyDLL(None).sleep(1000)  # never gives Python's lock back
    if do == "eat":
        return {"got": len(bytearray(value))}
    if do == "write":
        with open(value, "wb") as file:
            file.write(b"x")
            file.flush()
    if do == "raise":
        raise KeyError("a defect")
    if do == "garbage":
        os.write(OUTPUT, value.encode("latin-1"))
        time.sleep(1000)
    if do == "noise":
        print("a library that prints")
        os.write(1, b"and one that writes\\n")
    if do == "environment":
        return {"said": sorted(os.environ)}
    if do == "limits":
        import resource
        return {"said": [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_CORE)]}
    return {"said": "alive"}

if __name__ == "__main__":
    real_dup, OUTPUT = os.dup, None
    def dup(number):
        global OUTPUT
        made = real_dup(number)
        OUTPUT = made if number == 1 else OUTPUT
        return made
    os.dup = dup
    serve(answer)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "naughty_child.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "naughty_child"


def do(what: str, value: object = None, seconds: float = 20.0, most: int = 0) -> Task:
    return Task({"do": what, "value": value}, seconds, most)


def ask(module: str, *tasks: Task, count: int = 1) -> list[Reply]:
    with Children(module, count, MEMORY) as pool:
        return list(pool.run(tasks))


def said(reply: Reply) -> object:
    assert reply.answer is not None, reply
    return reply.answer["said"]


def test_replies_come_in_the_order_of_the_tasks_from_several_children(module: str) -> None:
    replies = ask(module, *(do("say", number) for number in range(50)), count=2)
    assert [said(reply) for reply in replies] == list(range(50))
    assert len({reply.answer["pid"] for reply in replies if reply.answer}) == 2


def test_raw_bytes_arrive_whole(module: str) -> None:
    size = 9 << 20
    reply, small = ask(module, do("bytes", size, most=size), do("bytes", 256, most=size))
    assert reply.data == bytes(range(256)) * (size // 256)
    assert small.data == bytes(range(256))


def test_raw_bytes_arrive_whole_where_memory_cannot_be_shared(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SharedMemory, "room", lambda self, size: None)
    test_raw_bytes_arrive_whole(module)


BAD: dict[str, tuple[Task, str, str]] = {
    "killed": (do("die", signal.SIGKILL), "crashed", "Killed"),
    "segmentation fault": (do("die", signal.SIGSEGV), "crashed", "Segmentation"),
    "abort": (do("die", signal.SIGABRT), "crashed", "Abort"),
    "leaves": (do("leave", 0), "crashed", "code 0"),
    "hangs": (do("hang", seconds=0.3), "too-slow", "longer than"),
    "hangs in C": (do("hang in C", seconds=0.3), "too-slow", "longer than"),
    "eats memory": (do("eat", 4 << 30), "crashed", "MemoryError"),
    "defect": (do("raise"), "crashed", "KeyError"),
    "garbage": (do("garbage", "\xff\xfe no JSON\n"), "crashed", "must not"),
    "a list": (do("garbage", "[1]\n"), "crashed", "must not"),
    "deep": (do("garbage", "[" * 100_000 + "\n"), "crashed", "must not"),
    "a number without end": (do("garbage", '{"answer": ' + "9" * 9999 + "}\n"), "crashed", "must not"),
    "another's answer": (do("garbage", '{"mark":"0","answer":{},"bytes":0}\n'), "crashed", "must not"),
    "endless line": (do("garbage", "x" * (3 << 20)), "crashed", "must not"),
    "half a line": (do("garbage", '{"mark":', seconds=0.3), "too-slow", "longer than"),
    "too many bytes": (do("bytes", 4096, most=256), "crashed", "4096 bytes"),
}


@pytest.mark.parametrize("kind", BAD)
def test_child_that_misbehaves_spoils_its_own_task_alone(kind: str, module: str) -> None:
    task, failure, detail = BAD[kind]
    first, bad, last = ask(module, do("say", 1), task, do("say", 2))
    assert (said(first), said(last)) == (1, 2)
    assert (bad.answer, bad.failure) == (None, failure)
    assert detail in bad.detail


def test_task_whose_child_was_killed_for_another_is_tried_again(module: str, tmp_path: Path) -> None:
    (reply,) = ask(module, do("die once", str(tmp_path / "died")))
    assert said(reply) == "alive"


def test_what_libraries_print_is_no_answer(module: str) -> None:
    assert [said(reply) for reply in ask(module, do("noise"), do("say", 2))] == ["alive", 2]


def test_child_cannot_write_a_file_and_has_its_limits(module: str, tmp_path: Path) -> None:
    reply, limits = ask(module, do("write", str(tmp_path / "written")), do("limits"))
    assert reply.failure == "crashed" and "File too large" in reply.detail
    assert (tmp_path / "written").stat().st_size == 0
    assert said(limits) == [MEMORY, 0]


def test_child_sees_no_token_and_needs_no_home(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.delenv("HOME", raising=False)
    (reply,) = ask(module, do("environment"))
    names = said(reply)
    assert isinstance(names, list)
    assert "HF_TOKEN" not in names and "HOME" not in names
    assert "PYTHONPATH" in child_environment({})


def test_no_more_is_under_way_than_twice_the_children(module: str) -> None:
    taken = []

    def tasks() -> object:
        for number in range(20):
            taken.append(number)
            yield do("say", number)

    with Children(module, 2, MEMORY) as pool:
        for done, _ in enumerate(pool.run(tasks())):  # type: ignore[arg-type]
            assert len(taken) <= done + 5


def test_little_is_under_way_where_answers_are_large(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "AHEAD_BYTES", 1000)
    taken = []

    def tasks() -> object:
        for number in range(6):
            taken.append(number)
            yield do("bytes", 512, most=512)

    with Children(module, 2, MEMORY) as pool:
        for done, _ in enumerate(pool.run(tasks())):  # type: ignore[arg-type]
            assert len(taken) <= done + 2


def test_leaving_early_ends_the_children_at_once(module: str) -> None:
    began = time.monotonic()
    with Children(module, 2, MEMORY) as pool:
        replies = pool.run([do("say", 0), *(do("hang", seconds=500) for _ in range(5))])
        first = next(replies)
    assert time.monotonic() - began < 20
    assert first.answer is not None
    wait_for(lambda: not alive(first.answer["pid"]))  # type: ignore[index]


PARENT = """
import sys
from ltxtrain.facts.children import Children, Task
with Children("naughty_child", 1, 1 << 30) as pool:
    tasks = [Task({"do": "say"}, 20.0), Task({"do": sys.argv[1]}, 500.0)]
    for reply in pool.run(tasks):
        print(reply.answer["pid"], flush=True)
"""


@pytest.mark.parametrize("hang", ["hang", "hang in C"])
def test_children_end_with_a_parent_that_is_killed(module: str, hang: str) -> None:
    environment = child_environment(os.environ)
    parent = subprocess.Popen([sys.executable, "-c", PARENT, hang], env=environment, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert alive(child)
    parent.kill()
    parent.wait()
    wait_for(lambda: not alive(child))
    parent.stdout.close()


def test_ctrl_c_is_the_parents_matter(module: str) -> None:
    with Children(module, 1, MEMORY) as pool:
        first = next(pool.run([do("say")]))
        assert first.answer is not None
        os.kill(first.answer["pid"], signal.SIGINT)
        again = next(pool.run([do("say")]))
        assert again.answer is not None and again.answer["pid"] == first.answer["pid"]


@pytest.mark.parametrize("broken", ["no program", "no module"])
def test_without_any_process_nothing_is_opened_here_and_the_machine_is_blamed(
    broken: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    if broken == "no program":
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
    else:  # a child that ends before it is ready
        monkeypatch.setenv("PYTHONPATH", "")
    with pytest.raises(MachineError, match="no process can be started") as caught:
        ask(module, do("say", 1), do("say", 2), count=2)
    assert caught.value.hint


def no_process(*_: object) -> None:
    raise BlockingIOError(11, "Resource temporarily unavailable")


def test_what_ended_a_child_that_cannot_be_replaced_is_not_opened_here(
    module: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    real = children.start_process
    with Children(module, 1, MEMORY) as pool:
        assert said(next(pool.run([do("say", 1)]))) == 1
        monkeypatch.setattr(children, "start_process", no_process)
        dead, alive = pool.run([do("leave", 3), do("say", 2)])
        assert (dead.failure, alive.failure) == ("crashed", "crashed")
        assert "code 3" in dead.detail and "Resource temporarily" in alive.detail
        monkeypatch.setattr(children, "start_process", real)
        assert said(next(pool.run([do("say", 3)]))) == 3


def test_child_that_cannot_be_replaced_leaves_its_tasks_to_the_others(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Children(module, 2, MEMORY) as pool:
        assert {said(reply) for reply in pool.run([do("say", number) for number in range(8)])} == set(range(8))
        monkeypatch.setattr(children, "start_process", no_process)
        replies = list(pool.run([do("leave", 3), *(do("say", number) for number in range(20))]))
    assert replies[0].failure == "crashed"
    assert [said(reply) for reply in replies[1:]] == list(range(20))


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can take on another user")


AS_NOBODY = """
import os, sys
from ltxtrain.facts.children import Children, Task
assert os.getuid() == 54321
with Children("naughty_child", 1, 1 << 30) as pool:
    (reply,) = pool.run([Task({"do": "say", "value": 7}, 30.0)])
    print(reply.answer["said"], reply.answer["pid"] != os.getpid())
"""
READ_ONLY = 'mount -o bind / / && mount -o remount,bind,ro / && exec "$@"'
# Python may lie where only root can read it: that right is kept.
NOBODY = "setpriv --reuid 54321 --clear-groups --inh-caps +dac_read_search --ambient-caps +dac_read_search"


@needs_root
@pytest.mark.skipif(sys.platform != "linux", reason="a read-only root needs a namespace of its own")
def test_works_read_only_without_home_for_a_user_without_a_name() -> None:
    folder = Path(tempfile.mkdtemp(prefix="ltxtrain-test-"))  # pytest's own folders are closed to other users
    try:
        folder.chmod(0o755)
        (folder / "naughty_child.py").write_text(CHILD)
        environment = child_environment({**os.environ, "PYTHONPATH": str(folder)})
        environment.pop("HOME", None)
        python = [*NOBODY.split(), sys.executable, "-B", "-c", AS_NOBODY]
        command = ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", *python]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd="/")
    finally:
        shutil.rmtree(folder)
    if done.returncode and any(name in done.stderr for name in ("unshare", "mount", "setpriv")):
        pytest.skip(done.stderr)
    assert (done.stdout, done.stderr) == ("7 True\n", "")


def test_number_of_children_is_that_of_the_cores_within_the_containers_limit(tmp_path: Path) -> None:
    most = usable_workers(tmp_path)
    assert 1 <= most <= 8
    for text, expected in (("max 100000", most), ("100000 100000", 1), ("50000 100000", 1), ("9000000 100000", most)):
        (tmp_path / "cpu.max").write_text(text + "\n")
        assert usable_workers(tmp_path) == expected


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def wait_for(what: Callable[[], bool], seconds: float = 15.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.02)
