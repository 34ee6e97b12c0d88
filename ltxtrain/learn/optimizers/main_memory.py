"""The optimiser's states and its update in main memory, while the weights are trained on a device of its own.

In a step the weights and their gradients come down, the named optimiser updates them there, and the weights go back up.
torchao's CPUOffloadOptimizer, by which the option's value is named, is not used: it is for CUDA alone, makes one
optimiser for each tensor, which optimisers that count or compare over all tensors cannot be, and has states of its own
form. Here optimiser, states and what a checkpoint holds are as they are without, so a run may change the option.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from ltxtrain.learn.device import page_locked

ROOM = "ltxtrain_room"
"""The key of a parameter group under which the ``Room`` of an optimiser in main memory stands."""


class Room:
    """Main memory for weights and gradients. ``trained`` are the parameters on their device, and ``mirrors`` those that
    the optimiser has: they hold the weights of now from ``enter`` to ``leave`` alone.

    For a CUDA device both are page-locked when they are first used, the mirrors at the first ``enter``: an optimiser
    whose turn never comes locks nothing. torch rounds what it locks up to a power of two, tensor by tensor.
    """

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter]) -> None:
        self.trained = list(parameters.values())
        self.mirrors = {name: torch.nn.Parameter(_like(each)) for name, each in parameters.items()}
        self.entered = False
        self._gradients: dict[torch.nn.Parameter, torch.Tensor] = {}
        self._sent: set[torch.nn.Parameter] = set()  # whose gradients are here, or on their way
        self._locked = False

    def send_gradient(self, parameter: torch.nn.Parameter) -> None:
        """Send a gradient down and free it on the device, without waiting for either."""
        if parameter not in self._gradients:
            self._gradients[parameter] = page_locked(_like(parameter), parameter.device)
        self._gradients[parameter].copy_(parameter.grad, non_blocking=True)
        parameter.grad = None
        self._sent.add(parameter)

    def enter(self) -> None:
        """Bring weights and gradients to the mirrors."""
        for parameter, mirror in self._pairs():
            if not self._locked:
                mirror.data = page_locked(mirror.data, parameter.device)
            if parameter.grad is not None:
                self.send_gradient(parameter)
            mirror.data.copy_(parameter.data, non_blocking=True)
        self._locked = True
        for device in {parameter.device for parameter in self.trained}:
            if device.type != "cpu":
                torch.accelerator.synchronize(device)
        for parameter, mirror in self._pairs():
            mirror.grad = self._gradients[parameter] if parameter in self._sent else None
        self.entered = True

    def leave(self) -> None:
        """The weights of now go to the device."""
        for parameter, mirror in self._pairs():
            with torch.no_grad():
                parameter.copy_(mirror, non_blocking=True)
        self.entered = False

    def forget_gradients(self) -> None:
        """As if no backward pass had been since the last step."""
        self._sent.clear()
        for parameter in self.trained:
            parameter.grad = None

    def _pairs(self) -> Iterator[tuple[torch.nn.Parameter, torch.nn.Parameter]]:
        return zip(self.trained, self.mirrors.values(), strict=True)


@contextmanager
def in_main_memory(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Inside, the optimiser's parameters hold the weights of now, and what becomes of them is what is trained on. Of
    one that computes on the device they always do."""
    room: Room | None = optimizer.param_groups[0].get(ROOM)
    if room is None or room.entered:
        yield
        return
    room.enter()
    try:
        yield
    finally:
        room.leave()


def trained_by(optimizer: torch.optim.Optimizer) -> Sequence[torch.nn.Parameter]:
    """The parameters of the model that the optimiser trains."""
    group = optimizer.param_groups[0]
    trained: Sequence[torch.nn.Parameter] = group[ROOM].trained if ROOM in group else group["params"]
    return trained


def move_in(optimizer: torch.optim.Optimizer, room: Room) -> None:
    """Have an ``optimizer`` of the mirrors of ``room`` step what they mirror."""
    own = optimizer.step

    def step() -> None:
        with in_main_memory(optimizer):
            own()

    def zero_grad(set_to_none: bool = True) -> None:
        room.forget_gradients()

    optimizer.param_groups[0][ROOM] = room
    optimizer.step, optimizer.zero_grad = step, zero_grad


def _like(parameter: torch.nn.Parameter) -> torch.Tensor:
    return torch.empty_like(parameter.data, device="cpu")
