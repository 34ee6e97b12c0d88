"""What the estimate needs to know of a configuration, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ltxtrain.plan.records import Bucket


@dataclass(frozen=True)
class Recompute:
    """How gradient checkpointing is done, where it is on.

    Pieces of ``interval`` blocks are recomputed, one begun at each ``stride``-th block; the last ``free_blocks`` keep
    their activations. With ``feed_forward`` only that part of each block is recomputed. With ``moved`` the inputs wait
    in main memory, and ``ahead`` fetches each before its turn.
    """

    interval: int = 1
    stride: int | None = None
    free_blocks: int = 0
    feed_forward: bool = False
    moved: bool = False
    ahead: bool = False


@dataclass(frozen=True)
class Offload:
    """What waits in main memory, or on disk, while it is not computed with.

    ``group`` is the number of blocks that move together, 0 for none; with ``leaves`` single layers move. ``swapped`` is
    the number of last blocks that move, where not all do. With ``ahead`` the next group is fetched while one computes.
    ``models``: the transformer makes room for the VAE while it decodes.
    """

    group: int = 0
    leaves: bool = False
    swapped: int = 0
    ahead: bool = False
    disk: bool = False
    text_encoder: bool = False
    vae: bool = False
    models: bool = False

    @property
    def moves_blocks(self) -> bool:
        return self.group > 0 or self.swapped > 0


@dataclass(frozen=True)
class TrainingSetup:
    """What the estimate needs of the configuration. ``*_bytes`` are bytes for each value of the weights.

    ``weight_bytes`` holds for all that is not quantised, and for what is computed. ``batches`` are clips in one batch
    of a bucket, where that is not ``batch_size``; ``measured`` are those in one batch of a set that is held out;
    ``encoded`` are clips that the VAE encodes at one time, where that is more than one, and ``texts`` captions. With
    ``*_on_demand`` training holds the VAE or the text encoder. ``timed``: tokens of one clip may have levels of noise
    of their own, as when the first frame is given. ``full``: the whole transformer is trained. ``dropout``: of what the
    adapter's layers are given, values are dropped.
    ``updates_in_main_memory``: the optimiser's states are there. ``gradients_early``: each is freed once it is there.
    """

    rank: int
    targets: tuple[str, ...]
    weight_bytes: int
    vae_bytes: int
    batch_size: int
    checkpointing: bool
    tiling: bool
    accelerator: str  # "cuda", "rocm", "mps" or "cpu"
    validation: Bucket | None
    batches: Mapping[Bucket, int] = field(default_factory=dict)
    measured: Mapping[Bucket, int] = field(default_factory=dict)
    encoded: Mapping[Bucket, int] = field(default_factory=dict)
    latents_on_demand: bool = False
    texts_on_demand: bool = False
    precision: str = "no_change"
    text_precision: str = "no_change"
    text_bytes: int | None = None  # where it is not weight_bytes
    text_half: bool = False  # float16, in which T5 keeps some layers in float32
    texts: int = 1
    recompute: Recompute = field(default_factory=Recompute)
    offload: Offload = field(default_factory=Offload)
    framewise: bool = False
    slicing: bool = False
    timed: bool = False
    full: bool = False
    dropout: bool = False
    accumulation: int = 1
    adapter_bytes: int = 4
    optimizer: str = "torch-adamw"
    optimizer_config: str | None = None
    updates_in_main_memory: bool = False
    gradients_early: bool = False
    guided: bool = True

    def batch_of(self, bucket: Bucket) -> int:
        return self.batches.get(bucket, self.batch_size)

    def encoded_of(self, bucket: Bucket) -> int:
        """Clips that one pass of the VAE's encoder takes in."""
        return 1 if self.slicing else self.encoded.get(bucket, 1)

    def pixels_encoded(self, bucket: Bucket) -> int:
        """Pixels that one pass of the VAE's encoder takes in: of one clip, or of several."""
        return bucket.width * bucket.height * bucket.frames * self.encoded_of(bucket)

    @property
    def text_weight_bytes(self) -> int:
        return self.weight_bytes if self.text_bytes is None else self.text_bytes
