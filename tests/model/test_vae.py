from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXPipeline, LTXVideoTransformer3DModel
from diffusers.video_processor import VideoProcessor

from ltxtrain.model.folder import ModelFolder
from ltxtrain.model.loading import Loading, load_vae
from ltxtrain.model.render import make_render_pipeline, to_frames
from ltxtrain.model.vae import encode_clips, to_pixels
from ltxtrain.plan.memory import in_groups, in_tiles
from ltxtrain.plan.records import Bucket


@pytest.fixture
def vae(tiny: ModelFolder) -> AutoencoderKLLTXVideo:
    return load_vae(tiny, Loading(torch.float32))


def make_frames(frames: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


# All 256 values, each in several places of each frame.
EVERY_VALUE = np.arange(9 * 32 * 32 * 3, dtype=np.int64).astype(np.uint8).reshape(9, 32, 32, 3)


def encoded(vae: AutoencoderKLLTXVideo, frames_FHWC: np.ndarray, *, tiled: bool = False) -> torch.Tensor:
    return encode_clips(vae, [frames_FHWC], tiled=tiled)[0]


def wrong_range(frames_FHWC: np.ndarray) -> torch.Tensor:
    """What a trainer does that forgets the range: [0, 1], as an image library's tensors come."""
    return to_pixels(frames_FHWC) / 2 + 0.5


@pytest.mark.parametrize(("prepare", "survives"), [(to_pixels, True), (wrong_range, False)])
def test_the_way_to_the_vae_and_back_is_the_identity_on_frames(
    prepare: Callable[[np.ndarray], torch.Tensor], survives: bool
) -> None:
    pixels_BCFHW = prepare(EVERY_VALUE)
    assert pixels_BCFHW.shape == (1, 3, 9, 32, 32)
    video_BFHWC = VideoProcessor(vae_scale_factor=32).postprocess_video(pixels_BCFHW, output_type="np")
    back_FHWC = (video_BFHWC[0] * 255).round().astype(np.uint8)
    assert np.array_equal(back_FHWC, EVERY_VALUE) is survives


FOLDED_CHANNELS = 3 * 8 * 32 * 32


class FoldingVae(torch.nn.Module):
    """An autoencoder that loses nothing: it folds eight frames of 32x32 pixels into the channels of one latent cell.

    The rest is the real one's: the first frame stands alone, latents have statistics, pixels are in [-1, 1]. So what
    comes back differs from what went in only by what was done around it.
    """

    spatial_compression_ratio, temporal_compression_ratio = 32, 8
    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.config = SimpleNamespace(scaling_factor=1.0, timestep_conditioning=False)
        self.latents_mean = torch.randn(FOLDED_CHANNELS, generator=generator)
        self.latents_std = torch.rand(FOLDED_CHANNELS, generator=generator) + 0.5

    def encode(self, pixels_BCFHW: torch.Tensor) -> SimpleNamespace:
        padded_BCFHW = torch.cat([pixels_BCFHW[:, :, :1]] * 7 + [pixels_BCFHW], 2)
        cells = padded_BCFHW.unflatten(2, (-1, 8)).unflatten(4, (-1, 32)).unflatten(6, (-1, 32))
        latents_BCFHW = cells.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4)
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latents_BCFHW))

    def decode(self, latents_BCFHW: torch.Tensor, timestep: None, return_dict: bool) -> tuple[torch.Tensor]:
        cells = latents_BCFHW.unflatten(1, (3, 8, 32, 32)).permute(0, 1, 5, 2, 6, 3, 7, 4)
        return (cells.flatten(6, 7).flatten(4, 5).flatten(2, 3)[:, :, 7:],)


@pytest.fixture
def standstill() -> LTXPipeline:
    """The whole pipeline around a real transformer whose velocity is zero: the latents that it is given, it decodes."""
    transformer = LTXVideoTransformer3DModel(
        in_channels=FOLDED_CHANNELS,
        out_channels=FOLDED_CHANNELS,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=1,
        caption_channels=8,
    )
    torch.nn.init.zeros_(transformer.proj_out.weight)
    torch.nn.init.zeros_(transformer.proj_out.bias)
    pipeline = make_render_pipeline(transformer, FoldingVae(), FlowMatchEulerDiscreteScheduler())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize(("prepare", "survives"), [(to_pixels, True), (wrong_range, False)])
