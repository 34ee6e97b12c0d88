"""The name of the image that a cloud is to pull."""

from __future__ import annotations

import re
from dataclasses import dataclass

from refusal import PLACEHOLDER, Refused, warn

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
NAME = re.compile(r"(?:[a-z0-9][a-z0-9.-]*(?::[0-9]+)?/)?[a-z0-9]+(?:(?:[._/]|__|-+)[a-z0-9]+)*")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
WHAT_A_DIGEST_IS = "the digest is sha256: and 64 digits, which docker push prints at its end"


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
        hint = f"REGISTRY/NAME is where you have pushed the image, and {WHAT_A_DIGEST_IS}"
        raise Refused(f"--image {text} is the placeholder of the template", hint)
    rest, _, digest = text.partition("@")
    name, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        name, tag = rest, ""
    if not NAME.fullmatch(name) or (tag and not TAG.fullmatch(tag)) or ("@" in text and not DIGEST.fullmatch(digest)):
        raise Refused(f"--image {text} is no name of an image", f"NAME:TAG@DIGEST; {WHAT_A_DIGEST_IS}")
    check_place(text, name)
    if tag == "latest" or not (tag or digest):
        raise Refused(f"--image {text} is another image tomorrow", "name a tag of its own, and the digest")
    if tag_only and not tag:
        raise Refused(f"--image {text} has no tag", "leave --tag-only out, or name a tag")
    if not digest and not tag_only:
        again = "later: docker inspect --format '{{index .RepoDigests 0}}' IMAGE"
        raise Refused(f"--image {text} has no digest", f"{WHAT_A_DIGEST_IS} ({again}); --tag-only goes without")
    if tag_only:
        warn("no digest: whoever can push this tag decides what runs beside your token")
    if tag and "cloud" not in tag:
        warn(
            f"the tag {tag} does not say cloud: without that stage (make image-cuda STAGE=cloud) there is no ssh server"
        )
    return Image(name, tag, "" if tag_only else digest)


def check_place(text: str, name: str) -> None:
    """Refuse a name that leads to this computer alone."""
    place, slash, _ = name.partition("/")
    if not slash or place.split(":")[0] in ("localhost", "127.0.0.1"):
        hint = "docker tag it as REGISTRY/NAME:TAG, docker push that, and name it here"
        raise Refused(f"--image {text} is on this computer alone: no cloud can pull it", hint)


def check_kind(image: Image, kind: str) -> None:
    """Warn where the tag speaks of the other maker's hardware."""
    other = {"nvidia": "rocm", "amd": "cuda"}[kind]
    if other in image.tag:
        warn(f"the tag {image.tag} says {other}, and the template is for {kind}")
