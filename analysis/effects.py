"""Factor effects: what precision, compilation and layout each do to the latency of a model, and to each other.

A linear model of log-latency over the grid, with all interactions. An observation is one process of one variant: the
logarithm of its median in paired rounds over FP32 eager, so that the machine's drift cancels. Factors are coded -1/2
and +1/2: a main effect is the average over the settings of the others, an interaction is how much one changes another.
Intervals rest on what processes of one row differ by. Repeats in one process are no replication: rows of one process
take the prior for it (`between.PRIOR`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.decide import is_measured
from analysis.frames import Row, variant_of
from analysis.uncertain import Floats, row_level
from cifar_tune.between import Level
from cifar_tune.config import grid_variants

FACTORS = ("fp16", "compile", "channels_last")


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """What a factor, or an interaction of factors, does to the latency of one model."""

    model: str
    arm: str
    term: str
    """A factor, or factors joined by ` x `."""
    change: float
    """Relative change of latency, -0.1: 10 % lower. Of an interaction: beyond what its factors do by themselves."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end of it."""

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def factor_effects(grid: list[Row]) -> list[Effect]:
    """The effects for each model and arm whose whole grid was measured, main effects first.

    Args:
        grid: the rows of the grid; one whose raw samples a published table lacks counts as not measured.
    """
    variants = set(grid_variants())
    effects: list[Effect] = []
    for model, arm in dict.fromkeys((row["model"], row["arm"]) for row in grid):
        mine = [row for row in grid if (row["model"], row["arm"]) == (model, arm) and variant_of(row) in variants]
        measured = [row for row in mine if is_measured(row) and row["samples_ms"] is not None]
        if {variant_of(row) for row in measured if row["status"] == "ok"} == variants:
            effects += _fit(model, arm, measured)
    return effects


def _fit(model: str, arm: str, measured: list[Row]) -> list[Effect]:
    """Contrasts of the rows' levels: the grid is balanced, so each term's is its own least-squares estimate."""
    levels = [row_level(row) for row in measured]
    errors = _shared_error(levels)
    codes = {factor: np.array([_code(row, factor) for row in measured]) for factor in FACTORS}
    effects: list[Effect] = []
    for count in range(1, len(FACTORS) + 1):
        for factors in itertools.combinations(FACTORS, count):
            code = math.prod((codes[factor] for factor in factors), start=np.ones(len(measured)))
            weights = code / (code**2).sum()
            found = Level(
                mean=float(weights @ np.array([known.mean for known in levels])),
                error=float(np.sqrt((weights**2) @ errors.variances)),
                degrees=errors.degrees,
                processes=0,
            )
            low, high = found.interval()
            term = " x ".join(factors)
            change = math.expm1(found.mean)
            effects.append(Effect(model=model, arm=arm, term=term, change=change, low=low - 1, high=high - 1))
    return effects


@dataclass(frozen=True, kw_only=True, slots=True)
class _Errors:
    variances: Floats
    """Of each row's level, (rows,)."""
    degrees: float


def _shared_error(levels: Sequence[Level]) -> _Errors:
    """The variance between processes, pooled over the rows; the prior's where a row has but one process."""
    if any(known.processes == 1 for known in levels):
        return _Errors(variances=np.array([known.error**2 for known in levels]), degrees=math.inf)
    degrees = sum(known.degrees for known in levels)
    pooled = sum(known.degrees * known.error**2 * known.processes for known in levels) / degrees
    return _Errors(variances=np.array([pooled / known.processes for known in levels]), degrees=degrees)


def _code(row: Row, factor: str) -> float:
    on = {
        "fp16": row["precision"] == "fp16",
        "compile": row["compile"] != "none",
        "channels_last": bool(row["channels_last"]),
    }
    return on[factor] - 0.5
