"""What the picture of the front shows: which rows are pale or named, and the range of its axes.

The file (`front_file`) and the page (`front_page`) draw the same view.
"""

# pandas' own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownLambdaType=false, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from analysis.frames import Row, rows
from analysis.plots import FILLS, MOST_KINDS, SHAPES, kind_of, shape_of

X_TITLE = "median latency at batch 1 (ms, drift removed, log scale)"
"""Of the x axis: what `place_ms` is."""
PALE = 0.3
"""Opacity of what is pale."""
_MARGIN = 0.12
"""Share of the height that is free above and below the points."""
_LEAST_HEIGHT = 2.0
"""Points of accuracy that the y axis spans at least."""
_REACH = 0.5
"""The constraint is drawn where it lies no further below the points than this share of their height."""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What of a front is shown, and how."""

    points: list[Row]
    low: float
    """Lower end of the y axis, %."""
    high: float
    constraint: float
    """In %."""
    named: list[Row]
    """Rows whose name stands beside them; empty where the legend names every kind."""
    notes: list[str]
    """What lies outside the axes, in words."""

    @property
    def muted(self) -> bool:
        """Whether there are so many kinds that only the front is told apart."""
        return bool(self.named)

    @property
    def shows_constraint(self) -> bool:
        """Whether the constraint lies in the range of the y axis."""
        return self.low <= self.constraint <= self.high

    @property
    def raced(self) -> bool:
        """Whether rows raced, so that those of the screen alone have no place on the front."""
        return any(p["figure"] != "screen" for p in self.points)

    def pale(self, row: Row) -> bool:
        """Whether a row is drawn pale."""
        screened = self.raced and row["figure"] == "screen"
        return screened or not row["feasible"] or (self.muted and not row["on_front"] and not row["candidate"])

    @property
    def pale_text(self) -> str:
        """What is pale, for the legend."""
        if self.muted:
            return "pale: not on the front"
        return "pale: did not race, or is below the constraint" if self.raced else "pale: below the constraint"


def view_of(front: pd.DataFrame, min_accuracy: float) -> View:
    """The range of the y axis and the names in the picture of the competing rows (`front.front_table`).

    The range is that of the rows whose weights are whole: what setting weights to zero costs has a section of its own.
    """
    points, constraint = rows(front), 100 * min_accuracy
    shown = [100 * p["test_accuracy"] for p in points if not p["zeroed"] or p["on_front"] or p["candidate"]]
    low, high = min(shown), max(shown)
    if low - _REACH * max(high - low, _LEAST_HEIGHT) <= constraint < low:
        low = constraint
    margin = _MARGIN * max(high - low, _LEAST_HEIGHT)
    low, high = max(0.0, low - margin), high + margin
    kinds = {kind_of(p) for p in points}
    named = [p for p in points if p["on_front"]] if len(kinds) > MOST_KINDS else []
    return View(
        points=points, low=low, high=high, constraint=constraint, named=named,
        notes=_outside(points, low, high, constraint),
    )  # fmt: skip


def _outside(points: list[Row], low: float, high: float, constraint: float) -> list[str]:
    notes: list[str] = []
    below = sum(100 * p["test_accuracy"] < low for p in points)
    if below:
        variants, lie = ("variant", "lies") if below == 1 else ("variants", "lie")
        notes.append(f"{below} {variants} with weights set to zero {lie} below {low:.0f} %")
    if not low <= constraint <= high:
        notes.append(f"constraint {constraint:.4g} % lies {'below' if constraint < low else 'above'}")
    return notes


def short_name(row: Row) -> str:
    """A variant beside its point: the runtime and precision, and what else is not the default."""
    extra = [name for name in ("channels_last",) if row[name]] + (["1 thread"] if row["single_thread"] else [])
    zeroed = [f"{100 * row['zeroed']:g} % zeros"] if row["zeroed"] else []
    return ", ".join([kind_of(row), *extra, *zeroed])


def steps(view: View) -> tuple[list[float], list[float]]:
    """The corners of the front, latency in ms and accuracy in %.

    It is a line of steps: nothing was measured that reaches the accuracies in between.
    """
    found = sorted((p["place_ms"], 100 * p["test_accuracy"]) for p in view.points if p["on_front"])
    x, y = [ms for ms, _ in found], [accuracy for _, accuracy in found]
    return [*x, 1.15 * max(p["place_ms"] for p in view.points)], [*y, y[-1]]


def shapes(view: View) -> list[str]:
    """Names of the shapes that the picture has."""
    return [name for name in SHAPES if any(shape_of(p) == name for p in view.points)]


def fills(view: View) -> list[str]:
    """Names of the fills that the picture has."""
    return [name for name in FILLS if any(p["precision"] == name for p in view.points)]
