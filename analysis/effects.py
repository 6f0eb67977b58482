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

from analysis.decide import is_measured
from analysis.frames import Row, variant_of
from cifar_tune.config import grid_variants
from cifar_tune.rounds import round_ratios

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

    ratios = [round_ratios(s, r, int(row["round_calls"])) for s, r in zip(samples, reference, strict=True)]
    return [float(np.median(np.log(repeat))) for repeat in ratios]
