"""Why a clip is not trained on: the closed list of codes. They stand in the run folder, so they stay stable."""

from __future__ import annotations

from typing import Literal, get_args

Reason = Literal[
    "unreadable",
    "empty",
    "not-video",
    "not-image",
    "damaged",
    "no-video",
    "too-large",
    "too-slow",
    "crashed",
    "outside-folder",
    "missing-file",
    "no-row",
    "no-caption",
    "bad-caption",
    "quarantined",
    "too-short",
    "too-long",
    "too-small",
    "wrong-shape",
    "small-bucket",
    "over-limit",
]

REASONS: tuple[Reason, ...] = get_args(Reason)

EXPLANATIONS: dict[Reason, str] = {
    "unreadable": "the file cannot be opened",
    "empty": "the file holds no bytes",
    "not-video": "the content is no video container, whatever the name says",
    "not-image": "the content is no image that is known here, whatever the name says",
    "damaged": "the file is cut off or its frames do not decode",
    "no-video": "no video stream that can be decoded",
    "too-large": "more pixels, frames or memory than this program will open",
    "too-slow": "opening it took longer than the limit",
    "crashed": "the process that opened it died",
    "outside-folder": "a link that leads out of the dataset's folder",
    "missing-file": "a table names it, and no such file is there",
    "no-row": "the table has no row for it",
    "no-caption": "no caption, or an empty one",
    "bad-caption": "the caption cannot be read as UTF-8 text",
    "quarantined": "on the quarantine list since an earlier run, and not changed",
    "too-short": "fewer frames than the dataset asks for",
    "too-long": "more frames than max_frames",
    "too-small": "smaller than minimum_image_size",
    "wrong-shape": "outside minimum_aspect_ratio..maximum_aspect_ratio",
    "small-bucket": "its bucket holds too few clips for one optimiser step",
    "over-limit": "not in the subset of max_num_samples",
}

# What the user's settings say. With all others something is wrong with the file, or with what belongs to it.
CHOSEN: tuple[Reason, ...] = ("too-short", "too-long", "too-small", "wrong-shape", "small-bucket", "over-limit")
FAULTY: tuple[Reason, ...] = tuple(reason for reason in REASONS if reason not in CHOSEN)
