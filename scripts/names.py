"""The text of docs/names.md: what becomes of every name that a number format, an optimiser or an attention may have."""

from __future__ import annotations

from collections.abc import Iterable

from ltxtrain.config.attentions import ATTENTIONS, Attention
from ltxtrain.config.formats import FORMATS, Format
from ltxtrain.config.optimizers import OPTIMIZERS, OptimizerFacts
from ltxtrain.config.verdicts import EVERYWHERE, Verdict

INTRODUCTION = """# Names and their verdicts

Every documented name of a number format, an optimiser and a way of computing attention: where it works, and why not
where it does not. A name that is refused is refused before anything is loaded, with the name that stands under
"instead" here. [memory.md](memory.md) tells which to take.

"NVIDIA from 8.9" is a compute capability: 8.0 is A100, 8.6 RTX 30, 8.9 RTX 40, 9.0 H100, 10 and 12 Blackwell. Packages
under "needs" are installed with the program where they are in its lists; those of attention are not.

This page is written by `make docs` from the tables that the program itself uses; do not edit it.
"""
FORMATS_TEXT = """## Number formats

Values of `base_model_precision` and `text_encoder_1_precision`. Only the linear layers inside the blocks are kept in
the format; "bytes" are those of one weight in it with its share of scales, and "error" is how far normally distributed
weights come back from what they were in bf16.
"""
OPTIMIZERS_TEXT = """## Optimisers

Values of `optimizer`. "State" is bytes for each trained value; "settings" are what `optimizer_config` takes, with their
defaults, and "betas" those of `optimizer_beta1` and `optimizer_beta2`. Where gradients are not clipped, the optimiser
bounds its updates itself.
"""
ATTENTIONS_TEXT = """## Attention

Values of `attention_mechanism`. A back end without a backward pass is used for validation alone.
"""
MAKERS = {"cuda": "NVIDIA", "rocm": "AMD", "mps": "Apple", "cpu": "CPU"}


def names_page() -> str:
    return "\n".join(
        (
            INTRODUCTION,
            FORMATS_TEXT,
            table(
                ("name", "works on", "bytes", "error", "needs", "to know", "instead"),
                (_format_row(name, known) for name, known in FORMATS.items()),
            ),
            OPTIMIZERS_TEXT,
            table(
                ("name", "works on", "adapter in", "state", "betas", "settings", "needs", "to know", "instead"),
                (_optimizer_row(name, known) for name, known in OPTIMIZERS.items()),
            ),
            ATTENTIONS_TEXT,
            table(
                ("name", "works on", "needs", "to know", "instead"),
                (_attention_row(name, known) for name, known in ATTENTIONS.items()),
            ),
        )
    )


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = (head, tuple("---" for _ in head), *rows)
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _format_row(name: str, known: Format) -> tuple[str, ...]:
    size = "" if known.verdict.refused else f"{known.bytes_per_value:.4g}"
    error = f"{100 * known.error:.1f} %" if known.quantised else ""
    return (_code(name), _where(known.verdict), size, error, *_verdict(known.verdict))


def _optimizer_row(name: str, known: OptimizerFacts) -> tuple[str, ...]:
    if known.verdict.refused:
        return (_code(name), _where(known.verdict), "", "", "", "", *_verdict(known.verdict))
    settings = ", ".join(_code(f"{setting}={_plain(value)}") for setting, value in known.settings.items())
    betas = ", ".join(f"{beta:g}" for beta in known.betas or ())
    needs, why, instead = _verdict(known.verdict)
    unclipped = "" if known.clips else "gradients are not clipped"
    why = "; ".join(part for part in (why, unclipped, "each step waits for the GPU" if known.waits else "") if part)
    state = known.state_words or f"{known.state:.4g}"
    return (_code(name), _where(known.verdict), known.dtype, state, betas, settings, needs, why, instead)


def _attention_row(name: str, known: Attention) -> tuple[str, ...]:
    needs, why, instead = _verdict(known.verdict)
    limits = "" if known.trains or not known.backend else "validation alone"
    half = "bf16 and fp16 alone" if known.half else ""
    told = "; ".join(part for part in (why, "" if "validation alone" in why else limits, half) if part)
    return (_code(name), _where(known.verdict), needs, told, instead)


def _where(verdict: Verdict) -> str:
    if verdict.refused:
        return "*refused*"
    least = f" from {verdict.capability[0]}.{verdict.capability[1]}" if verdict.capability else ""
    if verdict.on == EVERYWHERE and not least:
        return "everywhere"
    return ", ".join(MAKERS[device] + (least if device == "cuda" else "") for device in verdict.on)


def _verdict(verdict: Verdict) -> tuple[str, str, str]:
    needs = _code(verdict.needs) if verdict.needs else ""
    first, _, rest = verdict.instead.partition(",")
    names = " or ".join(_code(word) for word in first.split(" or ")) if first else ""
    return needs, verdict.why, names + (f",{rest}" if rest else "")


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _code(text: str) -> str:
    return f"`{text}`"
