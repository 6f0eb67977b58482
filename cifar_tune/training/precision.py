"""Which arithmetic trains a model fastest here: what `--precision auto` stands for.

That is measured, not read off a processor's features: bf16 doubles the speed of dense convolutions on CPUs with matrix
units (AMX), and on some that have only bf16 instructions; on others with those same instructions it costs a sixth of
it (docs/log.md).
"""

from __future__ import annotations

import contextlib
import functools
import time

import torch
from torch import Tensor, nn

from cifar_tune.config import TrainPrecision
from cifar_tune.deployed.torch import DTYPES
from cifar_tune.models.registry import architecture, place

BF16_MINIMUM_SIZE = 16
"""Input side from which bf16 pays on a CPU: below, conversions cost more than they save."""
MINIMUM_GAIN = 1.2
"""Speed over that of the arithmetic it would replace from which another is taken. On CPUs 0.9 and 1.8 were seen, so
that chance does not decide."""
ROUNDS = 5
PROBE_IMAGES = {"cpu": 16, "cuda": 512}
"""Few would leave a GPU waiting for launches, whatever the arithmetic."""


def training_precision(asked: TrainPrecision, model: str, device: str, image_size: int) -> TrainPrecision:
    """The arithmetic of a model's training steps: what is asked for, or, of `auto`, the fastest.

    A run asks once a model and tells its workers: measured by each of them, it might differ between two trials.
    """
    return fastest(device, dense=architecture(model).dense, image_size=image_size) if asked == "auto" else asked


def answering_precision(model: str, device: str, image_size: int) -> TrainPrecision:
    """The arithmetic of a teacher's answers; FP16 on CUDA is as fast as bf16 there, and finer."""
    return "fp16" if device == "cuda" else training_precision("auto", model, device, image_size)


def fastest(device: str, *, dense: bool, image_size: int) -> TrainPrecision:
    """What `auto` stands for.

    On a CPU bf16 is only for dense convolutions: it halves the speed of depthwise models and of 8x8 inputs
    (`python benchmarks/train_step.py` shows it). On CUDA FP16 must be faster than bf16, which needs no loss scaling,
    and the faster of both than fp32, whose convolutions are TF32 wherever the GPU has that (torch's default).
    """
    if device == "cpu":
        suits = dense and image_size >= BF16_MINIMUM_SIZE
        return "bf16" if suits and gain("bf16", "fp32", "cpu") >= MINIMUM_GAIN else "fp32"
    half = "fp16" if gain("fp16", "bf16", device) >= MINIMUM_GAIN else "bf16"
    return half if gain(half, "fp32", device) >= MINIMUM_GAIN else "fp32"


@functools.cache
def gain(precision: str, over: str, device: str) -> float:
    """How many times as fast a dense convolution's training step is in one precision as it is in another.

    Measured once a process, in a fraction of a second, on the threads that torch has now: the fastest of some
    alternated rounds, so that what else runs here is not in it.
    """
    forked = [] if device == "cpu" else None
    with torch.enable_grad(), torch.random.fork_rng(forked):  # who asks may have gradients off, and goes on drawing
        convolution = place(nn.Conv2d(64, 64, 3, padding=1, bias=False), device)
        images = torch.randn(PROBE_IMAGES[device], 64, 32, 32, device=device)
        images = images.to(memory_format=torch.channels_last).requires_grad_()
        taken = [[_step_seconds(convolution, images, p) for p in (precision, over)] for _ in range(ROUNDS)]
    own, other = (min(times) for times in zip(*taken, strict=True))
    return other / own


def _step_seconds(module: nn.Module, images: Tensor, precision: str) -> float:
    started = time.perf_counter()
    with autocast(precision, images.device.type):
        answers = module(images)
    answers.sum().backward()
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def autocast(precision: str, device: str) -> contextlib.AbstractContextManager[object]:
    """The autocast context of a precision, which casts each weight once; fp32 is none."""
    dtype = DTYPES.get(precision)
    return contextlib.nullcontext() if dtype is None else torch.autocast(device, dtype=dtype)
