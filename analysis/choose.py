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
from analysis.race import key_of
from analysis.rivals import Rejection, Rivals
from analysis.screen import errors, tied_with_lowest
from cifar_tune.blocks import CONFIDENCE, is_above
from cifar_tune.config import REFERENCE


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The candidate, or why there is none."""

    index: int | None
    """Index of its row in the latency frame."""
    text: str
    """The justification, in sentences with figures."""
    refuted: int | None = None
    """Index of the row that was chosen first, which its confirmation left slower than another; None without one."""
    tied: tuple[int, ...] = ()
    """Indices of the other rows that the measurements cannot tell from it."""


def rejections(rivals: Rivals, min_accuracy: float, budget_ms: float | None = None) -> dict[int, Rejection]:
    """Why competing rows cannot be the candidate: index of the row -> rejection. Rows that can are left out."""
    found = {row["index"]: _rejection(rivals, row, min_accuracy, budget_ms) for row in rivals.rows}
    return {index: rejection for index, rejection in found.items() if rejection is not None}


def _rejection(rivals: Rivals, row: Row, min_accuracy: float, budget_ms: float | None) -> Rejection | None:
    reason = _over_budget(row, budget_ms) or _broken_rule(rivals, row, min_accuracy) or _left_race(rivals, row)
    if reason is not None:
        return Rejection(reason=reason, certain=True)
    bound = rivals.accuracy_low(row)
    if bound >= min_accuracy:
        return None
    doubt = (
        f"its accuracy reaches the constraint on this test set, but the lower 95 % bound is {justify.percent(bound)}"
    )
    return Rejection(reason=doubt, certain=False)


def _left_race(rivals: Rivals, row: Row) -> str | None:
    blocks = rivals.race.raced.get(key_of(row))
    return None if blocks is None or blocks.lost is None else f"it did not finish the race ({blocks.lost})"


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


def eligible(
    rivals: Rivals, min_accuracy: float, budget_ms: float | None = None
) -> tuple[list[Row], dict[int, Rejection]]:
    """The rows that can be the candidate, and why the others cannot.

    What counts is the lower 95 % bound of the accuracy. Where no row's bound holds the constraint, rows that reach it
    on this test set are taken.
    """
    rejected = rejections(rivals, min_accuracy, budget_ms)
    found = [row for row in rivals.rows if row["index"] not in rejected]
    if not found:  # what is only in doubt is better than nothing
        rejected = {index: rejection for index, rejection in rejected.items() if rejection.certain}
        found = [row for row in rivals.rows if row["index"] not in rejected]
    return found, rejected


def choose(rivals: Rivals, min_accuracy: float, budget_ms: float | None = None) -> Choice:
    """The candidate: the lowest latency among competing rows that hold the constraint, R10, R13 and the budget.

    Rows that raced are compared by the race. The screen decides where there was no race, or where no row that raced can
    be chosen. A disturbed row is taken only where there is no other. Of rows that the measurements cannot separate from
    the fastest the more accurate is taken, then the faster. Where the confirmation leaves that one slower than another
    row that raced, the choice is made again, once, without it.
    """
    found, rejected = eligible(rivals, min_accuracy, budget_ms)
    if not found:
        measured = [row for row in rivals.grid if is_measured(row)]
        return Choice(index=None, text=justify.none_chosen(rivals, measured, rejected, min_accuracy))
    pool = contest(rivals, found)
    kept = {row["index"] for row in pool}
    rejected |= {row["index"]: _DISTURBED for row in found if _is_disturbed(rivals, row) and row["index"] not in kept}
    best, tied = _best(rivals, pool)
    refuted = best if is_refuted(rivals, best, pool) else None
    if refuted is not None:
        best, tied = _best(rivals, [row for row in pool if row is not refuted])
    text = justify.chosen(best, tied, rivals, rejected, min_accuracy, refuted)
    return Choice(
        index=best["index"],
        text=text,
        refuted=None if refuted is None else refuted["index"],
        tied=tuple(row["index"] for row in tied),
    )


_DISTURBED = Rejection(
    reason="other processes used the machine while it was measured, so it yields to rows that were not disturbed",
    certain=False,
)


def contest(rivals: Rivals, found: list[Row]) -> list[Row]:
    """Of rows that can be chosen those that are compared with each other: by one kind of figure, undisturbed if any."""
    pool = [row for row in found if key_of(row) in rivals.race.raced] or found
    return [row for row in pool if not _is_disturbed(rivals, row)] or pool


def _is_disturbed(rivals: Rivals, row: Row) -> bool:
    blocks = rivals.race.raced.get(key_of(row))
    return bool(row["contended"]) if blocks is None else blocks.disturbed


def fastest(rivals: Rivals, pool: list[Row]) -> list[Row]:
    """The rows that the measurements cannot separate from the fastest, by the race where they raced."""
    if key_of(pool[0]) in rivals.race.raced:
        tied = set(rivals.race.tied([key_of(row) for row in pool]))
        return [row for row in pool if key_of(row) in tied]
    # a prior would let rows win by accuracy that are much slower: what counts is what was seen of each row
    mask = tied_with_lowest([row["paired_ms"] for row in pool], errors(pool, rivals.grid, prior=0.0))
    return [row for row, is_tied in zip(pool, mask, strict=True) if is_tied]


def _best(rivals: Rivals, pool: list[Row]) -> tuple[Row, list[Row]]:
    """The row to choose, and others that cannot be told from it."""
    tied = fastest(rivals, pool)
    raced = key_of(pool[0]) in rivals.race.raced
    best = max(tied, key=lambda row: (row["paired_accuracy"], -_level(rivals, row)))
    return best, [row for row in tied if row is not best] if raced else _indistinguishable(best, pool, rivals)


def _level(rivals: Rivals, row: Row) -> float:
    """What the latencies of rows of one contest are compared by."""
    key = key_of(row)
    return rivals.race.level(key) if key in rivals.race.raced else row["paired_ms"]


def is_refuted(rivals: Rivals, chosen: Row, pool: list[Row]) -> bool:
    """Whether the confirmation of a row leaves it slower, beyond doubt, than another row that raced with it."""
    race, key = rivals.race, key_of(chosen)
    after, others = race.confirmed.get(key), [key_of(row) for row in pool if row is not chosen]
    if after is None or len(after.numbers) < 2 or key not in race.raced or not others:
        return False
    share = 1 - (1 - CONFIDENCE) / len(others)
    return any(is_above(after.ratios, ratios, share) for ratios in race.ratios(others) if len(ratios) > 1)


def _indistinguishable(best: Row, pool: list[Row], rivals: Rivals) -> list[Row]:
    """Other rows of the screen that neither latency nor accuracy tells from the best; needs raw samples."""
    draws = rivals.draws
    place = {row["index"]: n for n, row in enumerate(rivals.rows)}
    if draws is None:
        return []
    others = [row for row in pool if row is not best]
    return [row for row in others if draws.indistinguishable(place[row["index"]], place[best["index"]])]
