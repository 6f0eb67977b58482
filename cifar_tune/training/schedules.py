"""SCHEDULES: name -> pure function of progress (0 at the first step, 1 after the last) to a factor of the peak rate."""

from __future__ import annotations

import math
from collections.abc import Callable

WARMUP = 0.05
"""Share of a run over which cosine, step and linear rise to the peak: high rates diverge on fresh weights."""
ONE_CYCLE_PEAK = 0.3
"""Share of a run at which one-cycle reaches its peak (Smith and Topin, "Super-convergence", 2017)."""
ONE_CYCLE_START = 1 / 25
TRIANGLE_START, TRIANGLE_PEAK, TRIANGLE_END = 0.2, 0.23, 0.07


def _warmed(factor: float, progress: float) -> float:
    return factor * min(1.0, (progress + 0.01) / WARMUP)


def cosine(progress: float) -> float:
    """Half a cosine from 1 to 0 (Loshchilov and Hutter, SGDR, 2016)."""
    return _warmed(0.5 * (1 + math.cos(math.pi * progress)), progress)


def step(progress: float) -> float:
    """1, then a tenth from half of the run, a hundredth from three quarters."""
    return _warmed(1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01, progress)


def linear(progress: float) -> float:
    """A straight line from 1 to 0."""
    return _warmed(1 - progress, progress)


def one_cycle(progress: float) -> float:
    """Up to the peak over the first 30 % of the run, down to 0 over the rest, both along a cosine."""
    if progress < ONE_CYCLE_PEAK:
        risen = 0.5 * (1 - math.cos(math.pi * progress / ONE_CYCLE_PEAK))
        return ONE_CYCLE_START + (1 - ONE_CYCLE_START) * risen
    return 0.5 * (1 + math.cos(math.pi * (progress - ONE_CYCLE_PEAK) / (1 - ONE_CYCLE_PEAK)))


def triangle(progress: float) -> float:
    """A straight line from a fifth to the peak, then one down to 0.07 (Jordan, arXiv 2404.00498)."""
    if progress < TRIANGLE_PEAK:
        return TRIANGLE_START + (1 - TRIANGLE_START) * progress / TRIANGLE_PEAK
    return 1 - (1 - TRIANGLE_END) * (progress - TRIANGLE_PEAK) / (1 - TRIANGLE_PEAK)


SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": cosine,
    "step": step,
    "one_cycle": one_cycle,
    "linear": linear,
    "triangle": triangle,
}


def schedule(name: str) -> Callable[[float], float]:
    """The registered schedule; ValueError lists those there are."""
    if name not in SCHEDULES:
        raise ValueError(f"schedule {name!r} is unknown; allowed are {', '.join(SCHEDULES)}")
    return SCHEDULES[name]
