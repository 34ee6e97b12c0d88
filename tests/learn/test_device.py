"""Dtypes, memory, and what is said when there is not enough of it."""

from __future__ import annotations

import pytest
import torch

from ltxtrain.errors import MachineError, OutOfMemoryError
from ltxtrain.learn.device import cap_memory, check_dtype, find_device, memory_advice

CPU = torch.device("cpu")


def test_one_process_has_one_device() -> None:
    assert find_device().type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize(("named", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16), ("no", torch.float32)])
def test_mixed_precision_names_the_dtype_of_the_base_model(named: str, dtype: torch.dtype) -> None:
    assert check_dtype(CPU, named, "fp32") == dtype


@pytest.mark.parametrize(
    ("mixed_precision", "vae_dtype", "hint"),
    [
        ("bf16", "bf16", "give --mixed-precision no --vae-dtype fp32"),
        ("bf16", "fp32", "give --mixed-precision no"),
        ("no", "bf16", "give --vae-dtype fp32"),
    ],
)
def test_on_a_gpu_without_bfloat16_every_option_that_asks_for_it_is_named(
    monkeypatch: pytest.MonkeyPatch, mixed_precision: str, vae_dtype: str, hint: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    gpu = torch.device("cuda")
    with pytest.raises(MachineError, match="Tesla T4 has no bfloat16") as refused:
        check_dtype(gpu, mixed_precision, vae_dtype)
    assert refused.value.hint == hint
    assert check_dtype(gpu, "no", "fp32") == torch.float32


def test_memory_that_the_host_does_not_have_is_told_in_one_line() -> None:
    with (
        pytest.raises(OutOfMemoryError, match="while encoding clips") as caught,
        memory_advice("encoding clips", "less"),
    ):
        torch.empty(2**60, dtype=torch.uint8)
    assert (caught.value.exit_code, caught.value.hint) == (6, "less")
    assert "\n" not in caught.value.message


def test_memory_that_the_device_does_not_have_is_told_in_one_line() -> None:
    with (
        pytest.raises(OutOfMemoryError, match="device ran out of memory while training"),
        memory_advice("training", "less"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")


def test_other_errors_pass_through() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"), memory_advice("training", "less"):
        torch.ones(2, 3) @ torch.ones(2, 3)


def test_the_number_of_threads_is_what_was_asked_for() -> None:
    before = torch.get_num_threads()
    try:
        find_device(3)
        assert torch.get_num_threads() == 3
        find_device()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("gigabytes", "fraction"), [("10", 0.475), ("", None), ("100", 1.0)])
def test_a_large_card_can_be_made_as_small_as_another_its_context_counted(
    monkeypatch: pytest.MonkeyPatch, gigabytes: str, fraction: float | None
) -> None:
    set_to: list[float] = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (39 * 1024**3 // 2, 20 * 1024**3))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, device: set_to.append(share))
    cap_memory(torch.device("cuda"), gigabytes)
    assert set_to == ([] if fraction is None else [fraction])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (35 * 1024**3 // 2, 20 * 1024**3))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 2 * 1024**3)
    cap_memory(torch.device("cuda"), gigabytes)  # again, for training: what torch holds is no context
    assert set_to == ([] if fraction is None else [fraction, fraction])
    cap_memory(CPU, "nonsense")


@pytest.mark.parametrize("gigabytes", ["0.5", "nan", "lots"])
def test_a_cap_that_leaves_nothing_is_refused(monkeypatch: pytest.MonkeyPatch, gigabytes: str) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (39 * 1024**3 // 2, 20 * 1024**3))
    with pytest.raises(MachineError, match="leaves no memory"):
        cap_memory(torch.device("cuda"), gigabytes)
