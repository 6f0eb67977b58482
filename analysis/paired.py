"""Accuracies and their uncertainty: rows share the test images, so they are compared image by image."""

# statsmodels ships no types:
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959964
"""Two-sided 95 % quantile of the normal distribution."""


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


def lower_bound(accuracy: float, images: int, level: float = 0.95) -> float:
    """One-sided lower bound (Wilson's) of an accuracy (0 to 1) over so many images, at a level of confidence."""
    return _wilson(accuracy, images, alpha=2 * (1 - level))[0]  # a one-sided bound leaves out half of alpha


def interval(accuracy: float, images: int) -> tuple[float, float]:
    """Two-sided 95 % interval (Wilson's) of an accuracy (0 to 1) over so many images."""
    return _wilson(accuracy, images, alpha=0.05)


def _wilson(accuracy: float, images: int, alpha: float) -> tuple[float, float]:
    from statsmodels.stats.proportion import proportion_confint  # two seconds of import that not every caller needs

    found = proportion_confint(accuracy * images, images, alpha=alpha, method="wilson")
    return cast("tuple[float, float]", found)
