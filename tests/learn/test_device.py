"""Dtypes, memory, and what is said when there is not enough of it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from ltxtrain.errors import MachineError, OutOfMemoryError
from ltxtrain.learn import device as learn_device
from ltxtrain.learn.device import CAP, cap_memory, check_dtype, find_device, memory_advice, page_locked
from ltxtrain.learn.memory import Meter, free_memory, read_peaks

CPU = torch.device("cpu")
GIB = 1024**3


class MadeCard:
    """What is below torch's Python on a CUDA machine: the second of two cards, with 20 GiB. All above is the real
    one, the check of devices above all."""

    def __init__(self) -> None:
        self.number, self.free, self.reserved, self.fraction = 1, 39 * GIB // 2, 0, 1.0

    def memory(self, number: int) -> tuple[int, int]:
        assert number == self.number
        return self.free, 20 * GIB

    def statistics(self, number: int) -> dict[str, dict[str, dict[str, int]]]:
        assert number == self.number
        held = {"current": self.reserved, "peak": self.reserved}
        return {"reserved_bytes": {"all": held}, "allocated_bytes": {"all": held}}

    def limit(self, fraction: float, number: int) -> None:
        assert number == self.number
        self.fraction = fraction

    def choose(self, number: int) -> None:
        self.number = number


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> MadeCard:
    made = MadeCard()
    below = {
        "_cuda_getDevice": lambda: made.number,
        "_cuda_setDevice": made.choose,
        "_cuda_memoryStats": made.statistics,
        "_cuda_resetPeakMemoryStats": lambda number: made.memory(number),
        "_cuda_setMemoryFraction": made.limit,
        "_cuda_getMemoryFraction": lambda number: made.fraction,
    }
    for name, function in below.items():
        monkeypatch.setattr(torch._C, name, function, raising=False)
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda.memory, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda.memory, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: SimpleNamespace(cudaMemGetInfo=made.memory))
    # Alone on its machine, accelerate names the device without a number.
    state = SimpleNamespace(num_processes=1, device=torch.device("cuda"))
    monkeypatch.setattr(learn_device, "PartialState", lambda: state)
    return made


def test_on_a_cuda_machine_memory_can_be_asked_for_and_capped(card: MadeCard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CAP, "10")
    device = find_device()
    assert device == torch.device("cuda", 1)
    assert card.fraction == (10 - 0.5) / 20
    assert free_memory(device) == int(9.5 * GIB)
    meter = Meter(device)
    meter.enter("training")
    card.reserved, card.free = 4 * GIB, 14 * GIB
    assert read_peaks(device).used == 6 * GIB and meter.tensors("training") == 4 * GIB


def test_a_card_that_is_named_by_its_number_is_the_one_that_is_used(
    card: MadeCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = SimpleNamespace(num_processes=1, device=torch.device("cuda", 3))
    monkeypatch.setattr(learn_device, "PartialState", lambda: state)
    assert find_device() == torch.device("cuda", 3) and card.number == 3


def test_a_card_that_is_full_before_anything_began_is_told_in_one_line(
    card: MadeCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(number: int) -> None:
        raise torch.AcceleratorError("CUDA error: out of memory")

    monkeypatch.setattr(torch._C, "_cuda_setDevice", full, raising=False)
    with pytest.raises(OutOfMemoryError, match="device ran out of memory while opening it"):
        find_device()


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


@pytest.mark.parametrize(
    ("error", "place"),
    [
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "device"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "device"),
        (RuntimeError("CUDA error: HIPBLAS_STATUS_ALLOCATION_FAILED"), "device"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 17.00 GB)"), "device"),
        (torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be reported later"), "device"),
        (RuntimeError("backend='inductor' raised:\nOutOfMemoryError: CUDA out of memory. Tried to"), "device"),
        (RuntimeError("unable to mmap 99 bytes from file <a>: Cannot allocate memory (12)"), "machine"),
        (RuntimeError("std::bad_alloc"), "machine"),
        (MemoryError(), "machine"),
    ],
)
def test_shortages_that_torch_does_not_tell_by_type_are_known_by_their_words(error: Exception, place: str) -> None:
    with pytest.raises(OutOfMemoryError, match=f"the {place} ran out of memory while training"):  # noqa: SIM117
        with memory_advice("training", "less"):
            raise error


def test_a_shortage_of_page_locked_memory_is_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensor: torch.Tensor) -> torch.Tensor:
        raise torch.AcceleratorError("CUDA error: out of memory")

    monkeypatch.setattr(torch.Tensor, "pin_memory", full)
    with pytest.raises(OutOfMemoryError, match="machine ran out"), memory_advice("training", "less"):
        page_locked(torch.ones(2), torch.device("cuda", 0))


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


@pytest.mark.parametrize(("gigabytes", "fraction"), [("10", 0.475), ("", 1.0), ("100", 1.0)])
def test_a_large_card_can_be_made_as_small_as_another_its_context_counted(
    card: MadeCard, gigabytes: str, fraction: float
) -> None:
    device = torch.device("cuda", card.number)
    cap_memory(device, gigabytes)
    assert card.fraction == fraction
    card.free, card.reserved, card.fraction = 35 * GIB // 2, 2 * GIB, 1.0
    cap_memory(device, gigabytes)  # again, for training: what torch holds is no context
    assert card.fraction == fraction
    cap_memory(CPU, "nonsense")


@pytest.mark.parametrize("gigabytes", ["0.5", "nan", "lots"])
def test_a_cap_that_leaves_nothing_is_refused(card: MadeCard, gigabytes: str) -> None:
    with pytest.raises(MachineError, match="leaves no memory"):
        cap_memory(torch.device("cuda", card.number), gigabytes)
