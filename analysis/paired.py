"""Accuracies and their uncertainty: rows share the test images, so they are compared image by image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959964
"""Two-sided 95 % quantile of the normal distribution."""
Z95_ONE_SIDED = 1.644854


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedDifference:
    """Accuracy of one row minus that of another over the same images, in points (0 to 100)."""

    points: float
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end of the 95 % interval."""

    def __str__(self) -> str:
        return f"{self.points:+.2f} points (95 % interval {self.low:+.2f} to {self.high:+.2f})"


def unpack_correct(packed: bytes, images: int) -> NDArray[np.bool_]:
    """Packed bits, most significant first -> bool (images,). ValueError where the length does not fit."""
    wanted = (images + 7) // 8
    if len(packed) != wanted:
        raise ValueError(f"correct holds {len(packed)} bytes; allowed are {wanted}, for {images} test images")
    return np.unpackbits(np.frombuffer(packed, dtype=np.uint8), count=images).astype(np.bool_)


def paired_difference(first: bytes, second: bytes, images: int) -> PairedDifference:
    """Accuracy of `first` minus that of `second` in points, both packed bits over the same images.

    The interval is McNemar's normal one with half an image added to each cell (Agresti & Min, Statistics in
    Medicine 24, 2005), so that rows without any disagreement do not claim certainty.
    """
    a, b = unpack_correct(first, images), unpack_correct(second, images)
    gained, lost = int((a & ~b).sum()), int((b & ~a).sum())
    total = images + 2
    centre = (gained - lost) / total
    error = math.sqrt((gained + lost + 1) / total - centre**2) / math.sqrt(total)
    return PairedDifference(
        points=100 * (gained - lost) / images, low=100 * (centre - Z95 * error), high=100 * (centre + Z95 * error)
    )


def standard_error(accuracy: float, images: int) -> float:
    """Binomial standard error of an accuracy (0 to 1) over so many images, as a fraction."""
    return math.sqrt(accuracy * (1 - accuracy) / images)


def lower_bound(accuracy: float, images: int) -> float:
    """One-sided 95 % lower bound (Wilson's) of an accuracy (0 to 1) over so many images."""
    return _wilson(accuracy, images, Z95_ONE_SIDED)[0]


def interval(accuracy: float, images: int) -> tuple[float, float]:
    """Two-sided 95 % interval (Wilson's) of an accuracy (0 to 1) over so many images."""
    return _wilson(accuracy, images, Z95)


def _wilson(accuracy: float, images: int, z: float) -> tuple[float, float]:
    square = z**2
    centre = accuracy + square / (2 * images)
    half = z * math.sqrt(accuracy * (1 - accuracy) / images + square / (4 * images**2))
    return (centre - half) / (1 + square / images), (centre + half) / (1 + square / images)
