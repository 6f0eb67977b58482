"""What differs from process to process, in the interval of a figure that rests on a few of them.

Two processes that run the same variant differ more than two calls of one do: in where memory lies, in which core a
thread wakes on. So a row's figures are one for each fresh process, and repeats in one process count as one. The
logarithms of latencies and of ratios are about normal, so intervals are those of a mean of logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating[Any]]

PRIOR = 0.15
"""Standard deviation between processes, of logarithms, where a row has but one: above what was measured (0.016 to
0.10), since a single process may be in a fast or a slow state."""
LEAST_SPREAD = 0.001
"""No row's processes count as more alike than this: a clock's ticks, or chance."""
LEAST_ROWS = 20
"""Rows from which their variances tell how much variances differ."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """A figure over a row's processes, as a logarithm."""

    mean: float
    error: float
    """Standard error of the mean, for what differs from process to process."""
    degrees: float
    """Degrees of freedom behind the error; infinite where it is the prior."""
    processes: float
    """Variance between processes over that of the mean; of a row the number of its processes."""

    def interval(self, share: float = 0.95) -> tuple[float, float]:
        """Two-sided t-interval, no longer as a logarithm."""
        half = self.error * t_quantile(0.5 + share / 2, self.degrees)
        return math.exp(self.mean - half), math.exp(self.mean + half)


def level(logs: ArrayLike, *, fresh: bool, within: float = 0.0) -> Level:
    """The level of a row.

    Args:
        logs: the logarithm of the figure of each repeat, (repeats,).
        fresh: whether each repeat had a process of its own.
        within: standard error, of the logarithm, within a process; it counts where there is but one process.
    """
    values = np.asarray(logs, dtype=np.float64)
    mean, count = float(np.mean(values)), len(values)
    if not fresh or count == 1:
        return Level(mean=mean, error=math.hypot(PRIOR, within), degrees=math.inf, processes=1)
    spread = max(float(np.std(values, ddof=1)), LEAST_SPREAD)
    return Level(mean=mean, error=spread / math.sqrt(count), degrees=count - 1, processes=count)


def change(before: Level, after: Level) -> Level:
    """By how much `after` is above `before`, as a logarithm: two rows whose processes differ by as much."""
    mean, weight = after.mean - before.mean, 1 / (1 / before.processes + 1 / after.processes)
    if math.isinf(before.degrees) or math.isinf(after.degrees):
        error = math.hypot(before.error, after.error)
        return Level(mean=mean, error=error, degrees=math.inf, processes=weight)
    degrees = before.degrees + after.degrees
    variance = sum(of.degrees * of.error**2 * of.processes for of in (before, after)) / degrees
    return Level(mean=mean, error=math.sqrt(variance / weight), degrees=degrees, processes=weight)


def moderated(levels: Sequence[Level]) -> list[Level]:
    """The same levels, each error drawn towards that of all rows, with the degrees of freedom that this gives.

    Three processes tell little of their own spread. All rows of a run together tell how large it is, and how much it
    differs from row to row. Rows of one process keep the prior. Fewer than LEAST_ROWS rows keep their own errors.

    Source: Smyth, "Linear models and empirical Bayes methods for assessing differential expression", Statistical
    Applications in Genetics and Molecular Biology 3, 2004.
    """
    measured = [found for found in levels if not math.isinf(found.degrees)]
    if len(measured) < LEAST_ROWS:
        return list(levels)
    variances = np.array([found.error**2 * found.processes for found in measured])
    degrees = np.array([found.degrees for found in measured])
    prior, weight = _prior_variance(variances, degrees)

    def drawn(found: Level) -> Level:
        if math.isinf(found.degrees):
            return found
        own = found.error**2 * found.processes
        shared = prior if math.isinf(weight) else (weight * prior + found.degrees * own) / (weight + found.degrees)
        known = min(weight + found.degrees, float(degrees.sum()))  # all rows together know no more than that
        return replace(found, error=math.sqrt(shared / found.processes), degrees=known)

    return [drawn(found) for found in levels]


def _prior_variance(variances: Floats, degrees: Floats) -> tuple[float, float]:
    """Variance that is typical of the rows, and the degrees of freedom that it is worth (Smyth 2004, section 6.2)."""
    from scipy.special import digamma, polygamma  # a tenth of a second of import

    centred = np.log(variances) - digamma(degrees / 2) + np.log(degrees / 2)
    beyond = float(np.var(centred, ddof=1) - np.mean(polygamma(1, degrees / 2)))
    if beyond <= 0:  # the rows' variances differ by chance alone
        return float(np.average(variances, weights=degrees)), math.inf
    weight = 2 * _trigamma_inverse(beyond)
    return math.exp(float(np.mean(centred)) + float(digamma(weight / 2)) - math.log(weight / 2)), weight


def _trigamma_inverse(value: float) -> float:
    """x with trigamma(x) = value, by Newton's method on 1 / trigamma, which is nearly straight."""
    from scipy.special import polygamma

    x = 0.5 + 1 / value
    for _ in range(20):
        found = float(polygamma(1, x))
        x += found * (1 - found / value) / float(polygamma(2, x))
    return x


def t_quantile(share: float, degrees: float) -> float:
    """Of Student's t distribution; of the normal one where the degrees of freedom are infinite."""
    from scipy.special import ndtri, stdtrit  # scipy.stats has it, too, and takes half a second to import

    return float(ndtri(share) if math.isinf(degrees) else stdtrit(degrees, share))


def two_sided(statistic: float, degrees: float) -> float:
    """Chance of a t statistic at least as far from zero."""
    from scipy.special import ndtr, stdtr

    below = -abs(statistic)
    return 2 * float(ndtr(below) if math.isinf(degrees) else stdtr(degrees, below))
