"""What raced and what was confirmed: a row's blocks, and the figure of a row that is the best there is.

A run has up to three kinds of figures. The screen is the grid: one row a variant, in paired rounds. The race has blocks
of fresh processes for the finalists. The confirmation has blocks of new processes for the candidate and the baseline.
Figures of unlike kinds are not compared with each other.
"""

# pandas' own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.frames import Row, rows, select
from cifar_tune.blocks import (
    LOOKS,
    STAGES,
    Blocks,
    Key,
    baseline_of,
    blocks_of,
    ratio,
    summarised,
    summary,
    tied_with_fastest,
)
from cifar_tune.records import LatencyRecord
from cifar_tune.store import column_names, to_row

Kind = Literal["screen", "race", "confirm"]
CONFIRM_TOLERANCE = 0.10
"""A ratio is confirmed where new processes repeat it within this share."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """The latency of a row, as one kind of measurement gives it."""

    kind: Kind
    ms: float
    """Typical milliseconds of a call; of the screen `paired_ms`."""
    low_ms: float | None = None
    """Lower end of the 95 % interval; None in the screen."""
    high_ms: float | None = None
    floor_ms: float | None = None
    """The best block's median."""
    ratio: float | None
    """How many times the baseline's latency that is; None without a baseline."""
    ratio_low: float | None = None
    """Lower end of its 95 % interval; None in the screen."""
    ratio_high: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Confirmation:
    """A row's ratio to the baseline in the race, and in new processes after the choice."""

    before: float
    after: float | None
    """None where its new processes failed."""
    low: float
    """Lower end of what new processes were foretold to give, at 95 %."""
    high: float
    lost: str | None
    """Why a block of the confirmation failed."""
    disturbed: tuple[int, int]
    """Blocks in which others used the machine, and all blocks, of the confirmation."""

    @property
    def agrees(self) -> bool:
        """Whether the new processes repeat the race."""
        if self.after is None or self.lost is not None:
            return False
        near = abs(self.after / self.before - 1) <= CONFIRM_TOLERANCE
        return near and self.low * _LESS <= self.after <= self.high / _LESS


_LESS = 1 - 1e-9
"""What rounding may take from an interval without width."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Race:
    """The race and the confirmation of a run, each empty where there was none."""

    raced: dict[Key, Blocks]
    confirmed: dict[Key, Blocks]
    baseline: Key | None
    """FP32 eager of the teacher, or else of the slowest model; None where none was measured."""
    is_older: bool
    """Whether the run was confirmed by the older protocol: milliseconds of three runs, without a baseline beside."""

    def whole(self, keys: Sequence[Key]) -> list[Key]:
        """Those that raced and lost no block."""
        return [key for key in keys if key in self.raced and self.raced[key].lost is None]

    def ratios(self, keys: Sequence[Key]) -> NDArray[np.float64]:
        """Ratio to the baseline of whole contenders, in the blocks that all of the race have: (contenders, blocks)."""
        numbers = self.numbers
        return np.array(
            [[r for n, r in zip(found.numbers, found.ratios, strict=True) if n in numbers] for found in
             (self.raced[key] for key in keys)], dtype=np.float64,
        )  # fmt: skip

    @property
    def numbers(self) -> set[int]:
        """The blocks of the race that all have who lost none."""
        return _shared(self.raced)

    def level(self, key: Key) -> float:
        """The ratio of a whole contender over all blocks of the race."""
        return math.exp(float(np.log(self.ratios([key])).mean()))

    @property
    def baseline_ms(self) -> float:
        """Typical milliseconds of the baseline in the race, which make a ratio a latency."""
        found = None if self.baseline is None else self.raced.get(self.baseline)
        return 1.0 if found is None or not found.numbers else float(np.median(found.ms))

    def tied(self, keys: Sequence[Key]) -> list[Key]:
        """Of these whole contenders those that the race cannot separate from their fastest."""
        mask = tied_with_fastest(self.ratios(keys), looks=len(LOOKS))
        return [key for key, is_tied in zip(keys, mask, strict=True) if is_tied]

    def confirmation(self, key: Key) -> Confirmation | None:
        """How the confirmation of a contender went; None where it was not confirmed, or did not race."""
        before, after = self.raced.get(key), self.confirmed.get(key)
        if before is None or after is None or len(before.numbers) < 2:
            return None
        found = ratio(before.ratios, np.ones(len(before.ratios)), rerun_blocks=len(after.numbers) or None)
        return Confirmation(
            before=found.middle,
            after=summary(after).get("ratio"),
            low=found.rerun_low,
            high=found.rerun_high,
            lost=after.lost,
            disturbed=(after.disturbed_blocks, len(after.numbers)),
        )

    def figures(self, row: Row, baseline_ms: float | None) -> dict[Kind, Figure]:
        """What there is of a row of the grid, the best first.

        Args:
            row: of the grid, with `paired_ms`.
            baseline_ms: the same of the baseline.
        """
        found: dict[Kind, Figure] = {}
        kinds: tuple[tuple[Kind, dict[Key, Blocks]], ...] = (("confirm", self.confirmed), ("race", self.raced))
        for kind, blocks in kinds:
            own = blocks.get(key_of(row))
            if own is not None and own.numbers and (kind == "confirm" or own.lost is None):
                found[kind] = _of_blocks(kind, own)
        against = None if baseline_ms is None else row["paired_ms"] / baseline_ms
        return {**found, "screen": Figure(kind="screen", ms=row["paired_ms"], ratio=against)}


def _of_blocks(kind: Kind, blocks: Blocks) -> Figure:
    found = summary(blocks)
    return Figure(
        kind=kind, ms=found["typical_ms"] or 0.0, low_ms=found["typical_low_ms"], high_ms=found["typical_high_ms"],
        floor_ms=found["floor_ms"], ratio=found["ratio"], ratio_low=found.get("ratio_low"),
        ratio_high=found.get("ratio_high"),
    )  # fmt: skip


def _shared(raced: dict[Key, Blocks]) -> set[int]:
    """The blocks that all contenders have who lost none."""
    finished = [set(found.numbers) for found in raced.values() if found.lost is None]
    return set.intersection(*finished) if finished else set()


def race_of(latency: pd.DataFrame) -> Race:
    """The race and the confirmation in the rows of `latency.parquet`."""
    found = rows(select(latency, latency["stage"].isin(STAGES)))
    raced = blocks_of(found, "race")
    if not _shared(raced):  # it was stopped before all contenders had finished a block
        raced = {}
    confirm = [row for row in found if row["stage"] == "confirm"]
    only_confirmed = bool(confirm) and all(row["stage"] == "confirm" for row in found)
    is_older = only_confirmed and all(row["ratio"] is None for row in confirm)
    return Race(
        raced=raced,
        confirmed={} if is_older else blocks_of(confirm, "confirm"),
        baseline=baseline_of([row for row in found if row["stage"] == "race"])
        or baseline_of(rows(select(latency, latency["stage"] == "grid"))),
        is_older=is_older,
    )


def key_of(row: Row) -> Key:
    """What a row of a race and one of the grid have in common."""
    return row["trial_id"], row["variant"]


def frame_of(records: Sequence[LatencyRecord]) -> pd.DataFrame:
    """The records of a run that is not at its end, as `latency.parquet` will give them back."""
    return pd.DataFrame([to_row(record) for record in summarised(records)], columns=column_names(LatencyRecord))
