"""The text for a bug report: everything that helps, and no canary comes through."""

from __future__ import annotations

import pytest

from ltxtrain.doctor.report import Private, scrub
from tests.doctor.world import World

CANARIES = {
    "user": "wilhelmina",
    "home": "/home/wilhelmina",
    "host": "gpubox-zrh-17",
    "data folder": "acme-launch",
    "cache folder": "scratchpad9",
    "output folder": "customer-x",
    "model folder": "unreleased-model",
    "Hub token": "hf_" + "AbCdEfGh1234567890aBcD",
    "tracker key": "4f2a9c0d1e2b3a4c5d6e7f8091a2b3c4d5e6f708",
    "secret of any name": "open-sesame-77",
    "mirror": "hub.corp.example",
    "password in an address": "proxy-pw-5",
    "IPv4 address": "10.77.3.201",
    "IPv6 address": "fd12:3456:789a::42",
    "mail address": "wil@corp.example",
    "network card": "02:42:ac:11:00:02",
    "serial number of a card": "GPU-3d1f2c77-8c1b-4b2f-9c44-0d4b1a2f3e55",
    "library folder": "/srv/private-libs",
}


def plant(world: World) -> list[str]:
    """Every canary, at the place where such a thing would stand."""
    words = [
        CANARIES["IPv4 address"],
        CANARIES["IPv6 address"],
        CANARIES["mail address"],
        CANARIES["network card"],
        CANARIES["serial number of a card"],
        CANARIES["host"],
        CANARIES["Hub token"],
        CANARIES["tracker key"],
        CANARIES["secret of any name"],
        f"http://me:{CANARIES['password in an address']}@{CANARIES['mirror']}:3128/x",
        f"https://{CANARIES['mirror']}/api",
        f"{CANARIES['home']}/notes/diary.txt",
    ]
    world.nvidia(error="CUDA driver error 999 at " + " ".join(words[:5]), devices=[])
    world.package("av", f"raise ImportError({' '.join(words[5:])!r})")
    folders = [CANARIES[name] for name in ("data folder", "cache folder", "output folder", "model folder")]
    places = [world.place / CANARIES["home"].strip("/") / folder for folder in folders]
    places[3].mkdir(parents=True)
    world.env |= {
        "HOME": str(world.place / CANARIES["home"].strip("/")),
        "USER": CANARIES["user"],
        "HOSTNAME": CANARIES["host"],
        "HF_TOKEN": CANARIES["Hub token"],
        "WANDB_API_KEY": CANARIES["tracker key"],
        "MY_PASSWORD": CANARIES["secret of any name"],
        "HF_ENDPOINT": f"https://{CANARIES['mirror']}",
        "LD_LIBRARY_PATH": CANARIES["library folder"],
    }
    flags = ["--data", "--cache", "--output", "--pretrained-model-name-or-path"]
    return ["--preset", "bf16", *(word for pair in zip(flags, map(str, places), strict=True) for word in pair)]


def test_no_canary_comes_through(world: World) -> None:
    words = plant(world)
    plain = world.command("--offline", *words).stdout
    done = world.command("--offline", "--report", *words)
    assert done.returncode == 4, done.stderr
    # What is told in the plain text shows that the canaries were really there.
    shown = [name for name, canary in CANARIES.items() if canary in plain]
    assert len(shown) >= 10, shown
    assert [name for name, canary in CANARIES.items() if canary.lower() in done.stdout.lower()] == []
    assert "diary" not in done.stdout and str(world.place) not in done.stdout
    for mark in ("<data>", "<cache>", "<output>", "<model>", "<secret>", "<address>", "<url>", "<uuid>", "<mac>"):
        assert mark in done.stdout, mark


def test_report_keeps_what_helps(world: World) -> None:
    world.nvidia()
    world.env["CUDA_VISIBLE_DEVICES"] = "0"
    text = world.command("--offline", "--report", "--preset", "bf16").stdout
    for word in (
        "ltxtrain 0.",
        "Python 3.",
        "torch 2.13.0+cu129",
        "presets: bf16",
        "NVIDIA GeForce RTX 4090",
        "driver: 575.57.08",
        "CUDA_VISIBLE_DEVICES=0",
        "diffusers ",
        "glibc",
        "0 faults",
    ):
        assert word in text, word


