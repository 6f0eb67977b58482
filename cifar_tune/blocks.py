"""Statistics of a race: the figures of blocks of fresh processes become ratios, intervals and ties.

A block is one turn of fresh processes, one a contender, that take turns at the same time. Its figure for a contender is
the median of its calls, in milliseconds. Processes differ more than calls do, so the block is the unit of replication:
nothing here looks at a single call. Contenders are compared within blocks, so that the machine's drift cancels (duet
benchmarking: Bulej et al., arXiv 2001.05811).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cifar_tune.between import t_quantile
from cifar_tune.config import REFERENCE, TEACHER_ARM
from cifar_tune.records import LatencyRecord

Floats = NDArray[np.floating[Any]]

LOOKS = (5, 10, 15, 20)
"""Blocks after which a race may end; looked at only then, so that the error over all looks is known."""
CONFIDENCE = 0.95
BETWEEN_RACES = 0.03
"""Standard deviation between races, of the logarithm of a ratio to the baseline, beyond what their blocks explain.

Measured: 2.8 % over ten races within an hour (`benchmarks/race_rerun.py`, docs/log.md).
"""
GAP = math.log(1.2)
"""Least gap, of logarithms, between the two modes of a contender."""
GAP_SPREADS = 4.0
"""Least gap in spreads within the modes."""
MODE_BLOCKS = 2
"""Least blocks of a mode."""
CALM_BLOCKS = 5
"""Undisturbed blocks of a confirmation from which disturbed ones do not count."""
STAGES = ("race", "confirm")
"""Stages of a run whose rows are of blocks."""
SUMMARY_COLUMNS = (
    *("ratio", "ratio_low", "ratio_high", "rerun_low", "rerun_high"),
    *("typical_ms", "typical_low_ms", "typical_high_ms", "floor_ms"),
)
"""Columns of `latency.parquet` that sum up a contender's blocks."""

Key = tuple[str, str]
"""A contender: the trial whose weights it has, and its variant."""
Row = Mapping[str, Any]
"""A row of `latency.parquet`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A figure with two intervals of 95 %."""

    middle: float
    low: float
    """Confidence interval: where the true figure lies."""
    high: float
    rerun_low: float
    """Prediction interval: where the figure of another race of as many blocks will lie."""
    rerun_high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Blocks:
    """What one contender did in the blocks of a stage."""

    numbers: tuple[int, ...]
    """The blocks that it finished, rising."""
    ms: Floats
    """Its median in each of them, (blocks,)."""
    ratios: Floats
    """How many times the baseline's latency that is, in the same block, (blocks,)."""
    lost: str | None
    """Why it did not finish the first block that it lost; None where it lost none."""
    disturbed_blocks: int
    """In how many of them others used the machine."""

    @property
    def disturbed(self) -> bool:
        """Whether others used the machine in more than half of its blocks."""
        return 2 * self.disturbed_blocks > len(self.numbers)


def ratio(
    own_ms: ArrayLike, baseline_ms: ArrayLike, between: float = BETWEEN_RACES, rerun_blocks: int | None = None
) -> Interval:
    """How many times the baseline's latency a contender's is.

    Args:
        own_ms: the contender's milliseconds in each block, (blocks,).
        baseline_ms: the baseline's in the same blocks.
        between: standard deviation between races of the logarithm of the ratio, beyond what their blocks explain.
        rerun_blocks: how many blocks the race has that the rerun interval foretells; None: as many as this one.

    Raises:
        ValueError: fewer than two blocks.
    """
    return _of_logs(_logs(own_ms) - _logs(baseline_ms), between, rerun_blocks)


def _logs(milliseconds: ArrayLike) -> Floats:
    return np.log(np.asarray(milliseconds, dtype=np.float64))


def _of_logs(logs: Floats, between: float, rerun_blocks: int | None) -> Interval:
    """t-intervals of a mean of logarithms, as a ratio.

    What differs between races is known, what differs between blocks is estimated: Satterthwaite's degrees of freedom.
    """
    blocks = len(logs)
    if blocks < 2:
        raise ValueError(f"blocks are {blocks}; allowed is 2 or more, since one block has no spread")
    mean, variance = float(np.mean(logs)), float(np.var(logs, ddof=1))
    half = _half(variance / blocks, between**2, blocks - 1)
    rerun = _half(variance / blocks + variance / (rerun_blocks or blocks), 2 * between**2, blocks - 1)
    low, high, rerun_low, rerun_high = (math.exp(mean + d) for d in (-half, half, -rerun, rerun))
    return Interval(middle=math.exp(mean), low=low, high=high, rerun_low=rerun_low, rerun_high=rerun_high)


