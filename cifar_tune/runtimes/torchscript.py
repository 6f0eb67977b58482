"""TorchScript: traced, frozen and optimised for inference. What is used where torch.compile fails (R12)."""

from __future__ import annotations

from pathlib import Path

import torch

from cifar_tune.config import Variant
from cifar_tune.models.registry import frozen
from cifar_tune.runtimes.base import Runnable, Runtime, Source, quiet
from cifar_tune.runtimes.torch import torch_runnable, torch_scope


def load(source: Source) -> Runnable:
    """See `Runtime`."""
    model = source.module()
    with quiet(), torch_scope(source.variant, source.device):
        call = frozen(model, source.prepared(source.example))
    return torch_runnable(source, model, call)


def save_script(source: Source, folder: Path) -> None:
    """The frozen trace as a file."""
    with quiet(), torch_scope(source.variant, source.device):
        script = frozen(source.module(), source.prepared(source.example), portable=True)
        torch.jit.save(script, str(folder / "model.ts"))


RUNTIME = Runtime(
    load=load,
    deploy=save_script,
    variants=(Variant(runtime="torchscript"), Variant(runtime="torchscript", channels_last=True)),
)
