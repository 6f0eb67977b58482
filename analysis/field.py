"""Who races, when the race is over, and whether its choice has to be made again.

A run asks between its steps, with what it has measured so far (`race.frame_of`).
"""

# pandas' own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.choose import choose, contest, eligible, fastest
from analysis.frames import Row, label
from analysis.pareto import pareto_mask
from analysis.race import key_of
from analysis.rivals import Rivals, rivals_of
from analysis.screen import errors, tied_with_lowest
from cifar_tune.blocks import LOOKS


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """Who enters the race."""

    rows: list[int]
    """Index of each contender's row in the latency frame, the baseline first; empty where nothing can be chosen."""
    cut: list[int]
    """Rows that should race, and for which there was no place."""
    text: str
    """Who races and why, and what was cut, in sentences."""


def contenders(
    latency: pd.DataFrame, images: int, min_accuracy: float, latency_budget_ms: float | None, most: int
) -> Field:
    """The finalists of the screen.

    These are the baseline, the rows at the constraint that the screen cannot separate from the lowest latency, and
    those on its front. Where they are too many the first go, in that order, each by latency.

    Args:
        latency: the rows of `latency.parquet` so far.
        images: test images behind `correct`.
        min_accuracy: the constraint, 0 to 1.
        latency_budget_ms: the highest p50 of the candidate; None: any.
        most: most contenders, the baseline among them.
    """
    return field_of(rivals_of(latency, images), min_accuracy, latency_budget_ms, most)


def field_of(rivals: Rivals, min_accuracy: float, latency_budget_ms: float | None, most: int) -> Field:
    """See `contenders`."""
    found, _ = eligible(rivals, min_accuracy, latency_budget_ms)
    if not found or rivals.baseline is None:
        return Field(rows=[], cut=[], text="There is no race: no row can be the candidate.")
    near, beside = _near_lowest(rivals, found), _on_front(rivals)
    tied = {row["index"] for row in near}
    others = [row for row in (*near, *beside) if row["index"] != rivals.baseline["index"]]
    wanted = list({row["index"]: row for row in others}.values())
    kept, cut = wanted[: most - 1], wanted[most - 1 :]
    return Field(
        rows=[row["index"] for row in (rivals.baseline, *kept)],
        cut=[row["index"] for row in cut],
        text=_text(rivals.baseline, kept, cut, tied),
    )


def _near_lowest(rivals: Rivals, found: Sequence[Row]) -> list[Row]:
    """Rows that cannot be told from the lowest latency, lowest first; those that were disturbed come last.

    The figure of a disturbed row separates no other row from the lowest.
    """
    calm = [not row["contended"] for row in found]
    counts = calm if any(calm) else None
    mask = tied_with_lowest([row["paired_ms"] for row in found], errors(found, rivals.grid), counts)
    near = [row for row, is_near in zip(found, mask, strict=True) if is_near]
    return sorted(near, key=lambda row: (bool(row["contended"]), row["paired_ms"]))


def _on_front(rivals: Rivals) -> list[Row]:
    """Rows on the screen's front, fastest first."""
    points = np.array([[row["paired_ms"], -row["paired_accuracy"]] for row in rivals.rows])
    front = [row for row, is_on in zip(rivals.rows, pareto_mask(points), strict=True) if is_on]
    return sorted(front, key=lambda row: row["paired_ms"])


def _text(baseline: Row, kept: Sequence[Row], cut: Sequence[Row], tied: set[int]) -> str:
    near = sum(row["index"] in tied for row in kept)
    who = (
        f"{len(kept) + 1} contenders race: the baseline {label(baseline)}, {near} that the screen cannot tell from the "
        f"lowest latency at the constraint, and {len(kept) - near} more of its front."
    )
    sentences = [who]
    if cut:
        names = "; ".join(f"{label(row)} ({row['paired_ms']:.3f} ms)" for row in cut)
        sentences.append(f"There was no place for {names}.")
    return " ".join(sentences)


def race_is_over(
    latency: pd.DataFrame, images: int, min_accuracy: float, latency_budget_ms: float | None = None
) -> bool:
    """Whether the race ends with the blocks that are there.

    It may end at a look only, after 5, 10, 15 or 20 blocks, and after the last it ends in any case. It is over where
    nothing can be chosen, or where one variant of one model is left that cannot be separated from the fastest.
    Other weights of it take the same time, and no race would separate them.
    """
    rivals = rivals_of(latency, images)
    blocks = len(rivals.race.numbers)
    if blocks not in LOOKS:
        return blocks > LOOKS[-1]
    found, _ = eligible(rivals, min_accuracy, latency_budget_ms)
    raced = [row for row in found if key_of(row) in rivals.race.raced]
    if blocks == LOOKS[-1] or not raced:
        return True
    return len({(row["model"], row["variant"]) for row in fastest(rivals, contest(rivals, raced))}) == 1


def needs_second_choice(
    latency: pd.DataFrame, images: int, min_accuracy: float, latency_budget_ms: float | None = None
) -> bool:
    """Whether the confirmation leaves the candidate slower, beyond doubt, than another contender that can be chosen.

    `choose` then takes another one. It is False again as soon as that one has blocks of its own in the confirmation:
    the choice is made again once.
    """
    rivals = rivals_of(latency, images)
    choice = choose(rivals, min_accuracy, latency_budget_ms)
    if choice.refuted is None:
        return False
    now = next(row for row in rivals.rows if row["index"] == choice.index)
    return key_of(now) not in rivals.race.confirmed
