"""What was hoped of dynamic INT8 (R23) and of ONNX Runtime (R24), beside what was measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass

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


GOALS: dict[tuple[str, str], Goal] = {
    ("onnxruntime", "int8_dynamic"): Goal(least_speedup=1.5, most_points=1.0, most_mb=30.0, least_accuracy=0.95),
    ("onnxruntime", "fp32"): Goal(least_speedup=1.5, most_points=0.5),
}
"""Of a runtime and a precision, with any number of threads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """A row beside its goal."""

    row: Row
    points: float | None
    """Of accuracy lost; negative where it is gained; None where it was not compared."""
    missed: tuple[str, ...]
    """Bounds that it does not keep, in words."""
    open: tuple[str, ...]
    """Bounds of which the measurement says neither: not measured, disturbed, or within the interval."""


def judge(latency: pd.DataFrame, images: int) -> list[Judged]:
    """Each measured row that something was hoped of, in the order of the rows.

    Args:
        images: number of test images behind `correct`.
    """
    grid = grid_rows(latency)
    hoped = [(row, _goal(variant_of(row))) for row in grid if is_measured(row)]
    return [_judge(row, grid, goal, images) for row, goal in hoped if goal is not None]


def _goal(variant: Variant) -> Goal | None:
    return None if variant.zeroed else GOALS.get((variant.runtime, variant.precision))


def _judge(row: Row, grid: list[Row], goal: Goal, images: int) -> Judged:
    reference = partner(grid, row, **asdict(REFERENCE))
    drop = None if reference is None else accuracy_drop(row, reference, images)
    size, accuracy, points = row["artifact_mb"], row["test_accuracy"], None if drop is None else drop.points
    kept = {
        f"speedup {goal.least_speedup:g} or more": _is_faster(row, goal.least_speedup),
        f"points lost below {goal.most_points:g}": None if points is None else points < goal.most_points,
    }
    if goal.most_mb is not None:
        kept[f"MB below {goal.most_mb:g}"] = None if size is None else size < goal.most_mb
    if goal.least_accuracy is not None:
        name = f"accuracy above {100 * goal.least_accuracy:g} %"
        kept[name] = None if accuracy is None else accuracy > goal.least_accuracy
    missed, unknown = (tuple(name for name, held in kept.items() if held is what) for what in (False, None))
    return Judged(row=row, points=points, missed=missed, open=unknown)


def _is_faster(row: Row, least: float) -> bool | None:
    """Whether a speedup is reached; None where the measurement was disturbed, or its interval includes the bound."""
    speedup, low, high = row["speedup"], row["speedup_low"], row["speedup_high"]
    if speedup is None or row["contended"] or (low is not None and low < least <= high):
        return None
    return speedup >= least
