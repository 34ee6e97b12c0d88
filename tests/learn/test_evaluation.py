"""When the evaluation loss is due, and at which noise it is measured."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.ltx.pipeline_ltx import calculate_shift, retrieve_timesteps

from ltxtrain.config.validation import ValidationConfig
from ltxtrain.learn.batch import Clean, Drawn
from ltxtrain.learn.evaluation import evaluation_due, evaluation_events, inference_sigmas, measure
from ltxtrain.plan.order import Batch
from ltxtrain.plan.records import Bucket, Sample

LTX = {"base_image_seq_len": 1024, "base_shift": 0.95, "max_image_seq_len": 4096, "max_shift": 2.05}


def due(total: int, per_epoch: Fraction, **settings: object) -> list[int]:
    section = ValidationConfig(**settings)
    return [step for step in range(total + 1) if evaluation_due(section, step, total, lambda n: n / per_epoch)]


def test_both_ends_are_measured_and_each_interval() -> None:
    assert due(10, Fraction(4)) == [0, 10]
    assert due(10, Fraction(4), eval_steps_interval=3) == [0, 3, 6, 9, 10]
    assert due(10, Fraction(4), eval_epoch_interval=0.5) == [0, 2, 4, 6, 8, 10]
    assert due(10, Fraction(4), eval_steps_interval=3, eval_epoch_interval=1) == [0, 3, 4, 6, 8, 9, 10]
    assert due(12, Fraction(5), eval_epoch_interval=0.5) == [0, 3, 5, 8, 10, 12]
    assert due(10, Fraction(1, 3), eval_epoch_interval=0.1) == list(range(11)), "never more than once a step"


def test_tenths_of_an_epoch_do_not_drift() -> None:
    assert due(100, Fraction(10), eval_epoch_interval=0.1) == list(range(101))
    assert due(100, Fraction(10), eval_epoch_interval=0.7) == [0, *range(7, 100, 7), 100]


@pytest.mark.parametrize("shift_terminal", [None, 0.1])
def test_sigmas_are_those_of_the_pipeline_that_renders(shift_terminal: float | None) -> None:
    settings = LTX | {"use_dynamic_shifting": True, "shift_terminal": shift_terminal}
    tokens = Bucket(640, 448, 121).tokens
    scheduler = FlowMatchEulerDiscreteScheduler(**settings)
    mu = calculate_shift(
        tokens, LTX["base_image_seq_len"], LTX["max_image_seq_len"], LTX["base_shift"], LTX["max_shift"]
    )
    even = [1 - index * (1 - 1 / 28) / 27 for index in range(28)]
    timesteps, _ = retrieve_timesteps(scheduler, 28, "cpu", sigmas=even, mu=mu)
    found = inference_sigmas(FlowMatchEulerDiscreteScheduler(**settings), LTX, 28, tokens)
    assert found == pytest.approx((timesteps / 1000).tolist(), rel=1e-5)


def test_one_sigma_alone_is_noise_alone() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(**LTX, use_dynamic_shifting=True, shift_terminal=0.1)
    assert inference_sigmas(scheduler, LTX, 1, 4096) == [1.0]


class Shelf:
    """Latents that tell whose they are."""

    def latents(self, sample: Sample) -> torch.Tensor:
        return torch.full((2, 1, 2, 2), float(sample.path))

    def prompt(self, text: str) -> dict[str, torch.Tensor]:
        return {"embeds": torch.zeros(1, 1), "mask": torch.ones(1, dtype=torch.bool)}


def batch(*names: str) -> Batch:
    bucket = Bucket(64, 64, 1)
    samples = [Sample(f"a/{name}", "a", name, ("x", "y"), 0, 25, bucket, (64, 64), (0, 0), 0, True) for name in names]
    return Batch(0, 0, tuple(samples), "a")


def test_noise_is_fixed_for_each_clip_and_sigma_whatever_it_is_batched_with() -> None:
    def noises(found: Batch) -> dict[tuple[str, float], torch.Tensor]:
        seen = {}

        def losses(clean: Clean, drawn: Drawn) -> torch.Tensor:
            assert not any(drawn.conditioned) and not torch.is_grad_enabled()
            for sample, noise, sigma in zip(found.samples, drawn.noise_BCFHW, drawn.sigmas, strict=True):
                seen[sample.path, sigma] = noise
            return clean.latents_BCFHW.mean(dim=(1, 2, 3, 4)) * drawn.sigmas[0]

        torch.manual_seed(len(found.samples))
        before = torch.get_rng_state()
        measured = measure(found, Shelf(), [0.5, 0.25], losses)
        assert torch.equal(before, torch.get_rng_state()) and torch.is_grad_enabled()
        assert measured == [(sigma, float(s.path) * sigma) for sigma in (0.5, 0.25) for s in found.samples]
        return seen

    together, alone = noises(batch("1", "2", "3")), noises(batch("2"))
    assert all(torch.equal(together[key], alone[key]) for key in alone)
    assert len({tuple(noise.flatten().tolist()) for noise in together.values()}) == 6


def test_figures_are_means_over_clips_and_sigmas_and_the_pooled_one_counts_clips() -> None:
    few, many = [(0.5, 1.0), (1.0, 2.0)], [(0.5, 3.0), (0.5, 5.0), (1.0, 1.0), (1.0, 3.0)]
    events = evaluation_events(7, {"few": (few, 1.0), "many": (many, 2.0)}, pooled=True)
    assert [(event.step, event.dataset, event.loss, event.seconds) for event in events] == [
        (7, "few", 1.5, 1.0),
        (7, "many", 3.0, 2.0),
        (7, "all data sets", 2.5, 3.0),
    ]
    assert events[1].by_sigma == {"0.500": 4.0, "1.000": 2.0}
    assert len(evaluation_events(7, {"few": (few, 1.0)}, pooled=False)) == 1
