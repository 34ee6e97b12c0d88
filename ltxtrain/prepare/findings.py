"""What may be odd about a clip: the closed list of codes, each with what it means and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Code = Literal[
    "caption-missing",
    "caption-unreadable",
    "caption-long",
    "caption-short",
    "caption-duplicate",
    "caption-no-trigger",
    "caption-odd-letters",
    "caption-not-latin",
    "caption-chatter",
    "near-duplicate",
    "eval-duplicate",
    "black",
    "frozen",
    "border",
    "no-pictures",
]

CODES: tuple[Code, ...] = get_args(Code)


@dataclass(frozen=True)
class Finding:
    """``detail`` says what was found at this clip; what the code means stands in ``KINDS``."""

    code: Code
    detail: str = ""


@dataclass(frozen=True)
class FindingKind:
    title: str
    advice: str


KINDS: dict[Code, FindingKind] = {
    "caption-missing": FindingKind(
        "No caption", "Write a .txt of the same name beside the clip, or let ltxtrain dataset caption write it."
    ),
    "caption-unreadable": FindingKind("Caption cannot be read", "Save the text file again as UTF-8."),
    "caption-long": FindingKind(
        "Caption longer than 128 tokens",
        "The text encoder reads 128 tokens and no more. Put what matters first, or shorten it.",
    ),
    "caption-short": FindingKind(
        "Caption of fewer than 3 words",
        "The model learnt from sentences: say who or what is seen, what it does, and where.",
    ),
    "caption-duplicate": FindingKind(
        "Same caption at several clips",
        "Clips that differ need captions that differ, or the model learns that words do not matter.",
    ),
    "caption-no-trigger": FindingKind(
        "Caption without the trigger word",
        "Put instance_prompt into the caption, or set prepend_instance_prompt.",
    ),
    "caption-odd-letters": FindingKind(
        "Letters that are no text",
        "Left over from a wrong encoding, from markup or from a template: write the words out.",
    ),
    "caption-not-latin": FindingKind(
        "Caption in a script that the text encoder does not know",
        "T5 was trained on English: other scripts become unknown tokens. Translate the caption.",
    ),
    "caption-chatter": FindingKind(
        "The caption talks about itself",
        "A captioning model's own words, not what is seen: take them out.",
    ),
    "near-duplicate": FindingKind(
        "Clips that look the same",
        "Keep one of them. What is there twice is learnt twice as strongly; repeats does that on purpose.",
    ),
    "eval-duplicate": FindingKind(
        "Looks like a clip of the other side",
        "A clip for evaluation that is trained on as well measures memory: take it out of one of the two.",
    ),
    "black": FindingKind("Black", "Take it out: there is nothing to be seen in it."),
    "frozen": FindingKind(
        "Nothing moves", "Take it out, or make it an image: from still clips the model learns to stand still."
    ),
    "border": FindingKind("Bars at the edges", "Cut them off before training: the model learns them as well."),
    "no-pictures": FindingKind(
        "Frames cannot be decoded", "The file opens, its pictures do not: encode it again, or take it out."
    ),
}
