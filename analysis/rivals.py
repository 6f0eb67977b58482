"""The rows that compete for the front and the candidate: collected, paired and drawn once a report."""

# pandas' own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.decide import grid_rows
from analysis.frames import Row, rows, select
from analysis.paired import lower_bound, unpack_correct
from analysis.race import Figure, Kind, Race, key_of, race_of
from analysis.uncertain import DRAWS, Draws, draw, paired_correct, paired_ms, reference_levels
from cifar_tune.blocks import CONFIDENCE


@dataclass(frozen=True, kw_only=True)
class Rivals:
    """What competes, and what it is compared by."""

    frame: pd.DataFrame
    """See `competing`."""
    rows: list[Row]
    """The rows of `frame`, in their order."""
    grid: list[Row]
    """All rows of the grid, measured or not."""
    race: Race
    """The race and the confirmation, each empty where there was none."""
    placed: list[Row]
    """Rows that may be on the front: those that finished the race, or all of `rows` where there was none."""
    images: int
    """Test images behind `correct`."""
    levels: dict[str, list[float]]
    """See `uncertain.reference_levels`."""

    @property
    def sampled(self) -> bool:
        """Whether the table has the raw samples of all rows that compete."""
        return all(row["samples_ms"] is not None for row in self.rows)

    @functools.cached_property
    def draws(self) -> Draws | None:
        """Bootstrap draws of `rows` by the screen, in their order; None without raw samples. The seed is fixed."""
        return draw(self.rows, self.grid, self.images) if self.sampled else None

    @functools.cached_property
    def place_draws(self) -> Draws | None:
        """Draws of `placed`, in their order: by the race where there was one, else by the screen; None as above."""
        if self.draws is None or not self.race.whole([key_of(row) for row in self.rows]):
            return self.draws
        kept = {row["index"] for row in self.placed}
        columns = [place for place, row in enumerate(self.rows) if row["index"] in kept]
        return Draws(latency_ms=_raced_ms(self.placed, self.race), accuracy=self.draws.accuracy[:, columns])

    @property
    def baseline(self) -> Row | None:
        """The row of the grid that all ratios are to; None without a measured FP32 eager."""
        return next((row for row in self.grid if key_of(row) == self.race.baseline), None)

    @property
    def answers(self) -> int:
        """How many unlike sets of answers the choice is made among: weights times precisions and runtimes."""
        return len({row["correct"] for row in self.rows})

    @property
    def level(self) -> float:
        """Confidence of one accuracy's lower bound, so that all of them hold together at 95 % (Bonferroni).

        A run of the older protocol keeps the level at which it was decided.
        """
        return CONFIDENCE if self.race.is_older else 1 - (1 - CONFIDENCE) / max(1, self.answers)

    def accuracy_low(self, row: Row) -> float:
        """Lower bound of a row's accuracy."""
        return lower_bound(row["test_accuracy"], self.images, self.level)

    def figures(self, row: Row) -> dict[Kind, Figure]:
        """Every kind of figure that there is of a row of the grid that was measured, the best first."""
        baseline = self.baseline
        against = None if baseline is None else paired_ms(baseline, self.levels)
        return self.race.figures(row | {"paired_ms": paired_ms(row, self.levels)}, against)

    def place_ms(self, row: Row) -> float:
        """What a row's place on the front rests on: milliseconds free of drift, by the race if it finished it."""
        raced = bool(self.race.whole([key_of(row)]))
        return self.race.level(key_of(row)) * self.race.baseline_ms if raced else row["paired_ms"]

    def figure(self, row: Row) -> Figure:
        """The best figure that there is of a row."""
        return next(iter(self.figures(row).values()))

    def alike(self, measured: Sequence[Row]) -> list[Figure]:
        """The best kind of figure that all of these rows have: unlike ones are not compared."""
        found = [self.figures(row) for row in measured]
        kinds: tuple[Kind, ...] = ("confirm", "race")
        shared: list[Kind] = [kind for kind in kinds if all(kind in each for each in found)]
        kind: Kind = shared[0] if shared else "screen"
        return [each[kind] for each in found]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejection:
    """Why a row that competes cannot be the candidate."""

    reason: str
    """A clause with figures, for a sentence."""
    certain: bool
    """Whether a rule is broken; False: the row is in doubt, by the lower bound of its accuracy or a disturbance."""


def rivals_of(latency: pd.DataFrame, images: int) -> Rivals:
    """Collect what competes.

    Args:
        latency: the rows of `latency.parquet`.
        images: test images behind `correct`.

    Raises:
        ValueError: the rows come from unlike devices.
    """
    frame, grid, race = competing(latency, images), grid_rows(latency), race_of(latency)
    found = rows(frame)
    whole = set(race.whole([key_of(row) for row in found]))
    placed = [row for row in found if key_of(row) in whole] if whole else found
    return Rivals(
        frame=frame, rows=found, grid=grid, race=race, placed=placed, images=images, levels=reference_levels(grid)
    )


def _raced_ms(placed: Sequence[Row], race: Race, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Draws (draws, rows) of the milliseconds of rows that raced: the same blocks for all of them, drawn anew.

    A mean over n blocks that are drawn from n is too sure of itself by the root of (n - 1) / n: that is made good.
    """
    ratios = np.log(race.ratios([key_of(row) for row in placed]))
    count = ratios.shape[1]
    drawn = np.random.default_rng(seed).integers(0, count, (draws, count))
    means = ratios.mean(axis=1)
    wider = (count / max(1, count - 1)) ** 0.5
    return race.baseline_ms * np.exp(means + wider * (ratios[:, drawn].mean(axis=2).T - means))


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


def check_one_device(latency: pd.DataFrame) -> None:
    """ValueError where rows come from unlike devices: their latencies do not compare."""
    devices = sorted({str(row["env_device_name"]) for row in rows(select(latency, latency["p50_ms"].notna()))})
    if len(devices) > 1:
        raise ValueError(f"rows of unlike devices share no front: {', '.join(devices)}")
