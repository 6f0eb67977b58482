"""The rules: keep or drop an optimisation (R10, R11, R13), choose the candidate (R16), and say why.

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

from analysis import justify
from analysis.frames import Row, rows, select, variant_of
from analysis.paired import PairedDifference, lower_bound, paired_difference, unpack_correct
from analysis.uncertain import Draws, paired_correct, paired_ms, reference_levels
from cifar_tune.config import REFERENCE, Variant, grid_variants

Verdict = Literal["keep", "drop", "refine"]

MAX_DROP_POINTS = 0.5
"""A lower precision is kept only while its accuracy drop is below this many points (R10)."""
MAX_DROP_POINTS_INT8 = 1.0
"""The same of INT8 (R23)."""
MIN_LAYOUT_GAIN = 0.05
"""channels_last is kept only where its gain is above this share of the latency (R13)."""
TIE = 0.01
"""Candidates whose latency is within this share of the lowest count as equally fast."""
EXPECTED: dict[str, tuple[float, float]] = {
    "fp16": (0.20, 0.50),
    "compile": (0.10, 0.30),
    "channels_last": (0.05, 0.15),
}
"""Latency reductions that the authors of the study expected, as fractions."""

_MEASURED = ("ok", "fallback")
_NOT_CERTAIN = "it reaches the constraint on this test set, but the lower 95 % bound of its accuracy is "
_GRID = frozenset(grid_variants())
_VARIANT_FIELDS = tuple(f.name for f in dataclasses.fields(Variant))
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What became of one optimisation, alone, on one model."""

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
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The candidate, or why there is none."""

    index: int | None
    """Index of its row in the latency frame."""
    text: str
    """The justification, in sentences with figures."""


def check_one_device(latency: pd.DataFrame) -> None:
    """ValueError where rows come from unlike devices: their latencies do not compare."""
    devices = sorted({str(row["env_device_name"]) for row in rows(select(latency, latency["p50_ms"].notna()))})
    if len(devices) > 1:
        raise ValueError(f"rows of unlike devices share no front: {', '.join(devices)}")


def competing(latency: pd.DataFrame, images: int) -> pd.DataFrame:
    """The grid rows that have both an accuracy and a latency, with the index they had.

    With what they are compared by: `paired_ms` and `paired_accuracy`, see `analysis.uncertain`. A fallback does not
    compete under the name of the variant that failed.
    """
    check_one_device(latency)
    measured = (latency["status"] == "ok") & latency["p50_ms"].notna() & latency["test_accuracy"].notna()
    rivals = select(latency, measured & (latency["stage"] == "grid"))
    grid = grid_rows(latency)
    levels = reference_levels(grid)
    return rivals.assign(
        paired_ms=[paired_ms(row, levels) for row in rows(rivals)],
        paired_accuracy=[
            float(unpack_correct(paired_correct(row, grid, images), images).mean()) for row in rows(rivals)
        ],
    )


def grid_rows(latency: pd.DataFrame) -> list[Row]:
    """The rows of the grid, measured or not."""
    return rows(select(latency, latency["stage"] == "grid"))


def partner(grid: list[Row], row: Row, **changes: Any) -> Row | None:
    """The row of the same weights whose variant differs in `changes` alone; None where the grid lacks it."""
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


def decide_steps(latency: pd.DataFrame, images: int) -> list[Decision]:
    """A decision for each step from FP32 eager, for each model and arm, in the order of the rows.

    A variant of the grid that combines steps is left to the factor effects. One beside the grid that does is compared
    with the variant that lacks its last step alone.

    Args:
        images: number of test images behind `correct`.
    """
    grid = grid_rows(latency)
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
    verdict, reason = _verdict(row, step, base, gain, drop)
    alone = base is not None and variant_of(base) == REFERENCE
    short = row["variant"].removeprefix(f"{row['runtime']}-").removeprefix("fp32-")
    name = row["runtime"] if step == "runtime" else short if alone or base is None else row["variant"]
    return Decision(
        model=row["model"],
        arm=row["arm"],
        optimization=name,
        verdict=verdict,
        gain=gain,
        expected=EXPECTED.get(name),
        accuracy_drop_points=drop and drop.points,
        interval=drop and (drop.low, drop.high),
        reason=f"{reason}; {row['note']}" if row.get("note") else reason,
    )


def _verdict(
    row: Row, step: str, base: Row | None, gain: float | None, drop: PairedDifference | None
) -> tuple[Verdict, str]:
    trouble = _trouble(row, base)
    if trouble or gain is None:
        return "refine", trouble or "there is nothing to compare it with"
    if step == "precision":
        return _precision_verdict(gain, drop, max_drop(row))
    if step in ("compile", "runtime", "single_thread"):
        built = compile_text(row)
        return ("keep" if gain > 0 else "drop"), gain_text(gain) + (f"; its build took {built}" if built else "")
    if exceeds_layout_gain(gain):
        return "keep", f"{gain_text(gain)}, above the {100 * MIN_LAYOUT_GAIN:.0f} % that R13 asks for"
    return "drop", f"{gain_text(gain)}, not above the {100 * MIN_LAYOUT_GAIN:.0f} % that R13 asks for"


def _trouble(row: Row, base: Row | None) -> str | None:
    if row["status"] != "ok":
        return f"{row['status']}: {row['error'] or 'no reason recorded'}"
    if base is None or not is_measured(base):
        return "FP32 eager of this model was not measured, so there is nothing to compare with"
    if row["contended"] or base["contended"]:
        return "other processes used the machine during the measurement: measure again"
    times = _times_as_fast(row, base)
    if times is not None and times[1] <= 1 <= times[2]:
        return f"a speedup of {times[0]:.2f} ({times[1]:.2f} to {times[2]:.2f}) is not clear of 1"
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


def _precision_verdict(gain: float, drop: PairedDifference | None, most: float) -> tuple[Verdict, str]:
    if drop is None:
        return "refine", "its accuracy was not compared with that of FP32"
    figures = f"accuracy drop {drop}; {gain_text(gain)}"
    if drop.low <= most <= drop.high:
        figures += f"; the interval includes {most}, so more test images would be needed to be sure"
    if drop.points >= most:
        return "drop", f"accuracy falls by {most} point or more: {figures}"
    return ("keep" if gain > 0 else "drop"), figures


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


def rejections(
    latency: pd.DataFrame, min_accuracy: float, images: int, budget_ms: float | None = None
) -> dict[int, str]:
    """Why competing rows cannot be the candidate: index of the row -> reason. Rows that can are left out."""
    grid = grid_rows(latency)
    reasons: dict[int, str | None] = {}
    for row in rows(competing(latency, images)):
        reasons[row["index"]] = _rejection(grid, row, min_accuracy, images) or _doubt(row, min_accuracy, images)
        if budget_ms is not None and row["p50_ms"] > budget_ms:
            reasons[row["index"]] = f"p50 {row['p50_ms']:.3f} ms is above the budget of {budget_ms:g} ms"
    return {index: reason for index, reason in reasons.items() if reason}


def _rejection(grid: list[Row], row: Row, min_accuracy: float, images: int) -> str | None:
    if row["test_accuracy"] < min_accuracy:
        return f"{justify.percent(row['test_accuracy'])} is below the constraint"
    if row["precision"] != REFERENCE.precision:
        # The FP32 row that is built alike may have failed; FP32 eager then still tells what the precision costs.
        eager = dataclasses.asdict(REFERENCE)
        same = [partner(grid, row, precision="fp32"), partner(grid, row, **eager)]
        drops = [accuracy_drop(row, fp32, images) for fp32 in same if fp32 is not None]
        drop = next((d for d in drops if d is not None), None)
        if drop is None:
            return f"the accuracy of {row['precision']} was not compared with that of FP32 (R10)"
        if drop.points >= max_drop(row):
            rule = "R10" if max_drop(row) == MAX_DROP_POINTS else "R23"
            return f"{row['precision']} costs {drop.points:.2f} points of accuracy ({rule})"
    if row["channels_last"]:
        without = partner(grid, row, channels_last=False)
        gain = latency_gain(row, without) if without is not None and is_measured(without) else None
        if gain is not None and not exceeds_layout_gain(gain):
            return f"with channels_last {gain_text(gain)}, not by more than {100 * MIN_LAYOUT_GAIN:.0f} % (R13)"
    return None


def _doubt(row: Row, min_accuracy: float, images: int) -> str | None:
    """Why a row that reaches the constraint on this test set may not hold it elsewhere."""
    bound = lower_bound(row["test_accuracy"], images)
    return None if bound >= min_accuracy else f"{_NOT_CERTAIN}{justify.percent(bound)}"


def choose(
    latency: pd.DataFrame, min_accuracy: float, images: int, draws: Draws, budget_ms: float | None = None
) -> Choice:
    """The candidate: the lowest latency among competing rows that hold the constraint, R10, R13 and the budget.

    What counts is the lower 95 % bound of the accuracy. Where no row's bound holds the constraint, rows that reach it
    on this test set are taken, and the text says that it is not certain. Latencies are free of drift (`paired_ms`);
    of rows within 1 % of the lowest the more accurate is taken, then the faster.

    Args:
        draws: of the competing rows, in their order: they tell which rows cannot be told from the candidate.
    """
    rivals = rows(competing(latency, images))
    rejected = rejections(latency, min_accuracy, images, budget_ms)
    eligible = [row for row in rivals if row["index"] not in rejected]
    if not eligible:  # what is only in doubt is better than nothing
        rejected = {index: reason for index, reason in rejected.items() if not reason.startswith(_NOT_CERTAIN)}
        eligible = [row for row in rivals if row["index"] not in rejected]
    if not eligible:
        measured = [row for row in grid_rows(latency) if is_measured(row)]
        return Choice(index=None, text=justify.none_chosen(rivals, measured, rejected, min_accuracy, images))
    lowest = min(row["paired_ms"] for row in eligible)
    fastest = [row for row in eligible if row["paired_ms"] <= lowest * (1 + TIE)]
    best = max(fastest, key=lambda row: (row["paired_accuracy"], -row["paired_ms"]))
    place = {row["index"]: n for n, row in enumerate(rivals)}
    tied = [r for r in eligible if r is not best and draws.indistinguishable(place[r["index"]], place[best["index"]])]
    text = justify.chosen(best, tied, rivals=rivals, rejected=rejected, min_accuracy=min_accuracy, images=images)
    return Choice(index=best["index"], text=text)
