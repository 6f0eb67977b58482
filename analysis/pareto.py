"""Pareto fronts: NumPy arrays -> masks, areas and their bootstrap. All objectives are minimised here.

A caller that maximises negates once, before it calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]

_MEDIANS = 200
"""Bootstrap medians of one quantity, among which the draws pick."""


def _checked(points: Any, columns: int | None = None) -> Floats:
    array = np.asarray(points, dtype=np.float64)
    if array.ndim != 2 or (columns is not None and array.shape[1] != columns):
        raise ValueError(f"points have shape {array.shape}; allowed is (points, {columns or 'objectives'})")
    if np.isnan(array).any():
        raise ValueError("points contain NaN; allowed are numbers, because NaN is neither better nor worse")
    return array + 0.0  # -0.0 becomes 0.0, so that equal points also sort as equal


def pareto_mask(points: Any) -> Bools:
    """Which of the points (n, objectives), all minimised, no other point dominates: bool (n,).

    Copies of a front point are all on the front. Raises ValueError on NaN and on another shape.
    """
    array = _checked(points)
    if not len(array):
        return np.zeros(0, dtype=np.bool_)
    return _front_2d(array[:, 0], array[:, 1]) if array.shape[1] == 2 else _front(array)


def _front_2d(first: Floats, second: Floats) -> Bools:
    """One pass over the points in order: of equal firsts the least second, if it beats all that came before."""
    order = np.lexsort((second, first))
    x, y = first[order], second[order]
    begins = np.concatenate([[0], np.flatnonzero(np.diff(x)) + 1])
    group = np.repeat(np.arange(len(begins)), np.diff(begins, append=len(x)))
    best_before = np.concatenate([[np.inf], np.minimum.accumulate(y[begins])[:-1]])
    mask = np.empty(len(x), dtype=np.bool_)
    mask[order] = (y == y[begins][group]) & (y < best_before[group])
    return mask


def _front(array: Floats) -> Bools:
    """The same in any dimension: a dominating point sorts first, so only the front so far is compared with."""
    unique, inverse = np.unique(array, axis=0, return_inverse=True)
    mask = np.zeros(len(unique), dtype=np.bool_)
    for i, point in enumerate(unique):
        mask[i] = not (unique[:i][mask[:i]] <= point).all(axis=1).any()
    return mask[inverse.reshape(-1)]


def hypervolume_2d(points: Any, reference: tuple[float, float]) -> float:
    """Area that the points (n, 2), both minimised, dominate up to the reference point; 0 where none is better.

    Raises ValueError on NaN and on another shape.
    """
    array = _checked(points, columns=2)
    corner = _checked([reference], columns=2)[0]
    inside = array[(array < corner).all(axis=1)]
    front = np.unique(inside[pareto_mask(inside)], axis=0)  # in order of the first objective, so the second falls
    heights = -np.diff(front[:, 1], prepend=corner[1])
    return float(((corner[0] - front[:, 0]) * heights).sum())


def on_front(draws: Floats) -> Floats:
    """Share of the draws in which each point is on the front: (draws, points, objectives), minimised -> (points,)."""
    return np.mean([pareto_mask(points) for points in draws], axis=0)


def hypervolumes(draws: Floats, reference: tuple[float, float]) -> Floats:
    """`hypervolume_2d` of each draw (draws, points, 2): (draws,)."""
    return np.array([hypervolume_2d(points, reference) for points in draws])


def resampled_accuracy(correct: Bools, rng: np.random.Generator, draws: int) -> Floats:
    """Bootstrap accuracies (draws, rows) of rows that classify the same images: bool (rows, images), right or not.

    A draw resamples the images once for all rows, so what the rows have in common cancels.
    """
    images = correct.shape[1]
    drawn: NDArray[np.int64] = rng.integers(0, images, (draws, images))
    weights = np.stack([np.bincount(row, minlength=images) for row in drawn])
    return weights.astype(np.float32) @ correct.T.astype(np.float32) / np.float32(images)


def resampled_medians(repeats: Sequence[Any], rng: np.random.Generator, draws: int) -> Floats:
    """Bootstrap medians (draws,) of samples, a sequence per repeat.

    A draw resamples the repeats, then the samples within them, so that what differs from repeat to repeat counts. It is
    picked among _MEDIANS medians: these are the dear part. ValueError: there are no samples.
    """
    if not len(repeats):
        raise ValueError("a row has no raw samples, which published tables may lack: ask the run itself")
    flat = np.concatenate([np.asarray(r, dtype=np.float64) for r in repeats])
    lengths = np.array([len(r) for r in repeats])
    starts = np.cumsum(lengths) - lengths
    chosen = rng.integers(0, len(lengths), (_MEDIANS, len(lengths)))
    within = rng.random((_MEDIANS, len(lengths), int(lengths.max())))
    picked = starts[chosen][..., None] + (within * lengths[chosen][..., None]).astype(np.int64)
    medians = np.median(flat[picked].reshape(_MEDIANS, -1), axis=1)
    return medians[rng.integers(0, _MEDIANS, draws)]
