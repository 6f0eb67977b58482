"""PyTorch itself: eager or torch.compile; FP32, autocast or half weights; contiguous or channels_last."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from cifar_tune.config import Variant
from cifar_tune.deployed.torch import autocast, compiled
from cifar_tune.errors import UnsupportedError
from cifar_tune.runtimes.base import Runnable, Runtime, Source, save_program, wait_for, weights_mb


def load(source: Source) -> Runnable:
    """See `Runtime`."""
    variant, device = source.variant, source.device
    model = source.module()
    if variant.compile != "none":
        require_compiler(device)
        if variant.compile == "reduce-overhead" and device == "cpu":
            raise UnsupportedError("reduce-overhead is CUDA graphs, and there is no GPU here")
    return torch_runnable(source, model, compiled(model, variant.compile))


def torch_runnable(source: Source, model: nn.Module, call: Callable[[Tensor], Tensor]) -> Runnable:
    """What PyTorch itself runs, as a Runnable: its scope, device and weights are the model's."""
    return Runnable(
        call=call,
        scope=lambda: torch_scope(source.variant, source.device),
        synchronize=wait_for(source.device),
        prepare_input=source.prepared,
        artifact_mb=weights_mb(model),
    )


def require_compiler(device: str) -> None:
    """UnsupportedError where inductor finds no C++ compiler for the CPU."""
    if device != "cpu":
        return
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, OSError) as error:
        raise UnsupportedError("torch.compile needs a C++ compiler on CPU, and none was found (install g++)") from error


@contextlib.contextmanager
def torch_scope(variant: Variant, device: str) -> Iterator[None]:
    """No grad, and autocast where the precision is one."""
    with torch.inference_mode(), autocast(variant.precision, device):
        yield


RUNTIME = Runtime(
    load=load,
    deploy=save_program,
    variants=(
        Variant(precision="bf16", channels_last=True),
        Variant(precision="bf16", compile="default", channels_last=True),
        Variant(precision="fp16_weights", channels_last=True),
        Variant(compile="reduce-overhead", channels_last=True),
        Variant(compile="max-autotune", channels_last=True),
    ),
    cuda_variants=(
        Variant(precision="fp16", compile="reduce-overhead", channels_last=True),
        Variant(precision="fp16", compile="max-autotune", channels_last=True),
        Variant(precision="fp16_weights", compile="default", channels_last=True),
        Variant(precision="fp16_weights", compile="reduce-overhead", channels_last=True),
        Variant(precision="fp16_weights", compile="max-autotune", channels_last=True),
    ),
)
