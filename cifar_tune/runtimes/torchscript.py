"""TorchScript: traced, frozen and optimised for inference. What is used where torch.compile fails (R12)."""

from __future__ import annotations

import torch

from cifar_tune.config import Variant
from cifar_tune.runtimes.base import Runnable, Runtime, Source, quiet
from cifar_tune.runtimes.torch import torch_runnable, torch_scope


def load(source: Source) -> Runnable:
    """See `Runtime`."""
    model = source.module()
    image = source.prepared(source.example)
    with quiet(), torch_scope(source.variant, source.device):  # deprecated, and what runs where torch.compile does not
        traced = torch.jit.trace(model, image, check_trace=False)
        call = torch.jit.optimize_for_inference(torch.jit.freeze(traced))
    return torch_runnable(source, model, call)


RUNTIME = Runtime(
    load=load,
    variants=(Variant(runtime="torchscript"), Variant(runtime="torchscript", channels_last=True)),
)
