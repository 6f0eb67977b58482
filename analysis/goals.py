"""What was hoped of dynamic INT8 (R23) and of ONNX Runtime (R24), beside what was measured."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd  # pyright: ignore[reportMissingTypeStubs] - pandas' own annotations do

from analysis.decide import accuracy_drop, grid_rows, is_measured, partner, variant_of
from analysis.frames import Row
from cifar_tune.config import REFERENCE, Variant


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """Bounds that a row should keep; None: there is none."""

    least_speedup: float
    """Over FP32 eager of the same weights."""
    most_points: float
    """Of accuracy lost against FP32 eager; this many are too many."""
    most_mb: float | None = None
    least_accuracy: float | None = None


GOALS: dict[Variant, Goal] = {
    Variant(runtime="onnxruntime", precision="int8_dynamic"): Goal(
        least_speedup=1.5, most_points=1.0, most_mb=30.0, least_accuracy=0.95
    ),
    Variant(runtime="onnxruntime"): Goal(least_speedup=1.5, most_points=0.5),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """A row beside its goal."""

    row: Row
    points: float | None
    """Of accuracy lost; negative where it is gained; None where it was not compared."""
    missed: tuple[str, ...]
    """Bounds that it does not keep, in words."""


def judge(latency: pd.DataFrame, images: int) -> list[Judged]:
    """Each measured row that something was hoped of, in the order of the rows.

    Args:
        images: number of test images behind `correct`.
    """
    grid = grid_rows(latency)
    return [
        _judge(row, grid, GOALS[variant_of(row)], images)
        for row in grid
        if variant_of(row) in GOALS and is_measured(row)
    ]


def _judge(row: Row, grid: list[Row], goal: Goal, images: int) -> Judged:
    reference = partner(grid, row, runtime=REFERENCE.runtime, precision=REFERENCE.precision)
    drop = None if reference is None else accuracy_drop(row, reference, images)
    size, accuracy, points = row["artifact_mb"], row["test_accuracy"], None if drop is None else drop.points
    kept = {
        f"speedup {goal.least_speedup:g} or more": row["speedup"] is not None and row["speedup"] >= goal.least_speedup,
        f"points lost below {goal.most_points:g}": points is not None and points < goal.most_points,
    }
    if goal.most_mb is not None:
        kept[f"MB below {goal.most_mb:g}"] = size is not None and size < goal.most_mb
    if goal.least_accuracy is not None:
        kept[f"accuracy above {100 * goal.least_accuracy:g} %"] = (
            accuracy is not None and accuracy > goal.least_accuracy
        )
    return Judged(row=row, points=points, missed=tuple(name for name, held in kept.items() if not held))
