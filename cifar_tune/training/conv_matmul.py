"""Wide convolutions of small maps as matrix products, which is how a CPU with matrix units trains them fastest.

oneDNN's backward pass of a 3x3 convolution takes two to five times as long as its arithmetic needs where many channels
meet few pixels: with 512 channels on 4x4 pixels it is over a third of ResNet-18's step. The same sum as one product of
patches and weights is faster there, and slower everywhere else (figures in docs/log.md).
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

MOST_PIXELS = 16
"""Output pixels a channel up to which the product is faster."""
FEWEST_WEIGHTS = 2**20


def use_matmul(model: nn.Module) -> None:
    """Let a model's wide 3x3 convolutions answer by `conv3x3_as_matmul` where their maps are small; in place.

    Parameters and their names stay as they are. Meant for training on a CPU in bf16.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and _suits(module):
            module.forward = functools.partial(_forward, module)


def _suits(module: nn.Conv2d) -> bool:
    shape = (module.kernel_size, module.padding, module.dilation, module.groups, module.padding_mode)
    plain = shape == ((3, 3), (1, 1), (1, 1), 1, "zeros") and module.stride in ((1, 1), (2, 2))
    return plain and module.bias is None and module.weight.numel() >= FEWEST_WEIGHTS


def _forward(module: nn.Conv2d, input: Tensor) -> Tensor:  # noqa: A002 - the name that torch gives it
    stride = module.stride[0]
    if math.prod(_output_size(input, stride)) > MOST_PIXELS:
        return functional.conv2d(input, module.weight, stride=stride, padding=1)
    return conv3x3_as_matmul(input, module.weight, stride)


def _output_size(images: Tensor, stride: int) -> tuple[int, int]:
    height, width = images.shape[2:]
    return (height - 1) // stride + 1, (width - 1) // stride + 1


def conv3x3_as_matmul(images: Tensor, weight: Tensor, stride: int) -> Tensor:
    """A 3x3 convolution with padding 1: (N, C, H, W) and (K, C, 3, 3) -> (N, K, H', W'), channels_last in memory."""
    weight = weight.to(images.dtype)
    (height, width), (rows, columns) = images.shape[2:], _output_size(images, stride)
    padded = functional.pad(images, (1, 1, 1, 1)).permute(0, 2, 3, 1)
    taps = [padded[:, i : i + height : stride, j : j + width : stride] for i in range(3) for j in range(3)]
    patches = torch.cat(taps, dim=3).reshape(len(images) * rows * columns, -1)
    answers = patches @ weight.permute(2, 3, 1, 0).reshape(patches.shape[1], -1)
    return answers.reshape(len(images), rows, columns, -1).permute(0, 3, 1, 2)
