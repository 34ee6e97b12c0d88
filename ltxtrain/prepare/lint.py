"""Captions that teach less than they could: missing, double, too short or long, or no text at all."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence

from ltxtrain.config import CaptionRule
from ltxtrain.prepare.findings import Finding
from ltxtrain.prepare.inspect_records import JudgedClip, Key

TokenCounter = Callable[[str], int]

MAX_TOKENS = 128  # what LTX-Video's pipelines give to T5
# One or two words are a label. T5 makes two or three tokens of them, and the other 125 places stay empty; the model
# was trained on descriptions of a sentence and more.
LEAST_WORDS = 3
NAMED = 3  # clips of one caption that are named; the others are counted
FOREIGN_PART = 0.3

# A Chinese, Japanese, Korean or Thai text has no blanks: each of its letters counts as a word.
_WORD = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+(?:['’-][^\W_]+)*")
# UTF-8 that was read as Windows-1252 and saved again; markup; and templates that nobody filled in.
_BROKEN = re.compile(r"Ã[\u0080-\u00bf]|â€[\u0080-\u00ff\u2018-\u2122\u0153]|Â[\u00a0-\u00bf]")
_MARKUP = re.compile(r"</?[A-Za-z][^<>]*>|&(?:[a-z]{2,8}|#\d{1,6});|\{\{?\w+\}?\}|<\|[^|<>]*\|>")
_CHATTER = re.compile(
    r"^\W*(?:i['’]?m sorry|sorry,|i can['’]?t |i cannot |i am unable|as an ai\b|here['’]s (?:a|the) caption"
    r"|here is (?:a|the) (?:\w+ )?caption|sure[,!]|certainly[,!]|of course[,!]|caption:)",
    re.IGNORECASE,
)


def estimated_tokens(text: str) -> int:
    """About how many tokens T5 makes of English: a third more than words, or one for 4.4 letters, and an end token."""
    return round(max(1.33 * len(_WORD.findall(text)), len(text) / 4.4)) + 1


def lint_captions(
    clips: Sequence[JudgedClip], rules: dict[str, CaptionRule], count_tokens: TokenCounter
) -> dict[Key, list[Finding]]:
    """Findings by clip; ``rules`` are those of each data set. A clip without any stands not in the result."""
    found: dict[Key, list[Finding]] = {}
    for clip in clips:
        own = _missing(clip) or _of_texts(clip.captions, rules[clip.dataset], count_tokens)
        if own:
            found[clip.key] = own
    for key, finding in _duplicates(clip for clip in clips if not _one_for_all(rules[clip.dataset])):
        found.setdefault(key, []).append(finding)
    return found


def _missing(clip: JudgedClip) -> list[Finding]:
    if clip.reason == "no-caption":
        return [Finding("caption-missing", clip.detail)]
    if clip.reason == "bad-caption":
        return [Finding("caption-unreadable", clip.detail)]
    return []


def _of_texts(captions: Sequence[str], rule: CaptionRule, count_tokens: TokenCounter) -> list[Finding]:
    """What is wrong with one of the alternatives stands once, with the first alternative that has it."""
    found: dict[str, Finding] = {}
    for caption in captions:
        for finding in _of_text(caption, rule, count_tokens):
            found.setdefault(finding.code, finding)
    return list(found.values())


def _of_text(caption: str, rule: CaptionRule, count_tokens: TokenCounter) -> Iterable[Finding]:
    words = len(_WORD.findall(caption))
    if words < LEAST_WORDS and not _one_for_all(rule):
        yield Finding("caption-short", f"{_quoted(caption)} has {words} word{'s' if words != 1 else ''}")
    if (tokens := count_tokens(caption)) > MAX_TOKENS:
        yield Finding("caption-long", f"{tokens} tokens; what follows the first {MAX_TOKENS} is not read")
    trigger = (rule.instance_prompt or "").strip()
    if trigger and not _holds(caption, trigger):
        yield Finding("caption-no-trigger", f"{_quoted(trigger)} is not in it")
    if odd := _odd_letters(caption):
        yield Finding("caption-odd-letters", odd)
    if (foreign := _foreign(caption)) > FOREIGN_PART:
        yield Finding("caption-not-latin", f"{100 * foreign:.0f} % of its letters")
    if match := _CHATTER.match(caption):
        yield Finding("caption-chatter", f"it begins with {_quoted(match[0])}")


def _holds(caption: str, trigger: str) -> bool:
    """As whole words: the trigger ``cat`` is not in ``category``."""
    return re.search(rf"(?<!\w){re.escape(trigger)}(?!\w)", caption, re.IGNORECASE) is not None


def _odd_letters(caption: str) -> str:
    if "\ufffd" in caption:
        return f"{_quoted(_around(caption, caption.index(chr(0xFFFD))))} holds a letter that was lost"
    if broken := _BROKEN.search(caption):
        return f"{_quoted(_around(caption, broken.start()))} was read in a wrong encoding"
    if markup := _MARKUP.search(caption):
        return f"{_quoted(markup[0])} is markup, or a place that was never filled in"
    odd = next((letter for letter in caption if unicodedata.category(letter) in ("Cc", "Co", "Cn", "Cs")), None)
    if odd is not None and odd not in "\n\t":
        return f"it holds U+{ord(odd):04X}, which stands for no letter"
    return ""


def _around(caption: str, place: int) -> str:
    return caption[max(0, place - 12) : place + 12].strip()


def _foreign(caption: str) -> float:
    """The part of the letters that are of no Latin alphabet."""
    letters = [letter for letter in caption if letter.isalpha()]
    foreign = sum(not (letter.isascii() or unicodedata.name(letter, "").startswith("LATIN")) for letter in letters)
    return foreign / len(letters) if letters else 0.0


def _duplicates(clips: Iterable[JudgedClip]) -> Iterable[tuple[Key, Finding]]:
    """Clips that share a caption with another clip; case, blanks and marks make no difference."""
    by_text: dict[str, dict[Key, None]] = {}
    for clip in clips:
        for caption in clip.captions:
            words = " ".join(_WORD.findall(caption.casefold()))
            if words:
                by_text.setdefault(words, {})[clip.key] = None
    told: set[Key] = set()
    for keys in by_text.values():
        if len(keys) < 2:
            continue
        names = [name for _, name in list(keys)[: NAMED + 1]]
        for key in keys:
            if key not in told:
                told.add(key)
                others = [name for name in names if name != key[1]][:NAMED]
                yield key, Finding("caption-duplicate", f"as {named(others, len(keys) - 1)}")


def named(names: Sequence[str], count: int) -> str:
    """``a.mp4, b.mp4 and 4 more``: a few names of so many."""
    more = count - len(names)
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")


def _one_for_all(rule: CaptionRule) -> bool:
    """Every clip has the same caption on purpose."""
    return rule.strategy == "instanceprompt" or rule.only_instance_prompt


def _quoted(text: str) -> str:
    return f"“{text if len(text) <= 40 else text[:39] + '…'}”"
