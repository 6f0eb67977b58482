"""Augmentation: the view of each image in each epoch, drawn from a seed, made on whole batches.

What the view of image i in epoch e looks like is a pure function of (seed, e, i). Batch order does not enter, so
every trial of a study sees the same views, and a teacher's logits for them can be computed once and shared. An image
that one epoch shows as it is, the next shows mirrored: two epochs have more to tell than where chance repeats itself
(Jordan, arXiv 2404.00498).
Crop and flip are one gather from the uint8 images: no padded copy, no per-image work.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cifar_tune.config import ViewConfig
from cifar_tune.data.trivial import OPERATIONS, augmented


def as_tensor(array: np.ndarray) -> Tensor:
    """A tensor on the array's memory, also where that is read-only (Ray's object store): never write to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


@dataclass(frozen=True, kw_only=True, slots=True)
class Views:
    """The views of all images in one epoch; each field has one entry an image."""

    rows: Tensor
    """int64 (N,): vertical crop offset, -padding to padding."""
    columns: Tensor
    """int64 (N,): horizontal crop offset."""
    flipped: Tensor
    """bool (N,)."""
    cutout: Tensor
    """float32 (N, 2): centre of the cutout square, as a share of height and width."""
    operations: Tensor
    """int64 (N,): number of TrivialAugment's operation; 0, which is none, without it."""
    strengths: Tensor
    """float32 (N,): of the operation, -1 to 1."""


TRIVIAL = 2**32
"""Added to the epoch where operations are drawn, so that crops are the same with and without them."""


def draw_views(config: ViewConfig, epoch: int, images: int) -> Views:
    """The views of `images` images in `epoch`; entry i depends only on (config.seed, epoch, i)."""
    draws = _draws(config.seed, epoch, (images, 4))
    mirrored_first = _draws(config.seed, 0, (images,)) < 0.5  # epochs are from 1: no other draws have this key
    trivial = _draws(config.seed, TRIVIAL + epoch, (images, 2)) if config.trivial_augment else np.zeros((images, 2))
    offsets = (draws[:, :2] * (2 * config.crop_padding + 1)).astype(np.int64) - config.crop_padding
    return Views(
        rows=torch.from_numpy(offsets[:, 0].copy()),
        columns=torch.from_numpy(offsets[:, 1].copy()),
        flipped=torch.from_numpy((mirrored_first ^ (epoch % 2 == 0)) & config.flip),
        cutout=torch.from_numpy(draws[:, 2:].copy()),
        operations=torch.from_numpy((trivial[:, 0] * len(OPERATIONS)).astype(np.int64)),
        strengths=torch.from_numpy((2 * trivial[:, 1] - 1).astype(np.float32)),
    )


def _draws(seed: int, epoch: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).random(shape, dtype=np.float32)


class Batcher:
    """Makes normalised float batches from uint8 images; everything on one device.

    Args:
        images: uint8 (N, H, W, 3); not copied on CPU, and never written to.
        mean, std: of the three channels, on the scale 0 to 1.
        cutout: side of the Cutout square of `views` in pixels; 0: none.
        trivial: whether `views` makes TrivialAugment's operations.
        device: where images lie and batches are made.
    """

    def __init__(
        self,
        images: np.ndarray,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        device: torch.device | str = "cpu",
        cutout: int = 0,
        *,
        trivial: bool = False,
    ) -> None:
        self.images = as_tensor(images).to(device)
        self._cutout, self._trivial = cutout, trivial
        self._scale = 1 / (255 * torch.tensor(std, dtype=torch.float32, device=device))
        self._shift = torch.tensor(mean, dtype=torch.float32, device=device) * 255 * self._scale

    def plain(self, start: int, stop: int) -> Tensor:
        """Images start to stop without augmentation: float32 (n, 3, H, W), channels_last in memory."""
        return self._normalised(self.images[start:stop])

    def views(self, indices: Tensor, epoch_views: Views) -> Tensor:
        """The views of the images at `indices` (int64 (n,)): float32 (n, 3, H, W), channels_last in memory."""
        height, width = self.images.shape[1:3]
        rows = _reflected(epoch_views.rows[indices], height)
        columns = _reflected(epoch_views.columns[indices], width)
        columns = torch.where(epoch_views.flipped[indices, None], columns.flip(1), columns)
        pixels = indices[:, None, None] * (height * width) + rows[:, :, None] * width + columns[:, None, :]
        batch = self.images.reshape(-1, 3)[pixels]
        if self._trivial:
            batch = augmented(batch, epoch_views.operations[indices], epoch_views.strengths[indices])
        normalised = self._normalised(batch)
        if self._cutout:
            normalised = normalised * self._cutout_mask(epoch_views.cutout[indices], height, width)
        return normalised

    def _normalised(self, images: Tensor) -> Tensor:
        # images are N, H, W, C in memory, which is what channels_last means: no copy is needed for the layout
        return torch.addcmul(-self._shift, images.float(), self._scale).permute(0, 3, 1, 2)

    def _cutout_mask(self, centres: Tensor, height: int, width: int) -> Tensor:
        half = self._cutout / 2

        def outside(centre: Tensor, size: int) -> Tensor:
            return (torch.arange(size, device=centre.device) + 0.5 - centre[:, None] * size).abs() > half

        rows, columns = outside(centres[:, 0], height), outside(centres[:, 1], width)
        return (rows[:, None, :, None] | columns[:, None, None, :]).float()


def _reflected(offsets: Tensor, size: int) -> Tensor:
    """Positions offset..offset+size of each crop, mirrored at the border: (n,) -> (n, size), int64 in 0..size-1."""
    positions = offsets[:, None] + torch.arange(size, device=offsets.device)
    positions = positions.abs()
    return (size - 1) - ((size - 1) - positions).abs()
