"""The first convolution of a fresh model: filters that make the patches of training images white.

Its outputs are then uncorrelated and of one size, so the layers behind it learn sooner (Page, "How to train your ResNet
8", 2019; Jordan, arXiv 2404.00498). The filters are a start: they are trained like all others.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cifar_tune.data.augment import Batcher

WIDEST = 5
"""Side of the largest filters that are whitened."""
PIXELS = 500_000
"""Of training images that are looked at."""
FLOOR = 5e-4
"""Added to a direction's variance: what is hardly there is not blown up to the size of the rest (Jordan)."""
LEAST = 1e-6
"""Share of the largest variance below which a direction is none: grey images have a third of the colours'."""


def first_filters(model: nn.Module) -> nn.Conv2d | None:
    """The convolution of the images that is whitened; None: there is none whose filters overlap and are narrow.

    The sizes of its filters say what is rare in images, not what is of use.
    """
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None or first.in_channels != 3 or max(first.kernel_size) > WIDEST:
        return None
    return first if first.stride[0] < first.kernel_size[0] else None  # else patches, as of a Vision Transformer


def whiten(model: nn.Module, images: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Start the first convolution with whitening filters and their negatives; the rest of its filters stay.

    Does nothing to a model that has no such convolution.

    Args:
        images: uint8 (N, H, W, 3), of training; some at equal distances are looked at.
        mean, std: of the channels, on the scale 0 to 1, as the model's input is normalised.
    """
    first = first_filters(model)
    if first is None:
        return
    height, width = images.shape[1:3]
    rows = np.linspace(0, len(images) - 1, min(len(images), max(1, PIXELS // (height * width)))).astype(np.int64)
    batch = Batcher(images[rows], mean, std).plain(0, len(rows))
    filters = whitening_filters(batch, first.kernel_size)[: first.out_channels // 2]
    with torch.no_grad():
        first.weight[: 2 * len(filters)] = torch.cat([filters, -filters])


def whitening_filters(images: Tensor, kernel: tuple[int, ...]) -> Tensor:
    """Principal directions of patches, each scaled to a variance of 1: float32 (n, 3, *kernel), most variance first.

    Args:
        images: float32 (N, 3, H, W).
        kernel: height and width of a patch; there are at most 3 * height * width directions, and none in flat images.
    """
    patches = functional.unfold(images.contiguous(), kernel).permute(0, 2, 1).flatten(0, 1)
    variances, directions = torch.linalg.eigh(torch.cov(patches.T))
    there = variances > LEAST * variances[-1].clamp(min=1)  # what is normalised has a variance of about 1
    scaled = directions.T[there] / torch.sqrt(variances[there, None] + FLOOR)
    return scaled.flip(0).reshape(len(scaled), 3, *kernel)
