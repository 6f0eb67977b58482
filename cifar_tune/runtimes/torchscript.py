"""TorchScript: traced, frozen and optimised for inference. What is used where torch.compile fails (R12)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from cifar_tune.config import Variant
from cifar_tune.runtimes.base import Runnable, Runtime, Source, quiet
from cifar_tune.runtimes.torch import torch_runnable, torch_scope


def load(source: Source) -> Runnable:
    """See `Runtime`."""
    model = source.module()
    with quiet(), torch_scope(source.variant, source.device):
        call = torch.jit.optimize_for_inference(_frozen(model, source))
    return torch_runnable(source, model, call)


def save_script(source: Source, folder: Path) -> None:
    """The frozen trace as a file."""
    with quiet(), torch_scope(source.variant, source.device):
        torch.jit.save(_frozen(source.module(), source), str(folder / "model.ts"))


def _frozen(model: nn.Module, source: Source) -> torch.jit.ScriptModule:
    # deprecated, and what runs where torch.compile does not
    return torch.jit.freeze(torch.jit.trace(model, source.prepared(source.example), check_trace=False))


RUNTIME = Runtime(
    load=load,
    deploy=save_script,
    variants=(Variant(runtime="torchscript"), Variant(runtime="torchscript", channels_last=True)),
)
