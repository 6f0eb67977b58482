"""Factor effects: what precision, compilation and layout each do to the latency of a model, and to each other.

A linear model of log-latency over the grid, with all interactions. An observation is one repeat of one variant: the
logarithm of its median in paired rounds over FP32 eager, so that the machine's drift cancels. Factors are coded -1/2
and +1/2: a main effect is the average over the settings of the others, an interaction is how much one changes another.
"""

# pandas' and statsmodels' own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.decide import grid_rows, is_measured
from analysis.frames import Row, variant_of
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
    """Relative change of latency, -0.1: 10 % lower. Of an interaction: beyond what its factors do alone."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end of it."""

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def factor_effects(latency: pd.DataFrame) -> list[Effect]:
    """The effects for each model and arm whose whole grid was measured, main effects first."""
    variants = set(grid_variants())
    grid = [row for row in grid_rows(latency) if variant_of(row) in variants]
    effects: list[Effect] = []
    for model, arm in dict.fromkeys((row["model"], row["arm"]) for row in grid):
        mine = [row for row in grid if (row["model"], row["arm"]) == (model, arm) and is_measured(row)]
        if {variant_of(row) for row in mine if row["status"] == "ok"} == variants:
            effects += _fit(model, arm, mine)
    return effects


def _fit(model: str, arm: str, measured: list[Row]) -> list[Effect]:
    from statsmodels.formula.api import ols  # two seconds of import that only this needs

    observations = pd.DataFrame([o for row in measured for o in _observations(row)])
    fitted: Any = ols(f"log_latency ~ {' * '.join(FACTORS)}", observations).fit()
    intervals = fitted.conf_int()
    effects = [
        Effect(
            model=model,
            arm=arm,
            term=term.replace(":", " x "),
            change=math.expm1(fitted.params[term]),
            low=math.expm1(intervals.loc[term, 0]),
            high=math.expm1(intervals.loc[term, 1]),
        )
        for term in fitted.params.index
        if term != "Intercept"
    ]
    return sorted(effects, key=lambda e: e.term.count(" x "))


def _observations(row: Row) -> list[dict[str, float]]:
    """One for each repeat: the logarithm of its latency, and the levels of the factors."""
    levels = {
        "fp16": (row["precision"] == "fp16") - 0.5,
        "compile": (row["compile"] != "none") - 0.5,
        "channels_last": bool(row["channels_last"]) - 0.5,
    }
    return [{**levels, "log_latency": value} for value in _log_latencies(row)]


def _log_latencies(row: Row) -> list[float]:
    samples, reference = row["samples_ms"], row["reference_ms"]
    if reference is None or row["round_calls"] is None:
        return [float(np.log(np.median(repeat))) for repeat in samples]

    def medians(values: Any, rounds: int) -> Any:
        return np.median(np.asarray(values, dtype=float).reshape(rounds, -1), axis=1)

    rounds = [len(repeat) // int(row["round_calls"]) for repeat in samples]
    pairs = zip(samples, reference, rounds, strict=True)
    return [float(np.median(np.log(medians(s, n) / medians(r, n)))) for s, r, n in pairs]
