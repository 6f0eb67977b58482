"""What the INT8 variants share: the images they are calibrated on, and what dynamic quantisation leaves out."""

from __future__ import annotations

import contextlib
import copy
import dataclasses

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cifar_tune.data.augment import Batcher
from cifar_tune.data.datasets import ImageData

CALIBRATION_IMAGES = 512
"""Training images, evenly spaced: the ranges of the activations are read off them."""
NOTHING_TO_QUANTISE = "there is nothing in this model that could be quantised: it would be FP32 by another name"
"""Why such a row is `unsupported`."""


def calibration_data(data: ImageData) -> ImageData:
    """The data with only the images that calibration sees, for a process that is given no more.

    Where only latency is measured, on random images, there are no training images: the random ones calibrate too.
    """
    images, labels = data.train_images, data.train_labels
    if not len(images):
        images, labels = data.test_images, data.test_labels
    rows = np.linspace(0, len(images) - 1, min(CALIBRATION_IMAGES, len(images))).astype(int)
    return dataclasses.replace(
        data,
        train_images=images[rows],
        train_labels=labels[rows],
        validation_images=data.validation_images[:0],
        validation_labels=data.validation_labels[:0],
        test_images=data.test_images[:0],
        test_labels=data.test_labels[:0],
    )


def calibration_images(data: ImageData) -> Tensor:
    """All training images of `calibration_data`, standardised, not augmented: float32 (n, 3, H, W)."""
    return Batcher(data.train_images, data.mean, data.std).plain(0, len(data.train_images))


def convolution_share(model: nn.Module, example: Tensor) -> float:
    """Share of a model's multiplications that are in convolutions; 0 for a model without any.

    Args:
        example: float32 (1, 3, H, W).
    """
    device = next(model.parameters(), example).device
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad(), contextlib.suppress(RuntimeError):
        copy.deepcopy(model).eval()(example.to(device))
    counts = counter.get_flop_counts().get("Global", {})
    total = sum(counts.values())
    return sum(n for operator, n in counts.items() if "convolution" in str(operator)) / total if total else 0.0


def left_out(share: float) -> str | None:
    """What dynamic quantisation does not touch, in words (R31); None where that is nothing.

    Args:
        share: `convolution_share` of the model.
    """
    if share == 0:
        return None
    return (
        f"dynamic quantisation is only of linear layers; {100 * share:.1f} % of this model's arithmetic is in "
        "convolutions, which stay FP32: the static variant quantises them too"
    )