def _half(estimated: float, known: float, degrees: int) -> float:
    """Half of the t-interval of a mean whose variance is estimated in part; the baseline over itself has none."""
    if estimated == 0:
        return 0.0
    both = estimated + known
    return t_quantile(0.5 + CONFIDENCE / 2, degrees * (both / estimated) ** 2) * math.sqrt(both)


def is_above(
    own_ratios: ArrayLike, other_ratios: ArrayLike, share: float = CONFIDENCE, between: float = BETWEEN_RACES
) -> bool:
    """Whether a contender's ratio is above another's beyond doubt, each from a race of its own (Welch's t-test).

    Args:
        own_ratios: to the baseline of the same block, (blocks,), two or more.
        other_ratios: the same of the other, (other blocks,).
        share: one-sided confidence.
        between: as of `ratio`.
    """
    own, other = _logs(own_ratios), _logs(other_ratios)
    own_error, other_error = (float(np.var(logs, ddof=1)) / len(logs) for logs in (own, other))
    difference, variance = float(own.mean() - other.mean()), own_error + other_error + 2 * between**2
    if variance == 0:
        return difference > 0
    squares = own_error**2 / (len(own) - 1) + other_error**2 / (len(other) - 1)
    degrees = math.inf if squares == 0 else variance**2 / squares
    return difference > t_quantile(share, degrees) * math.sqrt(variance)


