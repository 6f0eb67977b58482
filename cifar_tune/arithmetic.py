"""Which arithmetic trains a model fastest here: what `--precision auto` stands for.

On a CPU that is measured, not read off its features: bf16 doubles the speed of dense convolutions on processors with
matrix units (AMX), and on some that have bf16 instructions alone; on others with those same instructions it costs a
sixth of it (docs/log.md).
"""

from __future__ import annotations

import contextlib
import functools
import time

import torch
from torch import Tensor, nn

from cifar_tune.config import TrainConfig
from cifar_tune.models import architecture, place

BF16_MINIMUM_SIZE = 16
"""Input side from which bf16 pays on a CPU: below, conversions cost more than they save."""
BF16_MINIMUM_GAIN = 1.2
"""Speed of a dense convolution in bf16, in that of fp32, from which bf16 is taken. 0.9 and 1.8 were seen: chance cannot
decide."""
ROUNDS = 5


def training_precision(config: TrainConfig, image_size: int) -> str:
    """The arithmetic of a training's steps: fp32, bf16 or fp16.

    `auto` on CUDA is FP16 with loss scaling; on a CPU bf16 where it pays, for dense convolutions alone: it halves the
    speed of depthwise models and of 8x8 inputs (`python benchmarks/train_step.py` shows it).
    """
    if config.precision != "auto":
        return config.precision
    if config.device == "cuda":
        return "fp16"
    return cpu_precision(dense=architecture(config.model).dense, image_size=image_size)


def cpu_precision(*, dense: bool, image_size: int) -> str:
    """bf16 or fp32, whichever is faster on this processor."""
    return "bf16" if dense and image_size >= BF16_MINIMUM_SIZE and bf16_gain() >= BF16_MINIMUM_GAIN else "fp32"


@functools.cache
def bf16_gain() -> float:
    """Speed of a dense convolution's training step in bf16, in that of fp32, on the threads that torch has now.

    Measured once a process, in a fraction of a second: the fastest of some alternated rounds, so that what else runs
    here is not in it.
    """
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):  # whoever asks may have set both otherwise
        convolution = place(nn.Conv2d(64, 64, 3, padding=1, bias=False), "cpu")
        images = torch.randn(16, 64, 32, 32).to(memory_format=torch.channels_last).requires_grad_()
        taken = [[_step_seconds(convolution, images, p) for p in ("fp32", "bf16")] for _ in range(ROUNDS)]
    fp32, bf16 = (min(times) for times in zip(*taken, strict=True))
    return fp32 / bf16


def _step_seconds(module: nn.Module, images: Tensor, precision: str) -> float:
    started = time.perf_counter()
    with autocast(precision, "cpu"):
        answers = module(images)
    answers.sum().backward()
    return time.perf_counter() - started


def autocast(precision: str, device: str) -> contextlib.AbstractContextManager[object]:
    """The autocast context of a precision; fp32 is none."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return contextlib.nullcontext() if dtype is None else torch.autocast(device, dtype=dtype)
