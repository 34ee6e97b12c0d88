"""What training aims at: the draw of sigma, the loss, and the two extra objectives of the guides."""

from __future__ import annotations

from typing import Any, Literal

from ltxtrain.config.option import Fraction, LocalPath, Section, option


class ObjectiveConfig(Section):
    flow_schedule_shift: float | None = option(
        None, "Shift sigma towards noise (above 1) or detail (below 1); not set, 0 and 1 mean no shift.", ge=0, le=100
    )
    flow_schedule_auto_shift: bool = option(False, "Shift sigma by the size of the video: larger, more noise.")
    flow_sigmoid_scale: float = option(1.0, "The width of the logit-normal draw of sigma.", gt=0)
    flow_use_uniform_schedule: bool = option(False, "Draw sigma evenly between 0 and 1.")
    flow_use_beta_schedule: bool = option(False, "Draw sigma from a beta distribution.")
    flow_beta_schedule_alpha: float = option(2.0, "The alpha of the beta distribution.", gt=0)
    flow_beta_schedule_beta: float = option(2.0, "The beta of the beta distribution.", gt=0)
    flow_custom_timesteps: tuple[float, ...] | None = option(
        None, "Train on these timesteps only: values up to 1 are sigmas, larger ones timesteps of 1000."
    )
    flow_timesteps_mode: Literal["fixed-list", "round-robin"] = option(
        "fixed-list", "Pick from flow_custom_timesteps at random or in turn."
    )
    flow_cubic_schedule_weights: tuple[float, ...] | None = option(None, "Weights of a cubic draw of sigma.")
    mixflow_enabled: bool = option(False, "Draw sigma from a mixture.")
    ltx_train_mode: Literal["i2v", "t2v"] = option(
        "i2v", "What is taught: i2v also goes on from a first frame, t2v starts from text alone."
    )
    ltx_i2v_prob: Fraction = option(0.1, "How often the first frame is given clean, in i2v mode.")
    ltx_protect_first_frame: bool = option(False, "Always give the first frame clean.")
    ltx_partial_noise_fraction: Fraction = option(0.05, "How much noise a given first frame still gets.")
    loss_type: Literal["l2", "huber", "smooth_l1"] = option("l2", "How the error of the velocity is measured.")
    huber_c: float = option(0.1, "Where the Huber loss turns from square to linear.", gt=0)
    huber_schedule: Literal["constant", "exponential", "snr"] = option("snr", "How huber_c changes with noise.")
    input_perturbation: float = option(0.0, "Extra noise on the input of the model.", ge=0)
    input_perturbation_steps: int = option(0, "Fade the extra noise out over this many steps.", ge=0)
    snr_gamma: float | None = option(None, "Weigh the loss by signal-to-noise; not for flow models.", gt=0)
    masked_loss_probability: Fraction = option(
        0.0, "How often a mask limits the loss; not for LTX-Video.", documented=1.0
    )
    distillation_config: dict[str, Any] | LocalPath | None = option(None, "Distil from a teacher as described here.")


class CrepaConfig(Section):
    crepa_enabled: bool = option(False, "Align neighbouring frames with a vision model (CREPA): less flicker.")
    crepa_block_index: int = option(8, "The block whose output is aligned, counted from 0.", ge=0, le=27)
    crepa_lambda: float = option(0.5, "The weight of the alignment.", ge=0)
    crepa_adjacent_distance: int = option(1, "How far away a neighbouring frame may be.", ge=0)
    crepa_adjacent_tau: float = option(1.0, "How fast the weight of a neighbour falls with distance.", gt=0)
    crepa_cumulative_neighbors: bool = option(False, "Use all neighbours up to the distance, not only those at it.")
    crepa_normalize_neighbour_sum: bool = option(False, "Divide by the sum of the neighbours' weights.")
    crepa_normalize_by_frames: bool = option(True, "Divide by the number of frames.")
    crepa_spatial_align: bool = option(True, "Align place by place; otherwise frame by frame.")
    crepa_encoder: str = option("dinov2_vitg14", "The vision model.")
    crepa_encoder_image_size: int = option(518, "The edge of the frames that the vision model sees, in pixels.", ge=14)
    crepa_encoder_frames_batch_size: int = option(-1, "Frames per pass of the vision model; -1 is all.", ge=-1)
    crepa_drop_vae_encoder: bool = option(False, "Drop the VAE's encoder to save memory; every clip must be cached.")
    crepa_use_tae: bool = option(False, "Decode with a tiny decoder.")
    crepa_feature_source: Literal["encoder", "backbone", "self_flow"] = option(
        "encoder", "Where the features to align with come from."
    )
    crepa_use_backbone_features: bool = option(False, "Align with the model's own features.")
    crepa_teacher_block_index: int | None = option(None, "The block that teaches, with backbone features.", ge=0, le=27)
    crepa_scheduler: Literal["constant", "linear", "cosine", "polynomial"] = option(
        "constant", "How the weight changes over the run."
    )
    crepa_warmup_steps: int = option(0, "Raise the weight over this many steps.", ge=0)
    crepa_decay_steps: int = option(0, "Lower the weight over this many steps.", ge=0)
    crepa_lambda_end: float = option(0.0, "The weight at the end of the decay.", ge=0)
    crepa_power: float = option(1.0, "The power of the polynomial decay.", gt=0)
    crepa_cutoff_step: int = option(0, "Switch off at this step; 0 is never.", ge=0)
    crepa_similarity_threshold: float | None = option(None, "Switch off above this similarity.")
    crepa_similarity_ema_decay: float = option(0.99, "How slowly the similarity is averaged.", ge=0, lt=1)
    crepa_threshold_mode: Literal["permanent", "recoverable"] = option(
        "permanent", "Whether alignment comes back below the threshold."
    )
    crepa_self_flow_mask_ratio: Fraction = option(0.1, "The share of tokens that self_flow masks.")


class RolloutConfig(Section):
    scheduled_sampling_max_step_offset: int = option(
        0, "Train on the model's own steps, up to this many ahead; 0 is off.", ge=0, le=999
    )
    scheduled_sampling_probability: Fraction = option(0.0, "How often a sample is rolled out.")
    scheduled_sampling_prob_start: Fraction = option(0.0, "The probability at the start of the ramp.")
    scheduled_sampling_prob_end: Fraction = option(0.5, "The probability at the end of the ramp.")
    scheduled_sampling_ramp_steps: int = option(0, "Steps from start to end of the ramp; 0 is no ramp.", ge=0)
    scheduled_sampling_start_step: int = option(0, "The first step of the ramp.", ge=0)
    scheduled_sampling_ramp_shape: Literal["linear", "cosine"] = option("linear", "The shape of the ramp.")
    scheduled_sampling_strategy: Literal["uniform", "biased_early", "biased_late"] = option(
        "uniform", "How offsets are drawn."
    )
    scheduled_sampling_sampler: Literal["unipc", "euler", "dpm"] = option("unipc", "The sampler of the rollout.")
    scheduled_sampling_order: int = option(2, "The order of the sampler.", ge=1, le=3)
    scheduled_sampling_reflexflow: bool | None = option(None, "Weigh the loss by exposure bias; not set is automatic.")
    scheduled_sampling_reflexflow_alpha: float = option(1.0, "The weight of the exposure bias.", ge=0)
    scheduled_sampling_reflexflow_beta1: float = option(10.0, "The weight of the drift term.", ge=0)
    scheduled_sampling_reflexflow_beta2: float = option(1.0, "The weight of the main loss.", ge=0)
