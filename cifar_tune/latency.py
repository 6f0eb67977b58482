"""The measurement protocol (R8): warm up, then time single calls one by one, several repeats.

Clock and synchronisation are arguments, so the protocol can be tested against synthetic clocks, and one protocol
serves every runtime and device. Statistics derive from the raw samples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from cifar_tune.config import LatencyConfig

P99_SAMPLES = 662
"""Samples needed to bound p99 with 99 % confidence (MLPerf LoadGen's order-statistic rule)."""


def measure(
    call: Callable[[], object],
    config: LatencyConfig,
    *,
    clock: Callable[[], float] = time.perf_counter,
    synchronize: Callable[[], object] = lambda: None,
) -> list[list[float]]:
    """Host-to-host milliseconds of single calls: `config.repeats` lists of `config.iterations` samples.

    Each sample runs from before the call to after `synchronize`, which must return only when the device is done.
    """
    for _ in range(config.warmup):
        call()
    synchronize()
    return [_one_repeat(call, config.iterations, clock, synchronize) for _ in range(config.repeats)]


def _one_repeat(
    call: Callable[[], object], iterations: int, clock: Callable[[], float], synchronize: Callable[[], object]
) -> list[float]:
    samples: list[float] = []
    for _ in range(iterations):
        started = clock()
        call()
        synchronize()
        samples.append((clock() - started) * 1e3)
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
