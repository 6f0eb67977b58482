"""RUNTIMES: name -> how a model becomes a callable. Adding one is one file and one line here."""

from __future__ import annotations

from cifar_tune.runtimes import torch as torch_runtime
from cifar_tune.runtimes.base import Runnable, Runtime, UnsupportedError

__all__ = ["RUNTIMES", "Runnable", "Runtime", "UnsupportedError"]

RUNTIMES: dict[str, Runtime] = {
    "torch": torch_runtime.build,
}
