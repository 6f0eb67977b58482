"""Pareto fronts: NumPy arrays -> masks, areas and probabilities. All objectives are minimised here.

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
"""Bootstrap medians of a row's latency; the draws of the front pick among them."""


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
    unique, inverse = np.unique(array, axis=0, return_inverse=True)
    front = _sorted_front_2d(unique) if array.shape[1] == 2 else _sorted_front(unique)
    return front[inverse.reshape(-1)]


def _sorted_front_2d(unique: Floats) -> Bools:
    """Front of distinct points in lexicographic order: the second objective must beat all points before."""
    best_before = np.minimum.accumulate(unique[:, 1])[:-1]
    return np.concatenate([[True], unique[1:, 1] < best_before])


def _sorted_front(unique: Floats) -> Bools:
    """The same in any dimension: a dominating point sorts first, so only the front so far is compared with."""
    mask = np.zeros(len(unique), dtype=np.bool_)
    for i, point in enumerate(unique):
        mask[i] = not (unique[:i][mask[:i]] <= point).all(axis=1).any()
    return mask


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


def front_probability(
    correct: Bools, samples: Sequence[Sequence[Any]], rng: np.random.Generator, draws: int = 500
) -> Floats:
    """Bootstrap probability (rows,) that each row is on the front of accuracy (high) and median latency (low).

    Args:
        correct: (rows, images), whether the row classifies the image right. A draw resamples the images once for
            all rows, so what the rows have in common cancels.
        samples: for each row, its latency samples as a sequence per repeat. A draw resamples repeats, then the
            samples within them, so that the run-to-run spread counts.
        rng: source of the draws.
        draws: how many fronts are drawn.

    """
    if correct.ndim != 2 or len(correct) != len(samples):
        raise ValueError(f"correct has shape {correct.shape}; allowed is ({len(samples)}, images)")
    accuracy = _resampled_accuracy(correct, rng, draws)
    medians = np.stack([_resampled_medians(repeats, rng, draws) for repeats in samples], axis=1)
    on_front = [pareto_mask(np.stack([m, -a], axis=1)) for m, a in zip(medians, accuracy, strict=True)]
    return np.mean(on_front, axis=0)


def _resampled_accuracy(correct: Bools, rng: np.random.Generator, draws: int) -> Floats:
    """Accuracies (draws, rows) under multinomial image weights, which all rows of a draw share."""
    images = correct.shape[1]
    drawn: NDArray[np.int64] = rng.integers(0, images, (draws, images))
    weights = np.stack([np.bincount(row, minlength=images) for row in drawn])
    return weights.astype(np.float32) @ correct.T.astype(np.float32) / np.float32(images)


def _resampled_medians(repeats: Sequence[Any], rng: np.random.Generator, draws: int) -> Floats:
    """Medians (draws,) of one row's samples, picked among _MEDIANS bootstrap medians: medians are the dear part."""
    flat = np.concatenate([np.asarray(r, dtype=np.float64) for r in repeats])
    lengths = np.array([len(r) for r in repeats])
    starts = np.cumsum(lengths) - lengths
    chosen = rng.integers(0, len(lengths), (_MEDIANS, len(lengths)))
    within = rng.random((_MEDIANS, len(lengths), int(lengths.max())))
    picked = starts[chosen][..., None] + (within * lengths[chosen][..., None]).astype(np.int64)
    medians = np.median(flat[picked].reshape(_MEDIANS, -1), axis=1)
    return medians[rng.integers(0, _MEDIANS, draws)]
