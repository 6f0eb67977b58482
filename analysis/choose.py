"""Which row is the candidate (R16), and why the others are not (R10, R13, the accuracy and the latency budget)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from analysis import justify
from analysis.decide import (
    MIN_LAYOUT_GAIN,
    accuracy_drop,
    exceeds_layout_gain,
    gain_text,
    is_measured,
    latency_gain,
    max_drop,
    partner,
)
from analysis.frames import Row
from analysis.paired import lower_bound
from analysis.rivals import Rejection, Rivals
from cifar_tune.config import REFERENCE

TIE = 0.01
"""Candidates whose latency is within this share of the lowest count as equally fast."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The candidate, or why there is none."""

    index: int | None
    """Index of its row in the latency frame."""
    text: str
    """The justification, in sentences with figures."""


def rejections(rivals: Rivals, min_accuracy: float, budget_ms: float | None = None) -> dict[int, Rejection]:
    """Why competing rows cannot be the candidate: index of the row -> rejection. Rows that can are left out."""
    found = {row["index"]: _rejection(rivals, row, min_accuracy, budget_ms) for row in rivals.rows}
    return {index: rejection for index, rejection in found.items() if rejection is not None}


def _rejection(rivals: Rivals, row: Row, min_accuracy: float, budget_ms: float | None) -> Rejection | None:
    reason = _over_budget(row, budget_ms) or _broken_rule(rivals, row, min_accuracy)
    if reason is not None:
        return Rejection(reason=reason, certain=True)
    bound = lower_bound(row["test_accuracy"], rivals.images)
    if bound >= min_accuracy:
        return None
    doubt = (
        f"its accuracy reaches the constraint on this test set, but the lower 95 % bound is {justify.percent(bound)}"
    )
    return Rejection(reason=doubt, certain=False)


def _over_budget(row: Row, budget_ms: float | None) -> str | None:
    if budget_ms is None or row["p50_ms"] <= budget_ms:
        return None
    return f"p50 {row['p50_ms']:.3f} ms is above the budget of {budget_ms:g} ms"


def _broken_rule(rivals: Rivals, row: Row, min_accuracy: float) -> str | None:
    """What the row does not hold for certain: the constraint, the accuracy of its precision, the gain of its layout."""
    grid, images = rivals.grid, rivals.images
    if row["test_accuracy"] < min_accuracy:
        return f"its accuracy of {justify.percent(row['test_accuracy'])} is below the constraint"
    if row["precision"] != REFERENCE.precision:
        # The FP32 row that is built alike may have failed; FP32 eager then still tells what the precision costs.
        eager = dataclasses.asdict(REFERENCE)
        same = [partner(grid, row, precision="fp32"), partner(grid, row, **eager)]
        drops = [accuracy_drop(row, fp32, images) for fp32 in same if fp32 is not None]
        drop = next((d for d in drops if d is not None), None)
        if drop is None:
            return f"the accuracy of {row['precision']} was not compared with that of FP32"
        if drop.points >= max_drop(row):
            limit = f"less than {max_drop(row):g} {'point is' if max_drop(row) == 1 else 'points are'} allowed"
            return f"{row['precision']} costs {drop.points:.2f} points of accuracy, and {limit}"
    if row["channels_last"]:
        without = partner(grid, row, channels_last=False)
        gain = latency_gain(row, without) if without is not None and is_measured(without) else None
        if gain is not None and not exceeds_layout_gain(gain):
            limit = f"the rule asks for a gain above {100 * MIN_LAYOUT_GAIN:.0f} %"
            return f"with channels_last {gain_text(gain)}, and {limit}"
    return None


def choose(rivals: Rivals, min_accuracy: float, budget_ms: float | None = None) -> Choice:
    """The candidate: the lowest latency among competing rows that hold the constraint, R10, R13 and the budget.

    What counts is the lower 95 % bound of the accuracy. Where no row's bound holds the constraint, rows that reach it
    on this test set are taken, and the text says that it is not certain. Latencies are free of drift (`paired_ms`);
    of rows within 1 % of the lowest the more accurate is taken, then the faster.
    """
    rejected = rejections(rivals, min_accuracy, budget_ms)
    eligible = [row for row in rivals.rows if row["index"] not in rejected]
    if not eligible:  # what is only in doubt is better than nothing
        rejected = {index: rejection for index, rejection in rejected.items() if rejection.certain}
        eligible = [row for row in rivals.rows if row["index"] not in rejected]
    if not eligible:
        measured = [row for row in rivals.grid if is_measured(row)]
        return Choice(index=None, text=justify.none_chosen(rivals, measured, rejected, min_accuracy))
    lowest = min(row["paired_ms"] for row in eligible)
    fastest = [row for row in eligible if row["paired_ms"] <= lowest * (1 + TIE)]
    best = max(fastest, key=lambda row: (row["paired_accuracy"], -row["paired_ms"]))
    tied = _tied(best, eligible, rivals)
    return Choice(index=best["index"], text=justify.chosen(best, tied, rivals, rejected, min_accuracy))


def _tied(best: Row, eligible: list[Row], rivals: Rivals) -> list[Row]:
    """Other rows that may be chosen and that neither latency nor accuracy tells from the best; needs raw samples."""
    draws = rivals.draws
    if draws is None:
        return []
    place = {row["index"]: n for n, row in enumerate(rivals.rows)}
    others = [row for row in eligible if row is not best]
    return [row for row in others if draws.indistinguishable(place[row["index"]], place[best["index"]])]
