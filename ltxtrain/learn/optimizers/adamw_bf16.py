"""AdamW for weights in bfloat16, whose rounding is random and whose rounding errors are carried along.

A plain step on bfloat16 weights is lost when it is below half of their last bit. Here every sum is rounded up or down
by chance, so that it is right on average, and what a weight could not take waits in ``shift`` for the next step. Weight
decay, far below the last bit each time, is saved up as a debt and paid in one piece.

The second moment is rounded to the nearest, as documented: it follows falling gradients late.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from ltxtrain.learn.draws import Place

DEBT_LIMIT = 5e-3


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
        generators: dict[torch.device, torch.Generator] = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    if parameter.device not in generators:
                        generators[parameter.device] = torch.Generator(parameter.device)
                    self._step(parameter, group, generators[parameter.device])

    def _step(self, parameter: torch.nn.Parameter, group: dict, generator: torch.Generator) -> None:
        """With m, v and shift s of the step before, learning rate n and gradient g, in this order:

        m = R(b1 m + (1 - b1) g);  v = b2 v + (1 - b2) g^2;  u = -n sqrt(1 - b2^t) m / (sqrt(v) + eps)
        s = R(s + u);  p' = R(p + s);  s = R(s + p - p');  debt = debt + n * decay

        where R rounds by chance; above its limit the debt is paid, s = R(s - debt p'). m has no bias correction.
        """
        name, state = self.names[parameter], self.state[parameter]
        if not state:
            state |= self._start(parameter, name)
        state["step"] += 1
        generator.manual_seed(Place(self.seed, state["step"], 0).number("adamw_bf16", name))
        beta1, beta2 = group["betas"]
        mean, square, shift = state["exp_avg"], state["exp_avg_sq"], state["shift"]
        gradient = parameter.grad.float()
        round_into(mean, mean.float().mul_(beta1).add_(gradient, alpha=1 - beta1), generator)
        square.mul_(beta2).addcmul_(parameter.grad, parameter.grad, value=1 - beta2)
        rate = -group["lr"] * math.sqrt(1 - beta2 ** state["step"])
        denominator = square.float().sqrt_().add_(group["eps"])
        round_into(shift, shift.float().addcdiv_(mean.float(), denominator, value=rate), generator)
        before = parameter.float()
        round_into(parameter, before + shift.float(), generator)
        round_into(shift, shift.float().add_(before).sub_(parameter.float()), generator)
        state["debt"] += group["lr"] * group["weight_decay"]
        if state["debt"] > DEBT_LIMIT:
            round_into(shift, shift.float().add_(parameter.float(), alpha=-state["debt"]), generator)
            state["debt"] = 0.0

    def _start(self, parameter: torch.nn.Parameter, name: str) -> dict[str, object]:
        """The debt starts anywhere below its limit, so that not all parameters pay in the same step."""
        debt = DEBT_LIMIT * float(Place(self.seed, 0, 0).scalars("adamw_bf16 debt", name).random())
        zeros = {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq", "shift")}
        return {"step": 0, "debt": debt, **zeros}


def round_into(target: torch.Tensor, values: torch.Tensor, generator: torch.Generator) -> None:
    """Write float32 ``values`` to bfloat16 ``target``, rounded to one neighbour or the other by chance.

    bfloat16 is the upper half of float32's bits: after adding a random number of 16 bits, the lower half is cut off.
    The expected value is that of ``values`` (Gupta et al. 2015), which are overwritten.
    """
    bits = values.view(torch.int32)
    bits.add_(torch.randint(0, 1 << 16, bits.shape, dtype=torch.int32, device=bits.device, generator=generator))
    bits.bitwise_and_(-(1 << 16))
    target.copy_(values)
