"""One CUDA graph, captured by hand: a call copies the image in and replays, without a check or a launch a kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from cifar_tune.config import Variant
from cifar_tune.deployed.cudagraph import capture
from cifar_tune.errors import UnsupportedError
from cifar_tune.runtimes.base import Runnable, Runtime, Source, save_program
from cifar_tune.runtimes.torch import torch_runnable


def load(source: Source) -> Runnable:
    """See `Runtime`. The answer is overwritten by the next call."""
    if source.device != "cuda":
        raise UnsupportedError("a CUDA graph needs a CUDA device")
    model = source.module()
    image = source.prepared(source.example).clone(memory_format=torch.preserve_format)
    graph, logits = capture(model, image, source.variant.precision)

    def call(images: Tensor) -> Tensor:
        image.copy_(images)
        graph.replay()
        return logits

    return torch_runnable(source, model, call)


RUNTIME = Runtime(
    load=load,
    deploy=save_program,
    variants=(
        Variant(runtime="cudagraph", channels_last=True),
        Variant(runtime="cudagraph", precision="fp16", channels_last=True),
        Variant(runtime="cudagraph", precision="fp16_weights", channels_last=True),
    ),
)
