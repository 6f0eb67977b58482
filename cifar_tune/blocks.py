"""Statistics of a race: the figures of blocks of fresh processes become ratios, intervals and ties.

A block is one turn of fresh processes, one a contender, that take turns at the same time. Its figure for a contender is
the median of its calls, in milliseconds. Processes differ more than calls do, so the block is the unit of replication:
nothing here looks at a single call. Contenders are compared within blocks, so that the machine's drift cancels (duet
benchmarking: Bulej et al., arXiv 2001.05811).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating[Any]]

LOOKS = (5, 10, 15, 20)
"""Blocks after which a race may end; looked at only then, so that the error over all looks is known."""
CONFIDENCE = 0.95
GAP = math.log(1.2)
"""Least gap, of logarithms, between the two modes of a contender."""
GAP_SPREADS = 4.0
"""Least gap in spreads within the modes."""
MODE_BLOCKS = 2
"""Least blocks of a mode."""


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


def ratio(own_ms: ArrayLike, baseline_ms: ArrayLike, between: float = 0.0) -> Interval:
    """How many times the baseline's latency a contender's is.

    Args:
        own_ms: the contender's milliseconds in each block, (blocks,).
        baseline_ms: the baseline's in the same blocks.
        between: standard deviation between races of the logarithm of the ratio, where it is known.

    Raises:
        ValueError: fewer than two blocks.
    """
    return _of_logs(_logs(own_ms) - _logs(baseline_ms), between)


def _logs(milliseconds: ArrayLike) -> Floats:
    return np.log(np.asarray(milliseconds, dtype=np.float64))


def _of_logs(logs: Floats, between: float) -> Interval:
    """t-intervals of a mean of logarithms, as a ratio."""
    blocks = len(logs)
    if blocks < 2:
        raise ValueError(f"blocks are {blocks}; allowed is 2 or more, since one block has no spread")
    mean, variance = float(np.mean(logs)), float(np.var(logs, ddof=1))
    factor = _t_quantile(0.5 + CONFIDENCE / 2, blocks - 1)
    half = factor * math.sqrt(variance / blocks + between**2)
    rerun = factor * math.sqrt(2 * variance / blocks + 2 * between**2)
    low, high, rerun_low, rerun_high = (math.exp(mean + d) for d in (-half, half, -rerun, rerun))
    return Interval(middle=math.exp(mean), low=low, high=high, rerun_low=rerun_low, rerun_high=rerun_high)


def _t_quantile(share: float, degrees: int) -> float:
    """Of Student's t distribution."""
    from scipy.special import stdtrit  # scipy.stats has it, too, and takes half a second to import

    return float(stdtrit(degrees, share))


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
    bound = _t_quantile(1 - (1 - CONFIDENCE) / (looks * (contenders - 1)), blocks - 1)
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
