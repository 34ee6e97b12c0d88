"""Inputs of recomputed pieces that wait in main memory from the forward pass to the backward pass.

On a CUDA device the copies run on a stream of their own, through page-locked memory, while the device computes; with
``ahead``, the input of the piece before is fetched while a piece is recomputed. Elsewhere they are plain copies.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from ltxtrain.model.host_memory import room_like


class MovedInputs:
    """One for each transformer. A chain is made in each forward pass: each input knows the one that went before it."""

    def __init__(self, ahead: bool) -> None:
        self.ahead = ahead
        self._stream: torch.cuda.Stream | None = None
        self._last: weakref.ref[_Waiting] | None = None

    @contextmanager
    def waiting(self, hidden: torch.Tensor) -> Iterator[None]:
        """What autograd saves of ``hidden`` inside is a copy in main memory. All else is saved as it is."""
        address, shape = hidden.data_ptr(), hidden.shape

        def pack(saved: torch.Tensor) -> torch.Tensor | _Waiting:
            if saved.data_ptr() != address or saved.shape != shape or not saved.is_floating_point():
                return saved
            # The first block's input follows none: the last one of an earlier pass is gone once that pass is.
            waiting = _Waiting(saved, self._side(saved.device), self._last() if self._last else None, self.ahead)
            self._last = weakref.ref(waiting)
            return waiting

        def unpack(kept: torch.Tensor | _Waiting) -> torch.Tensor:
            return kept.take() if isinstance(kept, _Waiting) else kept

        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            yield

    def _side(self, device: torch.device) -> torch.cuda.Stream | None:
        if device.type != "cuda":
            return None
        if self._stream is None:
            self._stream = torch.cuda.Stream(device)
        return self._stream


class _Waiting:
    """One tensor in main memory, and the way back."""

    def __init__(
        self, tensor: torch.Tensor, stream: torch.cuda.Stream | None, before: _Waiting | None, ahead: bool
    ) -> None:
        self.device, self.stream, self.ahead = tensor.device, stream, ahead
        self.before = before
        self.fetched: torch.Tensor | None = None
        self.host = room_like(tensor, locked=stream is not None)
        if stream is not None:
            stream.wait_stream(torch.cuda.current_stream(tensor.device))
            tensor.record_stream(stream)
        with _on(stream):
            self.host.copy_(tensor, non_blocking=True)

    def fetch(self) -> None:
        """Begin to copy it back, behind all that the stream was given before."""
        if self.fetched is not None:
            return
        # Allocated where it is used, so that its memory is given back in the order of the computing stream.
        self.fetched = torch.empty_like(self.host, device=self.device)
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with _on(self.stream):
            self.fetched.copy_(self.host, non_blocking=True)

    def take(self) -> torch.Tensor:
        self.fetch()
        tensor, self.fetched = self.fetched, None
        if self.stream is not None:
            torch.cuda.current_stream(self.device).wait_stream(self.stream)
        before, self.before = self.before, None
        if self.ahead and before is not None:
            before.fetch()
        return tensor


def _on(stream: torch.cuda.Stream | None) -> torch.cuda.StreamContext | nullcontext[None]:
    return nullcontext() if stream is None else torch.cuda.stream(stream)
