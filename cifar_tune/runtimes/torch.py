"""PyTorch itself: eager or torch.compile, FP32 or autocast, contiguous or channels_last."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from cifar_tune.config import Variant
from cifar_tune.runtimes.base import Runnable, UnsupportedError
from cifar_tune.training import autocast


def build(model: nn.Module, variant: Variant, device: str) -> Runnable:
    """See `Runtime`. The model's own layout is changed in place."""
    layout = torch.channels_last if variant.channels_last else torch.contiguous_format
    model = model.eval().to(device).to(memory_format=layout)  # pyright: ignore[reportCallIssue]
    if variant.compile == "none":
        call = model
    else:
        require_compiler(device)
        # dynamo would take a second batch size for a dynamic shape and measure a slower kernel
        call = torch.compile(model, mode=variant.compile, dynamic=False)
    return Runnable(
        call=call,
        scope=lambda: _scope(variant, device),
        synchronize=torch.cuda.synchronize if device == "cuda" else _nothing_to_wait_for,
        prepare_input=lambda images: _prepare_input(images, layout),
        weights_mb=weights_mb(model),
    )


def require_compiler(device: str) -> None:
    """UnsupportedError where torch.compile for the CPU finds no C++ compiler."""
    if device != "cpu":
        return
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, OSError) as error:
        raise UnsupportedError("torch.compile needs a C++ compiler on CPU, and none was found (install g++)") from error


def weights_mb(model: nn.Module) -> float:
    """Parameters and buffers in memory, 10**6 bytes."""
    return sum(t.numel() * t.element_size() for t in itertools.chain(model.parameters(), model.buffers())) / 1e6


def _prepare_input(images: Tensor, layout: torch.memory_format) -> Tensor:
    return images.contiguous(memory_format=layout)


@contextlib.contextmanager
def _scope(variant: Variant, device: str) -> Iterator[None]:
    with torch.inference_mode(), autocast(variant.precision, device):
        yield


def _nothing_to_wait_for() -> None:
    """CPU calls return when they are done."""
