"""The estimate against what others measured on real cards (768x512x49 and 480 px x 49 frames, rank 16, batch 1)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ltxtrain.facts.models import KNOWN_MODELS
from ltxtrain.plan.memory import TrainingSetup, estimate_memory
from ltxtrain.plan.memory.phases import encode_lines, text_lines, training_lines
from ltxtrain.plan.records import Bucket

GIB = 1024**3
MODEL = KNOWN_MODELS["Lightricks/LTX-Video-0.9.5"]
SETUP = TrainingSetup(
    rank=16,
    targets=("to_k", "to_q", "to_v", "to_out.0"),
    weight_bytes=2,
    vae_bytes=2,
    batch_size=1,
    checkpointing=True,
    tiling=False,
    accelerator="cuda",
    validation=None,
)
# 480 px area and 49 frames: the 1,575 tokens of the published sweep.
PUBLISHED = Bucket(480, 480, 49)


def _gib(lines: list[tuple[str, int]]) -> float:
    return sum(size for _, size in lines) / GIB


@pytest.mark.parametrize(("checkpointing", "measured"), [(True, 4.21), (False, 8.77)])
def test_training_is_within_a_tenth_of_the_published_peaks(checkpointing: bool, measured: float) -> None:
    lines = training_lines(MODEL, PUBLISHED, replace(SETUP, checkpointing=checkpointing))
    assert PUBLISHED.tokens == 1575
    assert _gib(lines) == pytest.approx(measured, rel=0.1)


def test_text_phase_is_the_published_peak() -> None:
    assert _gib(text_lines(MODEL, SETUP)) == pytest.approx(8.92, rel=0.03)


def test_tiles_bound_the_encoder() -> None:
    wide = Bucket(1280, 704, 49)
    untiled, tiled = (_gib(encode_lines(MODEL, wide, replace(SETUP, tiling=tiling))) for tiling in (False, True))
    assert tiled < untiled / 2
    assert encode_lines(MODEL, PUBLISHED, SETUP) == [
        (name.removesuffix(" in tiles"), size)
        for name, size in encode_lines(MODEL, PUBLISHED, replace(SETUP, tiling=True))
    ]


def test_clips_too_large_for_one_pass_are_counted_in_tiles_unasked() -> None:
    large = Bucket(1280, 704, 121)
    assert encode_lines(MODEL, large, SETUP) == encode_lines(MODEL, large, replace(SETUP, tiling=True))
    assert any("in tiles" in name for name, _ in encode_lines(MODEL, large, SETUP))


def test_totals_are_sums_and_the_largest_bucket_counts() -> None:
    phases = estimate_memory(
        MODEL, [PUBLISHED, Bucket(768, 512, 121)], replace(SETUP, validation=Bucket(768, 512, 121))
    )
    assert [phase.phase for phase in phases] == ["text embeddings", "latents", "training", "validation", "loading"]
    for phase in phases:
        assert phase.total == sum(size for _, size in phase.lines) + phase.margin
        assert phase.margin > 0
    training = phases[2]
    assert any("768x512@121" in name for name, _ in training.lines)


def test_each_knob_moves_the_estimate_its_way() -> None:
    base = _gib(training_lines(MODEL, PUBLISHED, SETUP))
    assert _gib(training_lines(MODEL, PUBLISHED, replace(SETUP, batch_size=4))) > base
    # Weights and two moments in float32, and what adapters keep; gradients come as the activations go.
    more = _gib(training_lines(MODEL, PUBLISHED, replace(SETUP, rank=128))) - base
    assert 7 / 8 * 0.75 * 1.75 < more < 7 / 8 * 1.75 + 0.1
    assert _gib(training_lines(MODEL, PUBLISHED, replace(SETUP, weight_bytes=4))) > 1.8 * base
    large = KNOWN_MODELS["Lightricks/LTX-Video-0.9.7-dev"]
    assert _gib(training_lines(large, PUBLISHED, SETUP)) > 24


def test_the_largest_batch_counts_and_not_the_largest_clip() -> None:
    many, one = Bucket(480, 480, 49), Bucket(768, 512, 121)
    phases = estimate_memory(MODEL, [many, one], replace(SETUP, batches={many: 8, one: 1}))
    assert any("8 x 480x480@49" in name for name, _ in phases[2].lines)
    assert estimate_memory(MODEL, [many, one], SETUP)[2].lines[-2][0].startswith("activations of 1 x 768x512@121")


def test_clips_encoded_together_count_and_those_that_are_only_measured_do_too() -> None:
    alone = estimate_memory(MODEL, [PUBLISHED], SETUP)[1]
    four = estimate_memory(MODEL, [PUBLISHED], replace(SETUP, encoded={PUBLISHED: 4}))[1]
    assert dict(four.lines)["activations of 4 x 480x480@49"] == 4 * dict(alone.lines)["activations of 480x480@49"]
    measured = estimate_memory(MODEL, [PUBLISHED], replace(SETUP, encoded={Bucket(768, 512, 121): 1}))[1]
    assert any("768x512@121" in name for name, _ in measured.lines)


def test_encoding_on_demand_keeps_its_models_beside_the_transformer() -> None:
    plain = dict(estimate_memory(MODEL, [PUBLISHED], SETUP)[2].lines)
    latents = dict(estimate_memory(MODEL, [PUBLISHED], replace(SETUP, latents_on_demand=True))[2].lines)
    both = dict(
        estimate_memory(MODEL, [PUBLISHED], replace(SETUP, latents_on_demand=True, texts_on_demand=True))[2].lines
    )
    assert latents["weights of the VAE's encoder, on demand"] == MODEL.vae.encoder_params * 2
    assert both["text encoder weights, on demand"] == MODEL.text_params * 2
    activations = sum(size for _, size in encode_lines(MODEL, PUBLISHED, SETUP)[1:])
    step = sum(size for name, size in plain.items() if name.startswith("activations"))
    assert latents.get("activations of encoding, beyond the step's", 0) == max(0, activations - step)
    assert plain.items() <= latents.items() <= both.items()


def test_without_an_accelerator_everything_is_in_main_memory() -> None:
    phases = estimate_memory(MODEL, [PUBLISHED], replace(SETUP, accelerator="cpu"))
    assert {phase.device for phase in phases} == {"cpu"}
    assert "loading" not in {phase.phase for phase in phases}


def test_batches_that_are_measured_have_a_phase_of_their_own_without_what_a_backward_pass_needs() -> None:
    many = {PUBLISHED: 8, Bucket(768, 512, 121): 1}
    phases = estimate_memory(MODEL, [PUBLISHED], replace(SETUP, measured=many))
    assert [phase.phase for phase in phases] == ["text embeddings", "latents", "training", "evaluation", "loading"]
    [(name, size)] = [line for line in phases[3].lines if line[0].startswith("activations")]
    assert name == "activations of 8 x 480x480@49" and size > 0
    eight = dict(training_lines(MODEL, PUBLISHED, replace(SETUP, batch_size=8)))
    assert size < next(line for name, line in eight.items() if name.startswith("activations"))
    twice = estimate_memory(MODEL, [PUBLISHED], replace(SETUP, measured={PUBLISHED: 16}))[3]
    assert dict(twice.lines)["activations of 16 x 480x480@49"] == 2 * size


def test_states_in_main_memory_and_gradients_that_are_freed_early_come_off_the_device() -> None:
    """At rank 128 with AdamW on the clips of the published sweep; at rank 16 gradients come as activations go."""
    large = replace(SETUP, rank=128)
    moved, sent = replace(large, updates_in_main_memory=True), {"updates_in_main_memory": True, "gradients_early": True}
    weights = 4 * 128 * 28 * 8 * (2048 + 2048)  # eight layers in each of 28 blocks
    plain, there, freed, both = (
        dict(training_lines(MODEL, PUBLISHED, setup))
        for setup in (large, moved, replace(large, gradients_early=True), replace(large, **sent))
    )
    assert plain["adapter"] == there["adapter"] == weights
    assert plain["optimiser state"] == freed["optimiser state"] == 2 * weights
    assert "optimiser state" not in there and "optimiser state" not in both
    gradients = "adapter's gradients"
    assert plain[gradients] > there[gradients] > 0 and gradients not in freed and gradients not in both
    assert gradients not in dict(training_lines(MODEL, PUBLISHED, SETUP))
    summed = replace(moved, accumulation=2)
    assert dict(training_lines(MODEL, PUBLISHED, summed))[gradients] == weights
    *_, host = estimate_memory(MODEL, [PUBLISHED], moved)
    assert dict(host.lines)["optimiser state"] == dict(host.lines)["room for the optimiser's update"] == 2 * weights
    ragged = replace(moved, rank=96)  # page-locked for CUDA, it takes as much as rank 128 does
    locked = dict(estimate_memory(MODEL, [PUBLISHED], ragged)[-1].lines)
    plain = dict(training_lines(MODEL, PUBLISHED, replace(ragged, accelerator="cpu")))
    assert locked["room for the optimiser's update"] == 2 * weights
    assert plain["room for the optimiser's update"] == locked["optimiser state"] == 2 * weights * 96 // 128
    on_cpu = dict(training_lines(MODEL, PUBLISHED, replace(moved, accelerator="cpu")))
    assert on_cpu["optimiser state"] == on_cpu["room for the optimiser's update"] == 2 * weights