def typical(own_ms: ArrayLike) -> tuple[float, float, float]:
    """Median over the blocks with its 95 % confidence interval, milliseconds.

    Between order statistics, interpolated (Hettmansperger and Sheather, "Confidence intervals based on interpolated
    order statistics", 1986). Of fewer than six blocks it is their range, which holds the median with 50 to 94 %.
    """
    from scipy.special import bdtr  # the binomial distribution

    ordered = np.sort(np.asarray(own_ms, dtype=np.float64))
    blocks, middle = len(ordered), float(np.median(ordered))
    covered = [1 - 2 * float(bdtr(cut, blocks, 0.5)) for cut in range(blocks // 2)]
    inner = next((cut for cut, share in enumerate(covered) if share < CONFIDENCE), 0)
    if inner == 0:
        return middle, float(ordered[0]), float(ordered[-1])
    outer = inner - 1
    share = (covered[outer] - CONFIDENCE) / (covered[outer] - covered[inner])
    weight = (blocks - inner) * share / (inner + (blocks - 2 * inner) * share)
    low = (1 - weight) * ordered[outer] + weight * ordered[inner]
    high = (1 - weight) * ordered[-1 - outer] + weight * ordered[-1 - inner]
    return middle, float(low), float(high)


def tied_with_fastest(milliseconds: ArrayLike, looks: int = 1) -> NDArray[np.bool_]:
    """Which contenders the race cannot separate from the fastest: bool (contenders,).

    Multiple comparisons with the best (Hsu, "Multiple Comparisons", 1996), with paired t-tests and Bonferroni's bound
    instead of equal variances: a contender is out where another is faster beyond doubt. The truly fastest one is out in
    5 % of races at most, over all looks and contenders together.

    Args:
        milliseconds: of each contender in each block, (contenders, blocks).
        looks: how often the race may be looked at in all.
    """
    logs = _logs(milliseconds)
    contenders, blocks = logs.shape
    if contenders == 1 or blocks < 2:
        return np.ones(contenders, dtype=np.bool_)
    bound = t_quantile(1 - (1 - CONFIDENCE) / (looks * (contenders - 1)), blocks - 1)
    differences = logs[:, None, :] - logs[None, :, :]
    errors = differences.std(axis=2, ddof=1) / math.sqrt(blocks)
    return ~(differences.mean(axis=2) > bound * errors).any(axis=1)


def modes(own_ms: ArrayLike) -> tuple[float, float] | None:
    """The two modes of a contender whose processes run at two speeds, milliseconds; None where one describes them.

    Two or more blocks lie on each side of a gap that is above 20 % and above four times the spread within the sides.
    """
    logs = np.sort(_logs(own_ms))
    for cut in range(MODE_BLOCKS, len(logs) - MODE_BLOCKS + 1):
        sides = logs[:cut], logs[cut:]
        squares = sum(float(((side - side.mean()) ** 2).sum()) for side in sides)
        spread = math.sqrt(squares / max(1, len(logs) - 2))
        if logs[cut] - logs[cut - 1] > max(GAP, GAP_SPREADS * spread):
            return math.exp(float(np.median(sides[0]))), math.exp(float(np.median(sides[1])))
    return None


def blocks_of(rows: Iterable[Row], stage: str) -> dict[Key, Blocks]:
    """Contender -> its blocks in a stage, in the order of the rows.

    A block that no contender finished is no block: the machine slept, or it was interrupted. Of a confirmation the
    blocks count that nobody disturbed, where there are CALM_BLOCKS of them.
    """
    mine = [row for row in rows if row["stage"] == stage]
    finished = {row["block"] for row in mine if row["status"] == "ok"}
    baseline = baseline_of(mine)
    baseline_ms = {row["block"]: row["p50_ms"] for row in mine if row["status"] == "ok" and _key(row) == baseline}
    groups: dict[Key, list[Row]] = {}
    for row in sorted((row for row in mine if row["block"] in finished), key=lambda row: row["block"]):
        groups.setdefault(_key(row), []).append(row)
    calm = CALM_BLOCKS if stage == "confirm" else None
    return {key: _blocks(groups[key], baseline_ms, calm) for key in dict.fromkeys(map(_key, mine)) if key in groups}


def baseline_of(rows: Iterable[Row]) -> Key | None:
    """FP32 eager of the teacher, or else of the slowest model; None where no FP32 eager was measured."""
    eager = [row for row in rows if row["variant"] == REFERENCE.name and row["p50_ms"] is not None]
    slowest = max(eager, key=lambda row: (row["arm"] == TEACHER_ARM, row["p50_ms"]), default=None)
    return None if slowest is None else _key(slowest)


def _key(row: Row) -> Key:
    return row["trial_id"], row["variant"]


def _blocks(rows: Sequence[Row], baseline_ms: Mapping[int, float], calm: int | None) -> Blocks:
    """Of one contender; the rows rise by block.

    Args:
        calm: undisturbed blocks from which disturbed ones do not count; None: they always do.
    """
    ended = [row for row in rows if row["status"] == "ok" and _reference(row, baseline_ms) is not None]
    undisturbed = [row for row in ended if not row["contended"]]
    if calm is not None and len(undisturbed) >= calm:
        ended = undisturbed
    lost = next((row for row in rows if row["status"] != "ok"), None)
    ms = np.array([row["p50_ms"] for row in ended], dtype=np.float64)
    beside = np.array([_reference(row, baseline_ms) for row in ended], dtype=np.float64)
    return Blocks(
        numbers=tuple(row["block"] for row in ended),
        ms=ms,
        ratios=ms / beside,
        lost=None if lost is None else f"block {lost['block']} {lost['status']}: {lost['error'] or 'no reason given'}",
        disturbed_blocks=sum(bool(row["contended"]) for row in ended),
    )


def _reference(row: Row, baseline_ms: Mapping[int, float]) -> float | None:
    """Median of the baseline that ran beside the row; a published table may lack its samples."""
    beside = row["reference_ms"]
    return baseline_ms.get(row["block"]) if beside is None else float(np.median(beside[0]))


def summary(found: Blocks) -> dict[str, float | None]:
    """The columns of `latency.parquet` that sum up a contender's blocks; of one block the ratio has no interval."""
    if not found.numbers:
        return {}
    middle, low, high = typical(found.ms)
    milliseconds = {
        "typical_ms": middle, "typical_low_ms": low, "typical_high_ms": high, "floor_ms": float(found.ms.min()),
    }  # fmt: skip
    if len(found.numbers) < 2:
        return {"ratio": float(found.ratios[0]), **milliseconds}
    interval = ratio(found.ratios, np.ones(len(found.ratios)))
    return {
        "ratio": interval.middle, "ratio_low": interval.low, "ratio_high": interval.high,
        "rerun_low": interval.rerun_low, "rerun_high": interval.rerun_high, **milliseconds,
    }  # fmt: skip


def summarised(rows: Sequence[LatencyRecord]) -> list[LatencyRecord]:
    """The rows in their order; those of a race or a confirmation with the columns that sum up their contender's blocks.

    A confirmation of the older protocol, whose runs had three repeats and no baseline beside them, has none.
    """
    plain = [{name: getattr(row, name) for name in _NEEDED} for row in rows]
    found = {
        (stage, key): summary(b) for stage in STAGES for key, b in blocks_of(filter(_of_today, plain), stage).items()
    }
    return [
        replace(record, **found.get((row["stage"], _key(row)), {})) if _of_today(row) else record
        for record, row in zip(rows, plain, strict=True)
    ]


_NEEDED = (
    "stage", "block", "trial_id", "variant", "arm", "status", "error", "p50_ms", "samples_ms", "reference_ms",
    "contended",
)  # fmt: skip


def _of_today(row: Row) -> bool:
    """Whether a row is one of a block: it has the calls of one process, or none where it failed."""
    return row["stage"] in STAGES and (row["samples_ms"] is None or len(row["samples_ms"]) == 1)
