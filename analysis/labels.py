"""Where the labels of a picture go: beside their points, clear of the points and of each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_DIRECTIONS = ((-1, 1), (0, 1), (1, -1), (0, -1), (-1, -1), (1, 1), (-1, 0), (1, 0))
"""Left above first: nothing is faster and more accurate than a front, so there is room."""
_DISTANCES = (8, 18, 32, 48, 66, 88, 112, 140, 170)
"""Gaps between a point and its label that are tried, in pixels."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels, y upwards."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """The area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, width) * max(0.0, height)

    def inside(self, other: Box) -> bool:
        """Whether the other covers all of it."""
        left, right = other.left <= self.left, self.right <= other.right
        return left and right and other.bottom <= self.bottom and self.top <= other.top


def around(x: float, y: float, half: float) -> Box:
    """The square whose centre is a point."""
    return Box(x - half, y - half, x + half, y + half)


def place(
    points: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]], taken: Sequence[Box], bounds: Box
) -> list[Box]:
    """A box for the label of each point, as near as there is room; the least overlap where there is none.

    Args:
        points: x and y in pixels, y upwards.
        sizes: width and height of each label, pixels.
        taken: what no label may cover.
        bounds: what every label must lie in.
    """
    placed: list[Box] = []
    for (x, y), (width, height) in zip(points, sizes, strict=True):
        tried = [_beside(x, y, width, height, way, gap) for gap in _DISTANCES for way in _DIRECTIONS]
        within = [box for box in tried if box.inside(bounds)] or tried
        covered = [math.fsum(box.overlap(other) for other in (*taken, *placed)) for box in within]
        placed.append(within[covered.index(min(covered))])
    return placed


def _beside(x: float, y: float, width: float, height: float, way: tuple[int, int], gap: float) -> Box:
    """The label's box in a direction from a point, at a distance."""
    centre_x = x + way[0] * (gap + width / 2)
    centre_y = y + way[1] * (gap + height / 2)
    return Box(centre_x - width / 2, centre_y - height / 2, centre_x + width / 2, centre_y + height / 2)
