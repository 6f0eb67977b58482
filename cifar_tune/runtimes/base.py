"""What every runtime gives: a callable, the scope it is called in, and how to wait for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from cifar_tune.config import Variant


class UnsupportedError(RuntimeError):
    """The variant cannot run on this machine; the message says why. It becomes a row, and the run goes on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Runnable:
    """A model ready to answer."""

    call: Callable[[Tensor], Tensor]
    """Images (N, 3, H, W) float32 on the device -> logits (N, classes). A shape's first call may compile."""
    scope: Callable[[], contextlib.AbstractContextManager[object]]
    """Entered once around any number of calls: no grad, autocast. Not part of a call's latency."""
    synchronize: Callable[[], object]
    """Returns when the device is done."""
    prepare_input: Callable[[Tensor], Tensor]
    """Gives an input batch the layout that the variant wants."""
    weights_mb: float
    """Weights and buffers as held in memory, 10**6 bytes."""


class Runtime(Protocol):
    """Turn a trained float32 model into what answers; UnsupportedError where it cannot run here."""

    def __call__(self, model: nn.Module, variant: Variant, device: str) -> Runnable:
        """Give the runnable of a model and variant on a device (cpu or cuda)."""
        ...
