"""TrivialAugment on batches: each image gets one operation, of one strength, both drawn at random.

Source: Müller and Hutter, "TrivialAugment: Tuning-free yet state-of-the-art data augmentation", ICCV 2021, whose wide
ranges these are; of R3's AutoAugment family it is the one without anything to tune. Operations are made on all images
of a batch that drew them at the same time.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from cifar_tune.libraries import import_torchvision

GREY = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in a grey value (ITU-R 601)."""

Operation = Callable[[Tensor, Tensor], Tensor]
"""Images float32 (n, 3, H, W) of 0 to 255, and strengths (n,) of -1 to 1 -> images."""


def _blended(images: Tensor, other: Tensor, strengths: Tensor) -> Tensor:
    """From the other image (-1) over the image (0) to its exaggeration (1)."""
    factor = 1 + 0.99 * strengths.view(-1, 1, 1, 1)
    return (other + factor * (images - other)).clamp(0, 255)


def _grey(images: Tensor) -> Tensor:
    return (images * torch.tensor(GREY, device=images.device).view(1, 3, 1, 1)).sum(1, keepdim=True)


def _smoothed(images: Tensor) -> Tensor:
    """Each inner pixel with a share of 5/13, its neighbours with 1/13 each; those of the border stay."""
    kernel = torch.full((3, 1, 3, 3), 1 / 13, device=images.device)
    kernel[:, :, 1, 1] = 5 / 13
    smooth = images.clone()
    smooth[:, :, 1:-1, 1:-1] = functional.conv2d(images, kernel, groups=3)
    return smooth


def _moved(images: Tensor, matrices: Tensor) -> Tensor:
    """Images at places that matrices (n, 2, 3) take from theirs; nothing is black."""
    grid = functional.affine_grid(matrices, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="nearest", align_corners=False)


def _matrices(strengths: Tensor, **entries: Tensor) -> Tensor:
    """Identities (n, 2, 3) but for entries such as `at01`, row 0 and column 1."""
    matrices = torch.eye(2, 3, device=strengths.device).repeat(len(strengths), 1, 1)
    for name, values in entries.items():
        matrices[:, int(name[2]), int(name[3])] = values
    return matrices


def _rotated(images: Tensor, strengths: Tensor) -> Tensor:
    angles = strengths * math.radians(135)
    sine, cosine = angles.sin(), angles.cos()
    return _moved(images, _matrices(strengths, at00=cosine, at01=-sine, at10=sine, at11=cosine))


def _posterized(images: Tensor, strengths: Tensor) -> Tensor:
    steps = 2.0 ** (strengths.abs() * 6).round().view(-1, 1, 1, 1)  # 8 bits to 2
    return (images / steps).floor() * steps


def _solarized(images: Tensor, strengths: Tensor) -> Tensor:
    limits = 255 * (1 - strengths.abs().view(-1, 1, 1, 1))
    return torch.where(images > limits, 255 - images, images)


def _stretched(images: Tensor, strengths: Tensor) -> Tensor:  # noqa: ARG001 - it has no strength
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return torch.where(high > low, (images - low) * 255 / (high - low).clamp(min=1), images)


def _equalized(images: Tensor, strengths: Tensor) -> Tensor:  # noqa: ARG001 - it has no strength
    return import_torchvision().transforms.functional.equalize(images.to(torch.uint8)).float()


OPERATIONS: dict[str, Operation] = {
    "identity": lambda images, _: images,
    "shear_x": lambda images, s: _moved(images, _matrices(s, at01=0.99 * s)),
    "shear_y": lambda images, s: _moved(images, _matrices(s, at10=0.99 * s)),
    "translate_x": lambda images, s: _moved(images, _matrices(s, at02=2 * s)),
    "translate_y": lambda images, s: _moved(images, _matrices(s, at12=2 * s)),
    "rotate": _rotated,
    "brightness": lambda images, s: _blended(images, torch.zeros_like(images), s),
    "colour": lambda images, s: _blended(images, _grey(images), s),
    "contrast": lambda images, s: _blended(images, _grey(images).mean((1, 2, 3), keepdim=True), s),
    "sharpness": lambda images, s: _blended(images, _smoothed(images), s),
    "posterize": _posterized,
    "solarize": _solarized,
    "autocontrast": _stretched,
    "equalize": _equalized,
}
"""Those of TrivialAugment; translations go up to the whole side, as 32 pixels of CIFAR's are."""


def augmented(images: Tensor, operations: Tensor, strengths: Tensor) -> Tensor:
    """Each image with its operation.

    Args:
        images: uint8 (n, H, W, 3).
        operations: int64 (n,), a number of OPERATIONS.
        strengths: float32 (n,), -1 to 1.

    Returns:
        float32 (n, H, W, 3), 0 to 255, contiguous.
    """
    found = images.permute(0, 3, 1, 2).float()
    for number, operation in enumerate(OPERATIONS.values()):
        mine = (operations == number).nonzero()[:, 0]
        if number and len(mine):
            found[mine] = operation(found[mine].contiguous(), strengths[mine])
    return found.permute(0, 2, 3, 1).contiguous()
