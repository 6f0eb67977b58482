"""The measurement protocol (R8): warm up, then time single calls one by one, several repeats.

Clock and synchronisation are arguments, so the protocol can be tested against synthetic clocks, and one protocol
serves every runtime and device. Statistics derive from the raw samples.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from cifar_tune.config import LatencyConfig

X = TypeVar("X")
Y = TypeVar("Y")

P99_SAMPLES = 662
"""Samples needed to bound p99 with 99 % confidence (MLPerf LoadGen's order-statistic rule)."""


def measure(
    call: Callable[[X], Y],
    inputs: Sequence[X],
    config: LatencyConfig,
    *,
    clock: Callable[[], float] = time.perf_counter,
    synchronize: Callable[[], object] = lambda: None,
    keep: Callable[[Y], object] = lambda _: None,
) -> list[list[float]]:
    """Host-to-host milliseconds of single calls: `config.repeats` lists of at most `config.iterations` samples.

    Calls take the inputs in turn, warm-up included. Each sample runs from before the call to after `synchronize`,
    which must return only when the device is done; `keep` is given each answer, warm-up included, outside of the
    timed part. A repeat ends early, with one sample at least, when its share of `config.time_limit` is used up.
    """
    turn = itertools.cycle(inputs)
    for _ in range(config.warmup):
        keep(call(next(turn)))
    synchronize()

    def sample() -> float:
        given = next(turn)
        started = clock()
        answer = call(given)
        synchronize()
        elapsed_ms = (clock() - started) * 1e3
        keep(answer)
        return elapsed_ms

    return [_one_repeat(sample, config) for _ in range(config.repeats)]


def _one_repeat(sample: Callable[[], float], config: LatencyConfig) -> list[float]:
    samples: list[float] = []
    left_ms = config.time_limit * 1e3 / config.repeats
    while len(samples) < config.iterations and left_ms > 0:
        samples.append(sample())
        left_ms -= samples[-1]
    return samples


def statistics(samples_ms: Sequence[Sequence[float]]) -> dict[str, float | None]:
    """mean, p50, p95, p99, std and run-to-run spread of the pooled samples, as LatencyRecord fields.

    Percentiles that the sample count cannot bound are None.
    """
    pooled = np.concatenate([np.asarray(repeat, dtype=np.float64) for repeat in samples_ms])
    medians = [float(np.median(repeat)) for repeat in samples_ms]
    return {
        "mean_ms": float(pooled.mean()),
        "p50_ms": float(np.percentile(pooled, 50)),
        "p95_ms": float(np.percentile(pooled, 95)),
        "p99_ms": float(np.percentile(pooled, 99)) if len(pooled) >= P99_SAMPLES else None,
        "std_ms": float(pooled.std(ddof=1)),
        "spread": (max(medians) - min(medians)) / min(medians),
    }
