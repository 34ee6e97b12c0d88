"""Number formats, memory saving and speed."""

from __future__ import annotations

from typing import Any, Literal

from ltxtrain.config.option import LARGEST, LocalPath, Section, option

Precision = Literal[
    "no_change",
    "int8-quanto",
    "int4-quanto",
    "int2-quanto",
    "fp8-quanto",
    "fp8uz-quanto",
    "int8-torchao",
    "int8dq-torchao",
    "int8dq-int4-torchao",
    "int4-torchao",
    "fp8-torchao",
    "fp8wo-torchao",
    "fp8-int4-torchao",
    "fp8-native",
    "fp8-transformerengine",
    "nf4-bnb",
    "int8-sdnq",
    "uint8-sdnq",
    "int16-sdnq",
    "uint16-sdnq",
    "fp16-sdnq",
    "fp8-sdnq",
    "int6-sdnq",
    "int5-sdnq",
    "uint5-sdnq",
    "uint4-sdnq",
    "uint3-sdnq",
    "uint2-sdnq",
]

AttentionMechanism = Literal[
    "diffusers",
    "xformers",
    "flash-attn",
    "flash-attn-2",
    "flash-attn-3",
    "flash-attn-3-varlen",
    "flash-attn-varlen-hub",
    "flex",
    "cudnn",
    "native-efficient",
    "native-flash",
    "native-math",
    "native-npu",
    "native-xla",
    "sla",
    "metal-flash-attention",
    "metal-flash-attention-int8",
    "metal-flash-attention-int4",
    "sageattention",
    "sageattention-int8-fp16-triton",
    "sageattention-int8-fp16-cuda",
    "sageattention-int8-fp8-cuda",
]


class PrecisionConfig(Section):
    mixed_precision: Literal["no", "fp16", "bf16", "fp8"] = option(
        "bf16", "The number format of the arithmetic in training; 'no' is float32."
    )
    base_model_precision: Precision = option(
        "no_change", "Quantise the frozen base model to this format to save memory."
    )
    base_model_default_dtype: Literal["bf16", "fp32"] = option(
        "bf16",
        "The number format of what stays unquantised in a quantised base model; bf16 stands for that of "
        "mixed_precision.",
    )
    quantize_via: Literal["cpu", "accelerator", "pipeline"] = option(
        "cpu",
        "Where layers are quantised as they are read: slowly on the CPU, or on the GPU, which has two names.",
        documented="accelerator",
    )
    quantization_config: dict[str, Any] | LocalPath | None = option(
        None, "A quantisation described in full, as a JSON object or file, instead of base_model_precision."
    )
    text_encoder_1_precision: Precision = option(
        "no_change", "Quantise the T5 text encoder while captions are encoded."
    )
    text_encoder_2_precision: Precision = option("no_change", "LTX-Video has one text encoder; kept for old files.")
    text_encoder_3_precision: Precision = option("no_change", "LTX-Video has one text encoder; kept for old files.")
    text_encoder_4_precision: Precision = option("no_change", "LTX-Video has one text encoder; kept for old files.")
    vae_dtype: Literal["bf16", "fp32", "fp16"] = option("bf16", "The number format of the VAE.")
    disable_tf32: bool = option(
        False, "Compute float32 products in full precision, without TF32's 10 bits.", devices=("cuda", "rocm")
    )


