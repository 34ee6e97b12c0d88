"""Optimisers by their documented names: made, stepped, saved and put back, whichever library computes them."""

from __future__ import annotations

from ltxtrain.learn.optimizers.averages import evaluating
from ltxtrain.learn.optimizers.construction import make_optimizer, set_learning_rate
from ltxtrain.learn.optimizers.early import let_go, take_over
from ltxtrain.learn.optimizers.gradients import clip_gradients
from ltxtrain.learn.optimizers.state import check_owner, load_optimizer_tensors, optimizer_tensors

__all__ = [
    "check_owner",
    "clip_gradients",
    "evaluating",
    "let_go",
    "load_optimizer_tensors",
    "make_optimizer",
    "optimizer_tensors",
    "set_learning_rate",
    "take_over",
]
