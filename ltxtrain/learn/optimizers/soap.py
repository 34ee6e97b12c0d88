"""SOAP (Vyas et al. 2024), Adam in the eigenbasis of Shampoo's preconditioners, as pytorch_optimizer computes it.

Its state holds lists of matrices, one for each side of a tensor, and settings; here it is known by names of plain
tensors, so that it can be saved, and the settings are those of now.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from pytorch_optimizer.optimizer.soap import SOAP

SIDES = {"GG": "preconditioner", "Q": "eigenvectors"}
"""The lists of a state, and what their matrices are called in a file. A side that is too long has an empty list."""


class Soap(SOAP):
    """Its eigenvectors lie in memory row by row, as they will when they have been read from a file: products of other
    layouts may round otherwise. Of what is not finite they are NaN, where the library stops: who reads the step's loss
    refuses it, and knows its clips."""

    @staticmethod
    def get_orthogonal_matrix(mat: list[Any]) -> list[Any]:
        try:
            return [_in_rows(each) for each in SOAP.get_orthogonal_matrix(mat)]
        except torch.linalg.LinAlgError:
            return [torch.full_like(each, math.nan) if len(each) else [] for each in mat]

    def get_orthogonal_matrix_qr(self, state: dict[str, Any], *given: Any) -> list[Any]:
        return [_in_rows(each) for each in super().get_orthogonal_matrix_qr(state, *given)]


def plain_state(state: Mapping[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a parameter's state by name, ``preconditioner0`` for that of its rows."""
    for key in ("exp_avg", "exp_avg_sq"):
        yield key, state[key]
    for key, name in SIDES.items():
        for number, matrix in enumerate(state[key]):
            if len(matrix):
                yield f"{name}{number}", matrix


def empty_state(optimizer: Soap, parameter: torch.nn.Parameter) -> dict[str, Any]:
    """The state of a parameter, with room for all that ``plain_state`` names."""
    group = optimizer.param_groups[0]
    state: dict[str, Any] = {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq")}
    settings = {key: group[key] for key in ("precondition_frequency", "shampoo_beta", "max_precondition_dim")}
    optimizer.init_pre_conditioner(parameter, state, **settings)
    state["Q"] = [torch.zeros_like(each) if len(each) else [] for each in state["GG"]]
    return state


def _in_rows(matrix: Any) -> Any:
    return matrix.contiguous() if isinstance(matrix, torch.Tensor) else matrix