def test_image_is_told_without_the_place_that_its_base_comes_from(world: World) -> None:
    base = "registry.corp.example:5000/team/debian:bookworm-slim@sha256:" + "ab" * 32
    world.env["LTX_IMAGE"] = str(
        world.file("opt/image.json", f'{{"kind": "cpu", "torch": "2.13.0+cpu", "base": "{base}"}}')
    )
    text = world.command("--offline", "--report", "--preset", "smoke").stdout
    assert "kind cpu" in text and "debian:bookworm-slim@sha256:" in text and "corp" not in text


def test_names_of_clips_and_of_private_models_are_not_told(world: World) -> None:
    clips = world.place / "work" / "clips"
    clips.mkdir()
    (clips / "secret launch.mp4").touch()
    words = ["--preset", "bf16", "--data", "clips", "--pretrained-model-name-or-path", "acme/hidden-model"]
    plain = world.command("--offline", *words).stdout
    assert "secret launch.mp4" in plain and "acme/hidden-model" in plain
    text = world.command("--offline", "--report", *words).stdout
    assert "[data-no-captions]" in text and "<model>" in text
    assert "secret" not in text and "launch" not in text and "acme" not in text


def test_folder_above_that_has_a_blank_in_its_name_is_not_told(world: World) -> None:
    """The output folder does not exist yet: what is looked at is the folder above it."""
    (world.place / "work" / "Big Client").mkdir()
    (world.place / "work" / "loop").symlink_to("loop")
    words = ["--preset", "smoke", "--output", "Big Client/runs/first", "--cache", "loop"]
    done = world.command("--offline", "--report", *words)
    assert "volume-link-loop" in done.stdout, done.stderr
    assert "Client" not in done.stdout and "Big" not in done.stdout


PRIVATE = Private(
    folders=(("/mnt/my clips", "<data>"), ("/mnt/out", "<output>")),
    names=(("alice", "<user>"),),
    secrets=("s3cr3t-thing",),
    home="/home/alice",
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/mnt/my clips/a/b.mp4 is broken", "<data>/... is broken"),
        ("/mnt/my clips is empty", "<data> is empty"),
        ("/mnt/outer/x", "<path>"),
        ("see /home/alice, /home/alice/x and /home/alice2/x", "see ~, ~/... and <path>"),
        ("the user Alice, alice-laptop and malice", "the user <user>, <user>-laptop and malice"),
        ("key s3cr3t-thing, s3cr3t-thing", "key <secret>, <secret>"),
        ("10.1.2.3 and 10.1.2.3.4, v10.1.2.3", "<address> and 10.1.2.3.4, v10.1.2.3"),
        ("driver 535.129.03 at 12:30:45, torch 2.13.0+cu129", "driver 535.129.03 at 12:30:45, torch 2.13.0+cu129"),
        ("from 192.168.0.7:8080, ::1 and fe80::1.", "from <address>:8080, <address> and <address>."),
        (
            "/opt/venv/bin/python, /dev/shm, /usr/lib/x.so and /tmp",
            "/opt/venv/bin/python, /dev/shm, /usr/lib/x.so and /tmp",
        ),
        ("/tmp/pytest-of-bob/x", "<path>"),
        ("https://huggingface.co/settings/tokens", "https://huggingface.co/settings/tokens"),
        ("https://huggingface.co.evil.example/x", "<url>"),
        ("read and/or write 3 / 4 N/A", "read and/or write 3 / 4 N/A"),
        ("--ulimit nofile=4096 -v ./cache:/cache", "--ulimit nofile=4096 -v ./cache:/cache"),
        ("hf_abcdefghijklmnop", "<secret>"),
    ],
)
def test_private_things_are_taken_out_and_nothing_else(text: str, expected: str) -> None:
    assert scrub(text, PRIVATE) == expected
