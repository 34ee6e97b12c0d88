"""What becomes of each ``attention_mechanism``: the back end of diffusers that computes it, or why it is refused.

A back end is used for attention among a clip's own tokens, which is where the work is. The caption's tokens are padded
and masked; the back ends that take a mask attend to them, too, and for all others PyTorch's own does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ltxtrain.config.verdicts import Verdict

OWN: Final = "native"
"""diffusers' name for PyTorch's ``scaled_dot_product_attention``, which chooses the kernel itself."""


@dataclass(frozen=True)
class Attention:
    """``backend`` is diffusers' name for it, empty where it is refused.

    ``masked`` says that it also attends to captions; ``trains`` that it has a backward pass; ``half`` that it computes
    in 16 bits only; ``compiled`` that it needs torch.compile around it.
    """

    backend: str = ""
    verdict: Verdict = field(default_factory=Verdict)
    masked: bool = False
    trains: bool = True
    half: bool = False
    compiled: bool = False


def _refused(why: str, instead: str) -> Attention:
    return Attention(verdict=Verdict(on=(), why=why, instead=instead))


def _built(repository: str, folder: str = "") -> str:
    """How to install what package indexes do not have. It is compiled against the PyTorch that is here."""
    place = f"./{repository.rpartition('/')[2]}{folder}"
    return f"clone the repository {repository} and pip install --no-build-isolation {place}"


def _flash_2(why: str, instead: str) -> Attention:
    needs = "flash-attn>=2.6.3"
    install = f"pip install --no-build-isolation '{needs}', which compiles it"  # indexes have its source alone
    return Attention("flash", Verdict(("cuda", "rocm"), needs, (8, 0), why, instead, install), half=True)


def _flash_3(backend: str, why: str, instead: str) -> Attention:
    install = _built("Dao-AILab/flash-attention", "/hopper")
    return Attention(backend, Verdict(("cuda",), "flash-attn-3", (9, 0), why, instead, install), half=True)


def _sage(backend: str, capability: tuple[int, int]) -> Attention:
    why = "8-bit attention without a backward pass: for validation alone, while training takes PyTorch's own"
    install = _built("thu-ml/SageAttention")  # indexes have version 1 alone, which diffusers does not take
    verdict = Verdict(("cuda",), "sageattention>=2.1.1", capability, why, "cudnn or diffusers", install)
    return Attention(backend, verdict, trains=False, half=True)


_HUB_KERNEL = "it downloads a compiled program from the Hub and runs it, and nothing unchecked is run here"
_METAL = "it is a kernel for Apple's GPUs that diffusers does not have"

ATTENTIONS: Final[Mapping[str, Attention]] = {
    "diffusers": Attention(
        OWN, Verdict(why="PyTorch's own scaled dot product, which chooses the kernel: flash attention on NVIDIA"), True
    ),
    "xformers": Attention(
        "xformers", Verdict(on=("cuda", "rocm"), needs="xformers>=0.0.29", instead="diffusers or native-efficient")
    ),
    "flash-attn": _flash_2("", "native-flash, which needs no package"),
    "flash-attn-2": _flash_2("the same as flash-attn", "native-flash"),
    "flash-attn-3": _flash_3(
        "_flash_3", "the fastest on H100 and H200; has to be built from source", "cudnn or native-flash"
    ),
    "flash-attn-3-varlen": _flash_3(
        "_flash_varlen_3", "no gain here: the clips of a batch have one length", "flash-attn-3"
    ),
    "flash-attn-varlen-hub": _refused(_HUB_KERNEL, "flash-attn"),
    "flex": Attention(
        "flex",
        Verdict(on=("cuda", "rocm"), why="fast only when it is compiled: needs dynamo_backend", instead="native-math"),
        compiled=True,
    ),
    "cudnn": Attention(
        "_native_cudnn",
        Verdict(
            on=("cuda",), capability=(8, 0), why="cuDNN's kernel, the fastest of PyTorch's own", instead="diffusers"
        ),
        half=True,
    ),
    "native-efficient": Attention(
        "_native_efficient",
        Verdict(on=("cuda", "rocm"), why="PyTorch's memory-efficient kernel", instead="diffusers"),
        True,
    ),
    "native-flash": Attention(
        "_native_flash",
        Verdict(on=("cuda", "rocm", "cpu"), capability=(8, 0), why="PyTorch's flash kernel", instead="diffusers"),
        half=True,
    ),
    "native-math": Attention(
        "_native_math", Verdict(why="plain products; the scores of all pairs of tokens are kept in memory"), True
    ),
    "native-npu": _refused("it is for Huawei's NPUs, which nothing else here runs on", "diffusers"),
    "native-xla": _refused("it is for TPUs, which nothing else here runs on", "diffusers"),
    "sla": _refused("it leaves out most pairs of tokens: LTX-Video has not been trained for it", "diffusers"),
    "metal-flash-attention": _refused(_METAL, "diffusers"),
    "metal-flash-attention-int8": _refused(_METAL, "diffusers"),
    "metal-flash-attention-int4": _refused(_METAL, "diffusers"),
    "sageattention": _sage("sage", (8, 0)),
    "sageattention-int8-fp16-triton": _sage("_sage_qk_int8_pv_fp16_triton", (8, 0)),
    "sageattention-int8-fp16-cuda": _sage("_sage_qk_int8_pv_fp16_cuda", (8, 0)),
    "sageattention-int8-fp8-cuda": _sage("_sage_qk_int8_pv_fp8_cuda", (8, 9)),
}
"""By documented name. The table of names in the reference is made from it."""