class MemoryConfig(Section):
    memory_budget_gb: float | None = option(
        None,
        "Choose the fastest precision, checkpointing and offload whose estimated peaks fit in so much device memory, "
        "in GiB; what is set by hand stays.",
        gt=0,
        le=LARGEST,
    )
    gradient_checkpointing: bool = option(
        True, "Recompute activations in the backward pass: far less memory, about a third slower."
    )
    gradient_checkpointing_interval: int | None = option(
        None, "Group this many consecutive blocks into one recomputed piece.", ge=1
    )
    gradient_checkpointing_backend: Literal["torch", "torch-ffn", "unsloth", "unsloth-ffn"] = option(
        "torch", "How activations are recomputed or moved to the CPU."
    )
    gradient_checkpointing_segment_stride: int | None = option(
        None,
        "Begin a recomputed piece at each n-th block; the blocks between two pieces keep their activations.",
        ge=1,
    )
    gradient_checkpointing_free_blocks: int = option(
        0, "So many of the last blocks keep their activations: faster, as far as memory allows.", ge=0
    )
    gradient_checkpointing_offload_attention: bool = option(False, "Move the attention's activations to the CPU.")
    gradient_checkpointing_offload_prefetch: bool = option(False, "Fetch moved activations ahead of their use.")
    offload_during_startup: bool = option(
        True,
        "Hold only one of text encoder, VAE and transformer at a time. Always so here.",
        documented=False,
    )
    offload_during_save: bool = option(False, "Move what is not needed off the GPU while a checkpoint is written.")
    delete_model_after_load: bool = option(False, "Delete downloaded model files once they are loaded.")
    enable_model_cpu_offload: bool = option(False, "Keep whole models in main memory and move them in for their turn.")
    enable_group_offload: bool = option(False, "Keep groups of layers in main memory and move them in for their turn.")
    group_offload_type: Literal["block_level", "leaf_level"] = option("block_level", "The size of an offloaded group.")
    group_offload_blocks_per_group: int = option(1, "Blocks in one offloaded group.", ge=1)
    group_offload_use_stream: bool = option(
        False, "Overlap moving with computing; used on CUDA only.", devices=("cuda",)
    )
    group_offload_to_disk_path: LocalPath | None = option(None, "Put offloaded weights in this folder, not in memory.")
    group_offload_text_encoder: bool = option(False, "Offload the text encoder in groups as well.")
    group_offload_vae: bool = option(False, "Offload the VAE in groups as well.")
    musubi_blocks_to_swap: int = option(0, "Keep this many of the last blocks in main memory.", ge=0)
    musubi_block_swap_device: str = option("cpu", "Where swapped blocks are kept.")
    ramtorch: bool = option(False, "Stream the weights of linear layers from main memory.")
    ramtorch_target_modules: tuple[str, ...] | None = option(None, "The modules whose weights are streamed.")
    ramtorch_transformer_percent: float = option(100.0, "The share of the transformer that is streamed.", ge=0, le=100)
    ramtorch_text_encoder: bool = option(False, "Stream the text encoder's weights as well.")
    ramtorch_vae: bool = option(False, "Stream the VAE's weights as well.")


class SpeedConfig(Section):
    attention_mechanism: AttentionMechanism = option(
        "diffusers", "How attention is computed; 'diffusers' is PyTorch's own scaled dot product."
    )
    sageattention_usage: Literal["inference", "training", "training+inference"] = option(
        "inference", "When SageAttention is used: it has no backward pass, so for validation alone."
    )
    dynamo_backend: Literal["no", "eager", "aot_eager", "inductor", "cudagraphs", "onnxrt", "tensorrt", "ipex"] = (
        option("no", "Compile the transformer with torch.compile and this backend.")
    )
    dynamo_mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] | None = option(
        None, "How hard torch.compile tries."
    )
    dynamo_fullgraph: bool = option(False, "Refuse graph breaks while compiling.")
    dynamo_dynamic: bool = option(False, "Compile once for all bucket shapes.")
    dynamo_use_regional_compilation: bool = option(
        True, "Compile one block and use it for all, not the whole transformer.", documented=False
    )
    torch_num_threads: int | None = option(
        None, "CPU threads of PyTorch; not set leaves it to PyTorch.", ge=1, le=1024, documented=8
    )
    dataloader_prefetch: bool = option(
        False, "Read more batches ahead than the next two, which always are read while the GPU computes."
    )
    dataloader_prefetch_qlen: int = option(10, "How many batches are then read ahead.", ge=1)