def test_frames_survive_encoding_and_the_pipelines_own_way_back(
    standstill: LTXPipeline,
    monkeypatch: pytest.MonkeyPatch,
    prepare: Callable[[np.ndarray], torch.Tensor],
    survives: bool,
) -> None:
    monkeypatch.setattr("ltxtrain.model.vae.to_pixels", prepare)
    frames_FHWC = make_frames(17, 64, 96)
    latents_CFHW = encoded(standstill.vae, frames_FHWC)
    assert latents_CFHW.shape == (FOLDED_CHANNELS, 3, 2, 3)
    video = standstill(
        latents=LTXPipeline._pack_latents(latents_CFHW[None], 1, 1),
        prompt_embeds=torch.zeros(1, 128, 8),
        prompt_attention_mask=torch.ones(1, 128, dtype=torch.bool),
        width=96,
        height=64,
        num_frames=17,
        num_inference_steps=2,
        guidance_scale=1.0,
        output_type="np",
    ).frames[0]
    apart = np.abs(to_frames(video).astype(int) - frames_FHWC.astype(int)).max()
    assert apart <= 1 if survives else apart > 100


def test_the_encoder_is_given_minus_one_to_one(vae: AutoencoderKLLTXVideo) -> None:
    given: list[torch.Tensor] = []
    vae.encoder.register_forward_pre_hook(lambda _, arguments: given.append(arguments[0]))
    encoded(vae, EVERY_VALUE)
    assert (given[0].min().item(), given[0].max().item()) == (-1.0, 1.0)
    assert given[0][0, :, 3, 5, 7].tolist() == pytest.approx([value / 127.5 - 1 for value in EVERY_VALUE[3, 5, 7]])


def test_latents_are_the_mode_normalised_with_the_vaes_own_statistics(vae: AutoencoderKLLTXVideo) -> None:
    generator = torch.Generator().manual_seed(1)
    vae.latents_mean.copy_(torch.randn(128, generator=generator))
    vae.latents_std.copy_(torch.rand(128, generator=generator) + 0.5)
    frames_FHWC = make_frames(9, 64, 96)
    with torch.no_grad():
        moments_BCFHW = vae.encoder(torch.from_numpy(frames_FHWC).permute(3, 0, 1, 2)[None].float() / 255 * 2 - 1)
    mean_CFHW = moments_BCFHW[0, :128]
    expected_CFHW = torch.stack([(mean_CFHW[c] - vae.latents_mean[c]) / vae.latents_std[c] for c in range(128)])
    latents_CFHW = encoded(vae, frames_FHWC)
    assert latents_CFHW.shape == (128, 2, 2, 3)
    torch.testing.assert_close(latents_CFHW, expected_CFHW)
    assert torch.equal(latents_CFHW, encoded(vae, frames_FHWC))


@pytest.mark.parametrize(
    ("frames", "height", "width"), [(8, 64, 64), (10, 64, 64), (16, 64, 64), (9, 48, 64), (9, 64, 40)]
)
def test_sizes_that_the_vae_would_floor_are_refused(
    vae: AutoencoderKLLTXVideo, frames: int, height: int, width: int
) -> None:
    with pytest.raises(ValueError, match=r"8k\+1 frames and multiples of 32"):
        encoded(vae, make_frames(frames, height, width))


def test_flags_that_a_vae_was_left_with_change_nothing(vae: AutoencoderKLLTXVideo) -> None:
    frames_FHWC = make_frames(17, 32, 576)  # longer than one piece and wider than one tile of the library
    fresh_CFHW = encoded(vae, frames_FHWC)
    pixels_BCFHW = to_pixels(frames_FHWC)
    vae.use_framewise_decoding = vae.use_framewise_encoding = vae.use_slicing = True
    vae.enable_tiling(64, 64, 8, 32, 32, 8)
    with torch.no_grad():
        by_the_flags_BCFHW = vae.encode(pixels_BCFHW).latent_dist.mode()
    again_CFHW = encoded(vae, frames_FHWC)
    assert torch.equal(again_CFHW, fresh_CFHW)
    # The flags do matter where nobody sets them.
    mean, std = vae.latents_mean[:, None, None, None], vae.latents_std[:, None, None, None]
    assert not torch.allclose((by_the_flags_BCFHW[0] - mean) / std, fresh_CFHW, atol=1e-3)


