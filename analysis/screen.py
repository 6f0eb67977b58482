"""How far the screen can tell rows apart: the error of a row's latency, and what cannot be told from the lowest.

Two processes that run one variant differ more than two calls of one do. So the error of a row is the one between its
processes. Where each row has several, that is pooled over all rows of the screen; where each has one, it is a prior.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from analysis.frames import Row
from cifar_tune.between import PRIOR
from cifar_tune.blocks import CONFIDENCE
from cifar_tune.rounds import round_ratios

_MEDIAN_ERROR = 1.2533
"""Standard error of a median, in those of a mean."""
_QUARTILES_APART = 1.349
"""Distance of the quartiles, in standard deviations."""


def errors(screened: Sequence[Row], grid: Sequence[Row], prior: float = PRIOR) -> NDArray[np.float64]:
    """Standard error of the logarithm of each row's latency, (rows,).

    Args:
        screened: the rows that are asked for.
        grid: all rows of the screen, over which the variance between processes is pooled.
        prior: standard deviation between processes, of the logarithm, of a row that has but one.
    """
    pooled = _between(grid)
    return np.array([_error(row, pooled, prior) for row in screened], dtype=np.float64)


def tied_with_lowest(
    milliseconds: Sequence[float], error: NDArray[np.float64], counts: Sequence[bool] | None = None
) -> NDArray[np.bool_]:
    """Which rows cannot be told from the lowest: bool (rows,).

    Multiple comparisons with the best (Hsu, "Multiple Comparisons", 1996) by one-sided normal bounds on logarithms,
    with Bonferroni's correction: a row is out where another is faster beyond doubt.

    Args:
        milliseconds: (rows,).
        error: of their logarithms, see `errors`.
        counts: whether a row's figure may put others out, (rows,); None: each may.
    """
    logs, count = np.log(np.asarray(milliseconds, dtype=np.float64)), len(milliseconds)
    if count < 2:
        return np.ones(count, dtype=np.bool_)
    bound = NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / (count - 1))
    apart = np.hypot(error[:, None], error[None, :])
    slower: NDArray[np.bool_] = logs[:, None] - logs[None, :] > bound * apart
    counted = slower if counts is None else slower & np.asarray(counts, dtype=np.bool_)
    return np.logical_not(counted.any(axis=1))


def _between(grid: Sequence[Row]) -> float | None:
    """Variance between the processes of a row, pooled; None where no row has several."""
    squares, degrees = 0.0, 0
    for row in grid:
        logs = _process_logs(row)
        if len(logs) > 1:
            squares += float(((logs - logs.mean()) ** 2).sum())
            degrees += len(logs) - 1
    return squares / degrees if degrees else None


def _process_logs(row: Row) -> NDArray[np.float64]:
    """Logarithm of the ratio to the reference in each process of a row; empty where it has but one."""
    if not _is_of_fresh_processes(row["protocol"]) or row["samples_ms"] is None or row["reference_ms"] is None:
        return np.zeros(0)
    pairs = zip(row["samples_ms"], row["reference_ms"], strict=True)
    return np.array([math.log(float(np.median(own)) / float(np.median(beside))) for own, beside in pairs])


def _error(row: Row, pooled: float | None, prior: float) -> float:
    processes = len(_process_logs(row))
    if pooled is None or processes < 2:
        return math.hypot(prior, _within(row))
    return math.sqrt(pooled / processes)


def _within(row: Row) -> float:
    """Standard error, of the logarithm, of the median of a row's paired rounds; nil without raw samples."""
    samples, beside, calls = row["samples_ms"], row["reference_ms"], row["round_calls"]
    if samples is None or beside is None or not calls:
        return 0.0
    logs = np.log(np.concatenate([round_ratios(s, r, int(calls)) for s, r in zip(samples, beside, strict=True)]))
    low, high = np.percentile(logs, [25, 75])  # not their standard deviation: a median does not feel outliers
    return _MEDIAN_ERROR * float(high - low) / _QUARTILES_APART / math.sqrt(len(logs))


@functools.cache
def _is_of_fresh_processes(protocol: str) -> bool:
    return bool(json.loads(protocol).get("fresh_processes"))
