"""The rules that keep or drop an optimisation (R10, R11, R13), and why.

Pure functions over the rows of `latency.parquet`. Every verdict carries the figures that it rests on.
"""

# pandas' own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from analysis.frames import Row, rows, select, variant_of
from analysis.paired import PairedDifference, paired_difference
from cifar_tune.config import REFERENCE, Variant, grid_variants

Verdict = Literal["keep", "drop", "refine"]

MAX_DROP_POINTS = 0.5
"""A lower precision is kept only while its accuracy drop is below this many points (R10)."""
MAX_DROP_POINTS_INT8 = 1.0
"""The same of INT8 (R23)."""
MIN_LAYOUT_GAIN = 0.05
"""channels_last is kept only where its gain is above this share of the latency (R13)."""
EXPECTED: dict[str, tuple[float, float]] = {
    "fp16": (0.20, 0.50),
    "compile": (0.10, 0.30),
    "channels_last": (0.05, 0.15),
}
"""Latency reductions that the authors of the study expected, as fractions."""

_MEASURED = ("ok", "fallback")
_GRID = frozenset(grid_variants())
_VARIANT_FIELDS = tuple(f.name for f in dataclasses.fields(Variant))
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What became of one optimisation, by itself, on one model."""

    model: str
    arm: str
    optimization: str
    """fp16, compile, channels_last or a runtime; another mode or precision under its own name."""
    verdict: Verdict
    """`refine`: failed, unsupported, fallen back or disturbed, so that the measurement decides nothing."""
    gain: float | None
    """Latency reduction in paired rounds, 1 - with / without; None where it was not measured."""
    expected: tuple[float, float] | None
    """What the authors expected of it."""
    accuracy_drop_points: float | None
    """Accuracy of FP32 minus that of the reduced precision, in points; None for other optimisations."""
    interval: tuple[float, float] | None
    """95 % interval of the drop, in points."""
    cause: str
    """What decided, in a short phrase."""
    reason: str
    """The same with all figures that it rests on."""


def grid_rows(latency: pd.DataFrame) -> list[Row]:
    """The rows of the grid, measured or not."""
    return rows(select(latency, latency["stage"] == "grid"))


def partner(grid: list[Row], row: Row, **changes: Any) -> Row | None:
    """The row of the same weights whose variant differs only in `changes`; None where the grid lacks it."""
    wanted = dataclasses.replace(variant_of(row), **changes)
    same_weights = (r for r in grid if all(r[key] == row[key] for key in ("trial_id", "model", "arm")))
    return next((r for r in same_weights if variant_of(r) == wanted), None)


def is_measured(row: Row | None) -> bool:
    """Whether the row has a latency that can be compared."""
    return row is not None and row["status"] in _MEASURED and row["p50_ms"] is not None


def latency_gain(row: Row, without: Row) -> float:
    """1 - p50 of `row` / p50 of `without`, of the same model.

    The quotient of the speedups over the same FP32 eager: where a row's reference was measured beside it, the
    machine's drift between the two rows cancels. Rows without a speedup are compared by their p50.
    """
    if row["speedup"] and without["speedup"]:
        return 1 - without["speedup"] / row["speedup"]
    return 1 - row["p50_ms"] / without["p50_ms"]


def accuracy_drop(row: Row, without: Row, images: int) -> PairedDifference | None:
    """Accuracy of `without` minus that of `row`, in pairs; None where one was not evaluated."""
    if row["correct"] is None or without["correct"] is None:
        return None
    return paired_difference(without["correct"], row["correct"], images)


def decide_steps(grid: list[Row], images: int) -> list[Decision]:
    """A decision for each step from FP32 eager, for each model and arm, in the order of the rows.

    A variant of the grid that combines steps is left to the factor effects. One beside the grid that does is compared
    with the variant that lacks only its last step.

    Args:
        grid: the rows of the grid.
        images: number of test images behind `correct`.
    """
    decisions: list[Decision] = []
    for row in grid:
        step, base = _step(grid, row)
        if row["zeroed"]:  # no optimisation: it has a section of its own
            continue
        if step is not None:
            decisions.append(_decide(row, step, base, images))
    return decisions


def _step(grid: list[Row], row: Row) -> tuple[str | None, Row | None]:
    """The field whose change is decided on, and the row without it; None where the row stands for no step."""
    variant = variant_of(row)
    changed = [name for name in _VARIANT_FIELDS if getattr(variant, name) != getattr(REFERENCE, name)]
    partners = {name: partner(grid, row, **{name: getattr(REFERENCE, name)}) for name in changed}
    if len(changed) == 1:
        return changed[0], partners[changed[0]]
    if variant in _GRID:
        return None, None
    return next(((name, partners[name]) for name in reversed(changed) if partners[name] is not None), (None, None))


def _decide(row: Row, step: str, base: Row | None, images: int) -> Decision:
    gain = latency_gain(row, base) if base is not None and is_measured(base) and is_measured(row) else None
    drop = accuracy_drop(row, base, images) if base is not None and step == "precision" else None
    ruling = _ruling(row, step, base, gain, drop)
    single = base is not None and variant_of(base) == REFERENCE
    short = row["variant"].removeprefix(f"{row['runtime']}-").removeprefix("fp32-")
    name = row["runtime"] if step == "runtime" else short if single or base is None else row["variant"]
    return Decision(
        model=row["model"],
        arm=row["arm"],
        optimization=name,
        verdict=ruling.verdict,
        gain=gain,
        expected=EXPECTED.get(name),
        accuracy_drop_points=drop and drop.points,
        interval=drop and (drop.low, drop.high),
        cause=ruling.cause,
        reason=f"{ruling.reason}; {row['note']}" if row.get("note") else ruling.reason,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ruling:
    verdict: Verdict
    cause: str
    reason: str


def _ruling(row: Row, step: str, base: Row | None, gain: float | None, drop: PairedDifference | None) -> _Ruling:
    trouble = _trouble(row, base)
    if trouble or gain is None:
        return _open(trouble or "there is nothing to compare it with")
    if step == "precision":
        return _of_precision(gain, drop, max_drop(row))
    if step == "channels_last":
        return _of_layout(gain)
    built, cause = compile_text(row), gain_text(gain)
    reason = f"{cause}; its build took {built}" if built else cause
    return _Ruling(verdict="keep" if gain > 0 else "drop", cause=cause, reason=reason)


def _open(cause: str) -> _Ruling:
    return _Ruling(verdict="refine", cause=cause, reason=cause)


def _trouble(row: Row, base: Row | None) -> str | None:
    if row["status"] != "ok":
        return f"{row['status']}: {row['error'] or 'no reason recorded'}"
    if base is None or not is_measured(base):
        return "the variant to compare it with was not measured"
    if row["contended"] or base["contended"]:
        return "other processes used the machine during the measurement: measure again"
    times = _times_as_fast(row, base)
    if times is not None and times[1] <= 1 <= times[2]:
        return f"its speedup is not clear: {times[0]:.2f}, with an interval of {times[1]:.2f} to {times[2]:.2f}"
    return None


def _times_as_fast(row: Row, base: Row) -> tuple[float, float, float] | None:
    """Speedup of a row over another of the same model, with its 95 % interval; None where one has none.

    Over FP32 eager it was measured in pairs. Two others are both relative to that: their intervals, about symmetric in
    the logarithm, add up in squares.
    """
    in_pairs = variant_of(base) == REFERENCE
    needed = [row] if in_pairs else [row, base]
    if any(r[name] is None for r in needed for name in ("speedup", "speedup_low", "speedup_high")):
        return None
    if in_pairs:
        return row["speedup"], row["speedup_low"], row["speedup_high"]
    halves = [math.log(r["speedup_high"] / r["speedup_low"]) / 2 for r in (row, base)]
    times, half = row["speedup"] / base["speedup"], math.hypot(*halves)
    return times, times * math.exp(-half), times * math.exp(half)


def max_drop(row: Row) -> float:
    """Points of accuracy that the row's precision must not cost."""
    return MAX_DROP_POINTS_INT8 if row["precision"].startswith("int8") else MAX_DROP_POINTS