def test_tiles_are_those_of_the_library_whatever_was_set_before(tiny: ModelFolder, vae: AutoencoderKLLTXVideo) -> None:
    frames_FHWC = make_frames(9, 64, 576)
    library = load_vae(tiny, Loading(torch.float32))
    library.enable_tiling()
    with torch.no_grad():
        mode_BCFHW = library.encode(to_pixels(frames_FHWC)).latent_dist.mode()
    expected_BCFHW = LTXPipeline._normalize_latents(mode_BCFHW, library.latents_mean, library.latents_std, 1.0)
    vae.enable_tiling(64, 64, 8, 32, 32, 8)
    tiled_CFHW = encoded(vae, frames_FHWC, tiled=True)
    assert torch.equal(tiled_CFHW, expected_BCFHW[0])
    assert not torch.equal(tiled_CFHW, encoded(vae, frames_FHWC))


def test_tiles_are_used_when_asked_for_and_for_large_clips() -> None:
    assert not in_tiles(Bucket(768, 512, 161), False)
    assert in_tiles(Bucket(800, 512, 161), False)
    assert in_tiles(Bucket(64, 64, 9), True)


def test_groups_of_frames_are_those_of_the_library_whatever_was_set_before(
    tiny: ModelFolder, vae: AutoencoderKLLTXVideo
) -> None:
    frames_FHWC = make_frames(33, 64, 64)
    library = load_vae(tiny, Loading(torch.float32))
    library.use_framewise_decoding = True  # the flag that encoding looks at
    with torch.no_grad():
        mode_BCFHW = library.encode(to_pixels(frames_FHWC)).latent_dist.mode()
    expected_BCFHW = LTXPipeline._normalize_latents(mode_BCFHW, library.latents_mean, library.latents_std, 1.0)
    vae.enable_tiling(64, 64, 8, 32, 32, 8)
    lengths: list[int] = []
    vae.encoder.register_forward_pre_hook(lambda _, given: lengths.append(given[0].shape[2]))
    in_groups_CFHW = encode_clips(vae, [frames_FHWC], tiled=False, framewise=True)[0]
    assert torch.equal(in_groups_CFHW, expected_BCFHW[0]) and max(lengths) == 17 < 33
    whole_CFHW = encoded(vae, frames_FHWC)
    assert not torch.equal(in_groups_CFHW, whole_CFHW) and lengths[-1] == 33
    # The first group's own latents know of nothing else in either way.
    torch.testing.assert_close(in_groups_CFHW[:, :3], whole_CFHW[:, :3])


def test_a_clip_that_is_a_single_group_is_encoded_in_one_pass(vae: AutoencoderKLLTXVideo) -> None:
    assert in_groups(Bucket(64, 64, 25), True) and not in_groups(Bucket(64, 64, 25), False)
    assert not in_groups(Bucket(64, 64, 17), True)
    frames_FHWC = make_frames(17, 64, 64)
    in_groups_CFHW = encode_clips(vae, [frames_FHWC], tiled=False, framewise=True)[0]
    torch.testing.assert_close(in_groups_CFHW, encoded(vae, frames_FHWC))


def test_latents_come_in_the_dtype_of_the_vae(tiny: ModelFolder) -> None:
    latents_CFHW = encoded(load_vae(tiny, Loading(torch.bfloat16)), make_frames(9, 64, 64))
    assert latents_CFHW.dtype == torch.bfloat16
    assert bool(torch.isfinite(latents_CFHW).all())


def test_denormalised_latents_decode_to_the_size_of_the_clip(vae: AutoencoderKLLTXVideo) -> None:
    latents_CFHW = encoded(vae, make_frames(17, 64, 96))
    denormalised_BCFHW = LTXPipeline._denormalize_latents(latents_CFHW[None], vae.latents_mean, vae.latents_std, 1.0)
    with torch.no_grad():
        video_BCFHW = vae.decode(denormalised_BCFHW, torch.zeros(1)).sample
    assert video_BCFHW.shape == (1, 3, 17, 64, 96)
