"""The optimiser's states and its update in main memory, while the weights are trained on a device of its own.

In a step the weights and their gradients come down, the named optimiser updates them there, and the weights go back up.
torchao's CPUOffloadOptimizer, by which the option's value is named, is not used: it is for CUDA alone, makes one
optimiser for each tensor, which optimisers that count or compare over all tensors cannot be, and has states of its own
form. Here optimiser, states and what a checkpoint holds are as they are without, so a run may change the option.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from ltxtrain.learn.device import page_locked

ROOM = "ltxtrain_room"
"""The key of a parameter group under which the ``Room`` of an optimiser in main memory stands."""


class Room:
    """Main memory for weights and gradients, page-locked where the device is a CUDA one. Taken at the first step.

    Between steps the weights lie on the device alone; ``enter`` and ``leave`` move what the parameters stand for.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        self._parameters = list(parameters)
        self._weights: dict[torch.nn.Parameter, torch.Tensor] = {}
        self._gradients: dict[torch.nn.Parameter, torch.Tensor] = {}
        self._sent: set[torch.nn.Parameter] = set()  # whose gradients are here, or on their way
        self._away: dict[torch.nn.Parameter, torch.Tensor] = {}  # on the device, while the parameters are here

    @property
    def entered(self) -> bool:
        return bool(self._away)

    def send_gradient(self, parameter: torch.nn.Parameter) -> None:
        """Send a gradient down and free it on the device, without waiting for either."""
        _place_of(self._gradients, parameter).copy_(parameter.grad, non_blocking=True)
        parameter.grad = None
        self._sent.add(parameter)

    def enter(self) -> None:
        """From here on the parameters and their gradients lie in main memory."""
        for parameter in self._parameters:
            if parameter.grad is not None:
                self.send_gradient(parameter)
            _place_of(self._weights, parameter).copy_(parameter.data, non_blocking=True)
        for device in {parameter.device for parameter in self._parameters}:
            if device.type != "cpu":
                torch.accelerator.synchronize(device)
        for parameter in self._parameters:
            self._away[parameter], parameter.data = parameter.data, self._weights[parameter]
            parameter.grad = self._gradients[parameter] if parameter in self._sent else None
        self._sent.clear()

    def leave(self) -> None:
        """The weights of now go to the device; their gradients are used up."""
        for parameter in self._parameters:
            parameter.grad = None
            parameter.data = self._away[parameter]
            with torch.no_grad():
                parameter.copy_(self._weights[parameter], non_blocking=True)
        self._away.clear()


@contextmanager
def in_main_memory(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Inside, the parameters lie where the optimiser computes: for one that computes on the device nothing happens."""
    room: Room | None = optimizer.param_groups[0].get(ROOM)
    if room is None or room.entered:
        yield
        return
    room.enter()
    try:
        yield
    finally:
        room.leave()


def move_in(optimizer: torch.optim.Optimizer) -> Room:
    """Have a new ``optimizer`` keep its states and compute in main memory."""
    group, own = optimizer.param_groups[0], optimizer.step
    room = group[ROOM] = Room(group["params"])

    def step() -> None:
        with in_main_memory(optimizer):
            own()

    optimizer.step = step
    for state in optimizer.state.values():  # of the few that make some of it at once
        state |= {key: value.cpu() for key, value in state.items() if isinstance(value, torch.Tensor)}
    return room


def _place_of(places: dict[torch.nn.Parameter, torch.Tensor], parameter: torch.nn.Parameter) -> torch.Tensor:
    if parameter not in places:
        places[parameter] = page_locked(torch.empty_like(parameter.data, device="cpu"), parameter.device)
    return places[parameter]
