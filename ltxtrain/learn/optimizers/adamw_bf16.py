"""AdamW for weights in bfloat16, whose rounding is random and whose rounding errors are carried along.

A plain step on bfloat16 weights is lost when it is below half of their last bit. Here every sum is rounded up or down
by chance, so that it is right on average, and what a weight could not take waits in ``shift`` for the next step. Weight
decay, far below the last bit each time, is saved up as a debt and paid in one piece.

The second moment is rounded to the nearest, as documented: it follows falling gradients late.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch

from ltxtrain.learn.draws import Place

DEBT_LIMIT = 5e-3
CHUNK = 1 << 21  # values stepped together: few kernels to launch, and some 60 MB beside the state


class AdamWBF16(torch.optim.Optimizer):
    """``parameters`` by name, in bfloat16. Draws are a function of ``seed``, the step and the parameter's name.

    State of each parameter: ``exp_avg``, ``exp_avg_sq`` and ``shift`` in bfloat16, ``step`` and ``debt`` as numbers.
    """

    def __init__(
        self,
        parameters: Mapping[str, torch.nn.Parameter],
        seed: int,
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> None:
        for name, parameter in parameters.items():
            if parameter.dtype != torch.bfloat16:
                raise ValueError(f"adamw_bf16 trains weights in bfloat16, and {name} is in {parameter.dtype}")
        super().__init__(
            list(parameters.values()), {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )
        self.seed = seed
        self.names = {parameter: name for name, parameter in parameters.items()}

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for together in self._chunks(group):
                self._step(together, group)

    def _chunks(self, group: dict) -> Iterator[list[torch.nn.Parameter]]:
        """Parameters that are stepped together, of one device and one age: a step by itself launches fifty kernels."""
        together: list[torch.nn.Parameter] = []
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            if not self.state[parameter]:
                self.state[parameter] |= self._start(parameter, self.names[parameter])
            if together and (
                sum(each.numel() for each in together) + parameter.numel() > CHUNK
                or parameter.device != together[0].device
                or self.state[parameter]["step"] != self.state[together[0]]["step"]
            ):
                yield together
                together = []
            together.append(parameter)
        if together:
            yield together

    def _step(self, parameters: list[torch.nn.Parameter], group: dict) -> None:
        """With m, v and shift s of the step before, learning rate n and gradient g, in this order:

        m = R(b1 m + (1 - b1) g);  v = b2 v + (1 - b2) g^2;  u = -n sqrt(1 - b2^t) m / (sqrt(v) + eps)
        s = R(s + u);  p' = R(p + s);  s = R(s + p - p');  debt = debt + n * decay

        where R rounds by chance; above its limit the debt is paid, s = R(s - debt p'). m has no bias correction.
        """
        states = [self.state[parameter] for parameter in parameters]
        means, squares, shifts = ([state[key] for state in states] for key in ("exp_avg", "exp_avg_sq", "shift"))
        gradients = [parameter.grad for parameter in parameters]
        number = states[0]["step"] + 1
        bits = self._bits(parameters, number)
        beta1, beta2 = group["betas"]
        mean = cut(gathered(means).mul_(beta1).add_(gathered(gradients), alpha=1 - beta1), bits, 0)
        plain = gathered(gradients, torch.bfloat16)
        square = gathered(squares, torch.bfloat16).mul_(beta2).addcmul_(plain, plain, value=1 - beta2)
        rate = -group["lr"] * math.sqrt(1 - beta2**number)
        denominator = square.float().sqrt_().add_(group["eps"])
        shift = cut(gathered(shifts).addcdiv_(mean, denominator, value=rate), bits, 1)
        before = gathered(parameters)
        after = cut(before + shift, bits, 2)
        shift = cut(shift.add_(before).sub_(after), bits, 3)
        for tensors, values in ((means, mean), (squares, square), (parameters, after), (shifts, shift)):
            torch._foreach_copy_(tensors, parts(values, tensors))
        for parameter, state in zip(parameters, states, strict=True):
            state["step"] = number
            self._charge(parameter, state, group["lr"] * group["weight_decay"])

    def _bits(self, parameters: list[torch.nn.Parameter], number: int) -> torch.Tensor:
        """64 random bits for each value: 16 for each of the four roundings of a step."""
        device = parameters[0].device
        bits = torch.empty(sum(each.numel() for each in parameters), dtype=torch.int64, device=device)
        generator = torch.Generator(device)
        for parameter, part in zip(parameters, parts(bits, parameters), strict=True):
            generator.manual_seed(Place(self.seed, number, 0).number("adamw_bf16", self.names[parameter]))
            part.random_(-(1 << 63), None, generator=generator)
        return bits

    def _charge(self, parameter: torch.nn.Parameter, state: dict, decay: float) -> None:
        state["debt"] += decay
        if state["debt"] > DEBT_LIMIT:
            place = Place(self.seed, state["step"], 0)
            generator = torch.Generator(parameter.device)
            generator.manual_seed(place.number("adamw_bf16 payment", self.names[parameter]))
            paid = state["shift"].float().add_(parameter.float(), alpha=-state["debt"])
            round_into(state["shift"], paid, generator)
            state["debt"] = 0.0

    def _start(self, parameter: torch.nn.Parameter, name: str) -> dict[str, object]:
        """The debt starts anywhere below its limit, so that not all parameters pay in the same step."""
        debt = DEBT_LIMIT * float(Place(self.seed, 0, 0).scalars("adamw_bf16 debt", name).random())
        zeros = {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq", "shift")}
        return {"step": 0, "debt": debt, **zeros}


def gathered(tensors: Sequence[torch.Tensor], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """All values of ``tensors`` in a row, in ``dtype``."""
    values = torch.empty(sum(each.numel() for each in tensors), dtype=dtype, device=tensors[0].device)
    torch._foreach_copy_(parts(values, tensors), list(tensors))
    return values


def parts(values: torch.Tensor, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """``values`` [N] seen as tensors of the shapes of ``tensors``."""
    pieces = values.split([each.numel() for each in tensors])
    return [piece.view(each.shape) for piece, each in zip(pieces, tensors, strict=True)]


def cut(values: torch.Tensor, bits: torch.Tensor, field: int) -> torch.Tensor:
    """Float32 ``values`` rounded in place to numbers of bfloat16, up or down by chance.

    bfloat16 is the upper half of float32's bits: after adding a random number of 16 bits, the lower half is cut off.
    The expected value stays (Gupta et al. 2015). ``field`` 0 to 3 says which 16 of the 64 ``bits`` are added.
    """
    drawn = (bits >> (16 * field)).to(torch.int32).bitwise_and_(0xFFFF)
    values.view(torch.int32).add_(drawn).bitwise_and_(-(1 << 16))
    return values


def round_into(target: torch.Tensor, values: torch.Tensor, generator: torch.Generator) -> None:
    """Write ``values`` to bfloat16 ``target``, rounded as by ``cut``."""
    bits = torch.empty(values.shape, dtype=torch.int64, device=values.device)
    target.copy_(cut(values, bits.random_(0, 1 << 16, generator=generator), 0))
