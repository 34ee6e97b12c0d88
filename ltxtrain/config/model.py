"""Which model is trained, and the adapter that is trained on it."""

from __future__ import annotations

from typing import Literal

from ltxtrain.config.option import LocalPath, Section, option


class ModelConfig(Section):
    model_family: Literal["ltxvideo"] = option("ltxvideo", "The family of the base model.")
    model_flavour: Literal["0.9.5", "0.9.0"] = option(
        "0.9.5", "Which release of LTX-Video to start from when no model is named."
    )
    model_type: Literal["lora", "full"] = option(
        "lora", "What is trained: a small adapter (lora) or every weight (full).", documented="full"
    )
    pretrained_model_name_or_path: str = option(
        "Lightricks/LTX-Video-0.9.5",
        "The base model: a name on the Hugging Face Hub, a diffusers folder, or 'ltxtrain/tiny', the tiny one; "
        "'ltxtrain/random-2b' has the real sizes with random weights, for measurements.",
    )
    pretrained_vae_model_name_or_path: str | None = option(
        None, "Take the VAE from this model instead of the base model."
    )
    pretrained_transformer_model_name_or_path: str | None = option(
        None, "Take the transformer from this model: a Hub name, a folder or a single safetensors file."
    )
    pretrained_transformer_subfolder: str = option(
        "transformer", "The folder of the transformer inside its model; 'none' means the top folder."
    )
    revision: str | None = option(None, "The Git revision of the base model on the Hub: a commit, tag or branch.")
    seed: int = option(
        42,
        "The seed of everything random in training. A random one (-1 in the guides) is refused: no run could go on.",
        ge=0,
        le=2**63 - 1,
        documented=None,
    )
    seed_for_each_device: bool = option(True, "Give each process its own random stream.")
    t5_padding: Literal["unmodified", "zero"] = option(
        "unmodified", "Whether padded prompt embeddings are kept as encoded or set to zero."
    )


class AdapterConfig(Section):
    lora_type: Literal["standard", "lycoris"] = option(
        "standard", "The kind of adapter: LoRA by peft, or one of the LyCORIS family."
    )
    lora_rank: int = option(
        16, "The rank of the LoRA. A smaller rank is a smaller file that learns less.", ge=1, le=256
    )
    lora_alpha: float | None = option(None, "The scale of the LoRA; not set means equal to the rank.", gt=0)
    lora_dropout: float = option(0.0, "The share of adapter inputs that is dropped.", ge=0, lt=1, documented=0.1)
    lora_init_type: Literal["default", "gaussian", "loftq", "olora", "pissa"] = option(
        "default", "How the LoRA weights start."
    )
    use_dora: bool = option(False, "Train magnitude and direction apart (DoRA).")
    peft_lora_mode: Literal["standard", "singlora"] = option("standard", "The form of the LoRA that peft trains.")
    peft_lora_target_modules: tuple[str, ...] | LocalPath | None = option(
        None,
        "The modules that get a LoRA, as a list or a JSON file with one; not set means to_k, to_q, to_v, to_out.0.",
    )
    lora_format: Literal["diffusers", "comfyui"] = option(
        "diffusers", "The layout of the exported file. Both layouts are always written."
    )
    lycoris_config: LocalPath | None = option(
        None, "The JSON file that describes a LyCORIS adapter.", documented="config/lycoris_config.json"
    )
    init_lora: str | None = option(None, "Start from this adapter: a file, a folder or a Hub name.")
    init_lora_step: int | None = option(None, "The step of the adapter that training starts from.", ge=0)
    init_lora_ema: str | None = option(None, "Start the moving average from this adapter.")
    assistant_lora_path: str | None = option(None, "An adapter that is active in training only.")
    assistant_lora_strength: float = option(1.0, "The strength of the assistant adapter.", ge=0)

    def alpha(self) -> float:
        """The scale that is used: ``lora_alpha``, or the rank."""
        return float(self.lora_rank) if self.lora_alpha is None else self.lora_alpha
