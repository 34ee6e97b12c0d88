"""How many floating-point operations a training step takes: counted from the sizes of the model, without torch.

Only matrix products and attention are counted, a multiplication and an addition as two. A layer whose input leads to
nothing trained takes no gradient for it, and a frozen layer none for its weights: so a LoRA's backward pass costs
about as much as the forward pass, not twice as much.
"""

from __future__ import annotations

from dataclasses import dataclass

from ltxtrain.facts.models import TransformerFacts

TEXT_TOKENS = 128
TIME_CHANNELS = 256  # the sinusoids of the timestep, in diffusers' class


@dataclass(frozen=True)
class Trained:
    """What learns: LoRA factors of ``rank`` on the linear layers that ``targets`` name; rank 0 is every weight."""

    rank: int
    targets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Flops:
    """Of one sample. ``block`` is the forward pass of one block, which recomputing it in the backward pass repeats."""

    forward: float
    backward: float
    block: float

    @property
    def useful(self) -> float:
        """What a step has to compute; what checkpointing recomputes is no use."""
        return self.forward + self.backward


def sample_flops(model: TransformerFacts, tokens: int, trained: Trained, text_tokens: int = TEXT_TOKENS) -> Flops:
    """Forward and backward pass of one sample of ``tokens`` latent tokens through LTX's video transformer."""
    count = _Count(trained)
    width = model.width
    time = count.linear("time_embed.emb.timestep_embedder.linear_1", 1, (TIME_CHANNELS, width), live=False)
    time = count.linear("time_embed.emb.timestep_embedder.linear_2", 1, (width, width), live=time)
    time = count.linear("time_embed.linear", 1, (width, 6 * width), live=time)
    text = count.linear("caption_projection.linear_1", text_tokens, (model.caption_channels, width), live=False)
    text = count.linear("caption_projection.linear_2", text_tokens, (width, width), live=text)
    hidden = count.linear("proj_in", tokens, (model.latent_channels, width), live=False)
    before = count.forward
    for index in range(model.layers):
        live = (hidden or time, text)
        hidden = _block(count, f"transformer_blocks.{index}", model, (tokens, text_tokens), live) or hidden or time
    block = (count.forward - before) / model.layers
    count.linear("proj_out", tokens, (width, model.latent_channels), live=hidden)
    return Flops(count.forward, count.backward, block)


def _block(
    count: _Count, name: str, model: TransformerFacts, lengths: tuple[int, int], live: tuple[bool, bool]
) -> bool:
    """Both attentions and the feed-forward. ``live`` is of the tokens and of the caption, as the result is."""
    width, (tokens, text_tokens) = model.width, lengths
    hidden, text = live
    for attention, length, context, seen in (
        ("attn1", tokens, width, hidden),
        ("attn2", text_tokens, model.cross_width, text),
    ):
        at = f"{name}.{attention}"
        query = count.linear(f"{at}.to_q", tokens, (width, width), live=hidden)
        key, value = (count.linear(f"{at}.{part}", length, (context, width), live=seen) for part in ("to_k", "to_v"))
        found = count.attention(tokens, length, width, live=(query, key, value))
        hidden = count.linear(f"{at}.to_out.0", tokens, (width, width), live=found) or hidden
    inner = count.linear(f"{name}.ff.net.0.proj", tokens, (width, 4 * width), live=hidden)
    return count.linear(f"{name}.ff.net.2", tokens, (4 * width, width), live=inner) or hidden


class _Count:
    """Adds up. ``live`` everywhere means: a gradient is wanted."""

    def __init__(self, trained: Trained) -> None:
        self._trained = trained
        self.full = trained.rank == 0
        self.forward = self.backward = 0.0

    def linear(self, name: str, rows: int, shape: tuple[int, int], *, live: bool) -> bool:
        """A layer of (inputs, outputs) on ``rows`` tokens, with the adapter on it. Whether its result is live."""
        inputs, outputs = shape
        self._product(rows * inputs * outputs, self.full + live)
        adapted = not self.full and any(
            name == target or name.endswith(f".{target}") for target in self._trained.targets
        )
        if adapted:
            self._product(rows * inputs * self._trained.rank, 1 + live)
            self._product(rows * self._trained.rank * outputs, 2)
        return live or adapted or self.full

    def attention(self, rows: int, length: int, width: int, *, live: tuple[bool, bool, bool]) -> bool:
        """Forward the scores and their use. Backward one product each for what leads to q, k and v, and one for the
        scores where q or k wants it: four in all. Flash attention's computing the scores again is its own affair."""
        query, key, value = live
        product = 2 * rows * length * width
        self.forward += 2 * product
        self.backward += product * (query + key + value + (query or key))
        return query or key or value

    def _product(self, size: int, gradients: int) -> None:
        """One matrix product, and as many of the same size in the backward pass."""
        self.forward += 2 * size
        self.backward += 2 * size * gradients