def _of_precision(gain: float, drop: PairedDifference | None, most: float) -> _Ruling:
    if drop is None:
        return _open("its accuracy was not compared with that of FP32")
    figures = f"the accuracy drop is {drop}; {gain_text(gain)}"
    if drop.low <= most <= drop.high:
        figures += f"; the interval includes the limit of {most:g}, so more test images are needed to be sure"
    if drop.points < most:
        return _Ruling(verdict="keep" if gain > 0 else "drop", cause=gain_text(gain), reason=figures)
    cause = f"accuracy falls by {most:g} {'point' if most == 1 else 'points'} or more"
    return _Ruling(verdict="drop", cause=cause if gain > 0 else gain_text(gain), reason=f"{cause}: {figures}")


def _of_layout(gain: float) -> _Ruling:
    limit = f"than the {100 * MIN_LAYOUT_GAIN:.0f} % that the rule asks for"
    if exceeds_layout_gain(gain):
        return _Ruling(verdict="keep", cause=gain_text(gain), reason=f"{gain_text(gain)}, more {limit}")
    reason = f"{gain_text(gain)}, not more {limit}" if gain > 0 else gain_text(gain)
    return _Ruling(verdict="drop", cause=reason, reason=reason)


def exceeds_layout_gain(gain: float) -> bool:
    """Whether a gain is above the limit of R13; one that is equal but for rounding is not."""
    return gain > MIN_LAYOUT_GAIN + _ROUNDING


def gain_text(gain: float) -> str:
    """A latency reduction in words; it comes from paired rounds, so it is not the quotient of two rows' p50."""
    return f"latency is {100 * abs(gain):.1f} % {'lower' if gain > 0 else 'higher'}" if gain else "latency is the same"


def compile_text(row: Row) -> str:
    """Compile time in words, for example `23.1 s (warm)`; empty for a variant that is not compiled."""
    if row["compile_seconds"] is None:
        return "no recorded time" if row["compile"] != "none" else ""
    return f"{row['compile_seconds']:.1f} s" + (" (warm)" if row["compile_cold"] is False else "")
