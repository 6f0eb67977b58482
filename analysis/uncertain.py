"""Latency rows -> draws of both axes: what a front, a tie or a hypervolume rests on.

Rows are measured minutes apart on a machine that drifts. What a row says is its ratio to FP32 eager of the same model,
taken in paired rounds; times the latency that FP32 eager had over the whole grid it is a latency again (`paired_ms`),
free of the drift between rows. What differs from process to process is left in it: see `row_levels`.

Variants of the same weights differ in a few answers of thousands. Where a paired comparison does not tell a variant's
accuracy from that of FP32 eager, it counts as the same (`paired_correct`): else half of the slower variants would stand
on the front for being right on one image more.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.frames import Row, variant_of
from analysis.paired import paired_difference, unpack_correct
from analysis.pareto import hypervolumes, on_front, resampled_accuracy, resampled_medians
from cifar_tune.between import PRIOR, Level, level, moderated
from cifar_tune.config import REFERENCE
from cifar_tune.rounds import round_ratios

Floats = NDArray[np.floating[Any]]

DRAWS = 500


def reference_levels(grid: list[Row]) -> dict[str, list[float]]:
    """Model -> medians of its FP32 eager, one for each repeat of each of its rows.

    A published table may lack the raw samples: p50 times the speedup then stands for the median of a row's reference.
    """
    return {model: [ms for row in its for ms in row] for model, its in _references(grid).items()}


def _references(grid: list[Row]) -> dict[str, list[list[float]]]:
    """Model -> of each of its rows the medians of FP32 eager, one a repeat."""
    found: dict[str, list[list[float]]] = {}
    for row in grid:
        repeats = [float(np.median(repeat)) for repeat in _lists(row["reference_ms"]) if len(repeat)]
        if row["reference_ms"] is None and row["speedup"] and row["p50_ms"]:
            repeats = [row["p50_ms"] * row["speedup"]]
        if repeats:
            found.setdefault(row["model"], []).append(repeats)
    return found


def paired_ms(row: Row, levels: dict[str, list[float]]) -> float:
    """The row's p50 as it would be had the machine not drifted; as measured, where it has no reference."""
    level = levels.get(row["model"])
    return float(np.median(level)) / row["speedup"] if level and row["speedup"] else row["p50_ms"]


def paired_correct(row: Row, grid: list[Row], images: int) -> bytes:
    """The row's answers, or those of FP32 eager of the same weights where their accuracies cannot be told apart."""
    eager = next((r for r in grid if r["trial_id"] == row["trial_id"] and variant_of(r) == REFERENCE), None)
    if eager is None or eager["correct"] is None:
        return row["correct"]
    difference = paired_difference(row["correct"], eager["correct"], images)
    return eager["correct"] if difference.low <= 0 <= difference.high else row["correct"]


def row_levels(rows: list[Row]) -> list[Level]:
    """Of each row the logarithm of its ratio to FP32 eager in paired rounds, and how well that is known.

    Without paired rounds it is the logarithm of its milliseconds. Processes are the unit: a row's error is what they
    differ by, drawn towards that of the other rows (`between.moderated`).

    Args:
        rows: measured rows of one run. One whose raw samples a published table lacks takes the prior.
    """
    return moderated([row_level(row) for row in rows])


def row_level(row: Row) -> Level:
    """The same of a row by itself."""
    fresh = bool(json.loads(row["protocol"]).get("fresh_processes", True))
    if row["samples_ms"] is not None:
        return level(process_logs(row), fresh=fresh)
    middle = -math.log(row["speedup"]) if row["speedup"] else math.log(row["p50_ms"])
    return Level(mean=middle, error=PRIOR, degrees=math.inf, processes=1)


def process_logs(row: Row) -> list[float]:
    """The logarithm of each repeat's ratio, or of its milliseconds where it has no paired rounds."""
    samples, reference = _lists(row["samples_ms"]), _lists(row["reference_ms"])
    if not row["speedup"] or not row["round_calls"] or len(samples) != len(reference):
        return [float(np.log(np.median(repeat))) for repeat in samples]
    rounds = [round_ratios(s, r, int(row["round_calls"])) for s, r in zip(samples, reference, strict=True)]
    return [float(np.log(np.median(repeat))) for repeat in rounds]


@dataclass(frozen=True, kw_only=True, slots=True)
class Draws:
    """Draws of rows that compete: (draws, rows) each."""

    latency_ms: Floats
    accuracy: Floats

    @property
    def points(self) -> Floats:
        """Both axes, minimised: (draws, rows, 2)."""
        return np.stack([self.latency_ms, -self.accuracy], axis=2)

    def front_probability(self) -> Floats:
        """Share of the draws with each row on the front."""
        return on_front(self.points)

    def hypervolumes(self, baseline_ms: float, min_accuracy: float) -> Floats:
        """What the front gains, in each draw, over a baseline that just holds the constraint.

        The area that it dominates below the baseline's latency and above the constraint, as a share of all of it:
        1 would be an answer in no time that is always right.
        """
        whole = baseline_ms * (1 - min_accuracy)
        return (
            hypervolumes(self.points, (baseline_ms, -min_accuracy)) / whole if whole > 0 else np.zeros(len(self.points))
        )

    def latency_interval(self, row: int) -> tuple[float, float]:
        """95 % interval of a row's latency."""
        return _interval(self.latency_ms[:, row])

    def indistinguishable(self, row: int, other: int) -> bool:
        """Whether neither latency nor accuracy tells two rows apart, at 95 % each."""
        ratio = _interval(self.latency_ms[:, row] / self.latency_ms[:, other])
        difference = _interval(self.accuracy[:, row] - self.accuracy[:, other])
        return ratio[0] <= 1 <= ratio[1] and difference[0] <= 0 <= difference[1]


def draw(rivals: list[Row], grid: list[Row], images: int, draws: int = DRAWS, seed: int = 0) -> Draws:
    """Draw the rows that compete, as another measurement of the same weights might have found them.

    Test images are drawn once for all rows, and the level of FP32 eager once for all rows of a model: what rows have in
    common cancels where they are compared. A row's processes are its own.

    Args:
        grid: the rows of the grid, from whose references the levels come.
        images: test images behind `correct`.
    """
    rng = np.random.default_rng(seed)
    if not rivals:
        return Draws(latency_ms=np.zeros((draws, 0)), accuracy=np.zeros((draws, 0)))
    correct = np.stack([unpack_correct(paired_correct(row, grid, images), images) for row in rivals])
    accuracy = resampled_accuracy(correct, rng, draws)
    levels = _references(
        grid
    )  # a row's repeats share the machine's state of their minute: rows are drawn, then repeats
    drawn = {model: resampled_medians(levels[model], rng, draws) for model in sorted(levels)}
    latency = [
        _latency(row, known, drawn.get(row["model"]), rng, draws)
        for row, known in zip(rivals, row_levels(rivals), strict=True)
    ]
    return Draws(latency_ms=np.stack(latency, axis=1), accuracy=accuracy)


def _latency(row: Row, known: Level, reference: Floats | None, rng: np.random.Generator, draws: int) -> Floats:
    """Milliseconds of a row in each draw: what its processes leave open is drawn from a t-distribution."""
    open_ = rng.standard_normal(draws) if math.isinf(known.degrees) else rng.standard_t(known.degrees, draws)
    paired = reference is not None and row["speedup"]
    middle = reference / row["speedup"] if paired else row["p50_ms"]
    return middle * np.exp(known.error * open_)


def _lists(repeats: Any) -> list[Any]:
    return [] if repeats is None else list(repeats)


def _interval(values: Floats) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
