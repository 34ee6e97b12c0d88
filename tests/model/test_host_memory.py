from __future__ import annotations

from typing import Any

import pytest
import torch

from ltxtrain.model.host_memory import room_like


def test_room_in_main_memory_has_the_form_of_the_tensor() -> None:
    tensor = torch.ones(2, 3, dtype=torch.bfloat16)
    room = room_like(tensor, locked=False)
    assert (room.shape, room.dtype, room.device.type) == (tensor.shape, tensor.dtype, "cpu")


def test_a_shortage_of_page_locked_memory_is_no_shortage_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: Any, **named: Any) -> torch.Tensor:
        raise torch.AcceleratorError("CUDA error: out of memory")

    monkeypatch.setattr(torch, "empty_like", full)
    with pytest.raises(MemoryError):
        room_like(torch.ones(2), locked=True)
    with pytest.raises(torch.AcceleratorError):
        room_like(torch.ones(2), locked=False)
