"""The measurement protocol (R8, R9): warm up until stable, then time single calls, in rounds beside a reference.

A round is a few calls of the variant and fewer of the reference, in random order, so a machine that drifts or is
shared slows both: their ratio stays. Before the other one is called, the threads of the one sleep. Rounds are taken in
windows, and a window during which others used the device is taken again. Clock, synchronisation and the watch over the
device are arguments, so the protocol is tested against synthetic clocks, and one protocol serves every runtime and
device. Statistics derive from the raw samples.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from cifar_tune.between import PRIOR, Level, level, t_quantile
from cifar_tune.config import MIN_SAMPLES, PATIENCE, LatencyConfig
from cifar_tune.rounds import Floats, round_medians

STABLE_WINDOWS = 3
"""The warm-up ends when the medians of so many windows in a row agree (the rule of NVIDIA's Model Navigator)."""
STABLE_SHARE = 0.10
UNTIMED_CALLS = 2
"""Calls before the timed ones of a round: the other callable's data and threads are still in the way."""
CONFIDENCE = 0.99
"""Confidence of the order-statistic bound on a percentile (MLPerf LoadGen)."""
PERCENTILES = (95, 99)
BOUND_DRAWS = 400
"""Bootstrap draws of the bounds on the percentiles."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timed:
    """Something to time: a call on inputs that are taken in turn, and how to wait for the device."""

    call: Callable[[Any], Any]
    inputs: Sequence[Any]
    synchronize: Callable[[], object] = lambda: None
    keep: Callable[[Any], object] = lambda _: None
    """Given each answer, warm-up included, outside of the timed part."""
    scope: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext
    """Entered around each run of calls, outside of the timed part: autocast, no grad."""
    settle: Callable[[], object] = lambda: None
    """Called after each run of calls: waits until no thread of theirs works on, beside what is timed next."""


class Watch(Protocol):
    """Looks after the device while a window of samples is taken."""

    def start(self) -> None:
        """A window begins."""
        ...

    def disturbed(self) -> bool:
        """The window has ended: whether others used the device meanwhile."""
        ...


class NoWatch:
    """Never disturbed."""

    def start(self) -> None:
        """Nothing to note."""

    def disturbed(self) -> bool:
        """False."""
        return False


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeat:
    """One repeat of a measurement: milliseconds, in the order in which they were taken."""

    samples_ms: list[float]
    reference_ms: list[float]
    """In as many rounds as the samples; empty without a reference."""
    anchor_ms: list[float]
    """In as many rounds as well; empty without an anchor."""
    settled: bool
    """Whether the warm-up of the variant became stable."""
    reference_settled: bool
    """Whether those of reference and anchor did: where one did not, it may be the machine that does not settle."""
    windows: int
    """Windows kept."""
    discarded: int
    """Windows taken again because others used the device."""
    contended: int
    """Windows kept although others used the device: the limit of repetitions was reached."""


def measure(
    variant: Timed,
    reference: Timed | None,
    config: LatencyConfig,
    rng: np.random.Generator,
    *,
    anchor: Timed | None = None,
    repeats: int = 1,
    clock: Callable[[], float] = time.perf_counter,
    watch: Watch | None = None,
) -> list[Repeat]:
    """Host-to-host milliseconds of single calls of the variant, in rounds beside the reference.

    Each sample runs from before a call to after `synchronize`, which must return only when the device is done. A
    repeat ends with `config.iterations` samples if the confidence interval of their median is within
    `config.median_interval` by then, else with `config.max_iterations`. When its share of `config.time_limit` is used
    up, its share of MIN_SAMPLES is enough; PATIENCE times that time ends it with what it has, one round at least.

    Args:
        anchor: a second reference, in the same rounds; only beside a first one.
        repeats: how many of the `config.repeats` are taken here, after one warm-up.
    """
    assert anchor is None or reference is not None, "an anchor is a second reference"
    timers = [Timer(t, clock) for t in (variant, reference, anchor) if t is not None]
    stable = [warm_up(timer, config.warmup, _share_ms(config))[0] for timer in timers]
    return [_repeat(timers, config, rng, clock, watch or NoWatch(), stable) for _ in range(repeats)]


def _repeat(
    timers: Sequence[Timer],
    config: LatencyConfig,
    rng: np.random.Generator,
    clock: Callable[[], float],
    watch: Watch,
    stable: Sequence[bool],
) -> Repeat:
    taken: list[list[float]] = [[] for _ in timers]
    windows = discarded = contended = 0
    spent_ms = 0.0
    while (most := _wanted(taken[0], spent_ms, config)) > 0:
        watch.start()
        started = clock()
        window = _window(timers, config, _window_ms(spent_ms, config), most, rng)
        disturbed = watch.disturbed()
        if disturbed and discarded < config.retries:
            discarded += 1
            continue
        spent_ms += (clock() - started) * 1e3  # with what is not timed
        windows += 1
        contended += disturbed
        for all_samples, samples in zip(taken, window, strict=True):
            all_samples += samples
    return Repeat(
        samples_ms=taken[0],
        reference_ms=taken[1] if len(taken) > 1 else [],
        anchor_ms=taken[2] if len(taken) > 2 else [],
        settled=stable[0],
        reference_settled=all(stable[1:]),
        windows=windows,
        discarded=discarded,
        contended=contended,
    )


def _share_ms(config: LatencyConfig) -> float:
    """Milliseconds that the rounds of a repeat may take, disturbed windows that are taken again aside."""
    return config.time_limit * 1e3 / config.repeats


def _wanted(samples: Sequence[float], spent_ms: float, config: LatencyConfig) -> int:
    """How many more samples a repeat may take that has these; 0 or less: it has ended."""
    share_ms = _share_ms(config)
    if spent_ms >= PATIENCE * share_ms or _enough(samples, config):
        return 0
    most = config.max_iterations if spent_ms < share_ms else math.ceil(MIN_SAMPLES / config.repeats)
    return most - len(samples)


def _window_ms(spent_ms: float, config: LatencyConfig) -> float:
    """Milliseconds of the next window: it ends with the share of the time limit, if that is yet to come."""
    left_ms = _share_ms(config) - spent_ms
    return min(left_ms if left_ms > 0 else math.inf, config.window * 1e3)


class Timer:
    """Times calls of one thing, one by one."""

    def __init__(self, timed: Timed, clock: Callable[[], float]) -> None:
        turn = itertools.cycle(timed.inputs)
        call, synchronize, keep = timed.call, timed.synchronize, timed.keep

        def sample() -> float:
            given = next(turn)
            started = clock()
            answer = call(given)
            synchronize()
            elapsed = clock() - started
            keep(answer)
            synchronize()  # what was kept may be copied on the device
            return elapsed * 1e3

        self._sample, self._scope, self._settle = sample, timed.scope, timed.settle

    def samples(self, count: int, limit_ms: float = math.inf) -> list[float]:
        """Milliseconds of `count` calls, after some that are not counted: they find the caches full of other data.

        Fewer, one at least, where they take `limit_ms` together.
        """
        taken: list[float] = []
        with self._scope():
            for _ in range(UNTIMED_CALLS):
                self._sample()
            while len(taken) < count and limit_ms > 0:
                taken.append(self._sample())
                limit_ms -= taken[-1]
        self._settle()
        return taken


def warm_up(timer: Timer, least: int, share_ms: float) -> tuple[bool, float]:
    """Call until stable, `least` to ten times as often, time permitting.

    A quarter of the time is enough once `least` calls are made, all of it before.

    Args:
        share_ms: the time, milliseconds.

    Returns:
        Whether it became stable, and the median of the last calls in milliseconds.
    """
    size = math.ceil(least / STABLE_WINDOWS)
    medians: list[float] = []
    left_ms = share_ms
    for calls in itertools.count(size, size):
        window = timer.samples(size, left_ms)
        left_ms -= sum(window)
        medians.append(float(np.median(window)))
        last = medians[-STABLE_WINDOWS:]
        stable = len(last) == STABLE_WINDOWS and max(last) - min(last) <= STABLE_SHARE * min(last)
        enough = stable or left_ms <= share_ms * 3 / 4 or calls >= 10 * least
        if left_ms <= 0 or (calls >= least and enough):
            # a call too slow for three windows cannot be judged
            return stable or len(last) < STABLE_WINDOWS, medians[-1]
    raise AssertionError("unreachable")


def _window(
    timers: Sequence[Timer], config: LatencyConfig, limit_ms: float, most: int, rng: np.random.Generator
) -> list[list[float]]:
    """Rounds until `limit_ms` of calls or `most` samples of each: a list of samples for each timer."""
    taken: list[list[float]] = [[] for _ in timers]
    calls = (config.round_calls, config.reference_calls, config.reference_calls)
    while not taken[0] or (sum(map(sum, taken)) < limit_ms and len(taken[0]) < most):
        for i in rng.permutation(len(timers)):
            taken[i] += timers[i].samples(calls[i])
    return taken


def _enough(samples: Sequence[float], config: LatencyConfig) -> bool:
    if len(samples) < config.iterations:
        return False
    if len(samples) >= config.max_iterations:
        return True
    low, high = median_interval(samples)
    return (high - low) / 2 <= config.median_interval * float(np.median(samples))


def median_interval(samples: ArrayLike) -> tuple[float, float]:
    """95 % confidence interval, within one process, of the median from order statistics; no distribution is assumed."""
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    half = 0.5 * 1.96 * math.sqrt(len(ordered))
    low = max(0, math.floor(len(ordered) / 2 - half))
    high = min(len(ordered) - 1, math.ceil(len(ordered) / 2 + half))
    return float(ordered[low]), float(ordered[high])


def percentile_bound(samples: ArrayLike, percentile: float) -> float | None:
    """Upper bound, with 99 % confidence, of a percentile: an order statistic; None where too few samples bound it.

    As in MLPerf LoadGen one sample at least must lie above the bound, so p90 needs 64 samples, p95 130, p99 662.
    """
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    beyond = _samples_beyond(len(ordered), 1 - percentile / 100)
    return None if beyond < 1 else float(ordered[len(ordered) - 1 - beyond])


def _samples_beyond(count: int, share: float) -> int:
    """Most k with P(Binomial(count, share) <= k) <= 1 - CONFIDENCE; -1 where not even 0 holds."""
    from scipy.stats import binom  # a second of import, which the processes that measure do without

    least = int(binom.ppf(1 - CONFIDENCE, count, share))  # the least k whose probability is that or more
    return least if binom.cdf(least, count, share) <= 1 - CONFIDENCE else least - 1


def statistics(samples_ms: Sequence[Sequence[float]], *, fresh: bool = True) -> dict[str, float | None]:
    """Statistics of the samples as fields of LatencyRecord; percentiles that are not bounded are None.

    The median is the geometric mean of the processes' medians, with the interval of `between.level`. The other
    percentiles are those of the pooled samples, with `_tail_bounds`. All are for what other processes would give.

    Args:
        samples_ms: milliseconds, a list per repeat.
        fresh: whether each repeat had a process of its own.
    """
    pooled = np.concatenate([np.asarray(repeat, dtype=np.float64) for repeat in samples_ms])
    medians = np.array([np.median(repeat) for repeat in samples_ms])
    middle = _between(np.log(medians), pooled, fresh=fresh)
    low, high = middle.interval()
    bounds = _tail_bounds(samples_ms, fresh=fresh)
    tails = {p: None if bound is None else float(np.percentile(pooled, p)) for p, bound in bounds.items()}
    return {
        "mean_ms": float(pooled.mean()),
        "p50_ms": math.exp(middle.mean),
        "p50_low_ms": low,
        "p50_high_ms": high,
        "p95_ms": tails[95],
        "p95_bound_ms": bounds[95],
        "p99_ms": tails[99],
        "p99_bound_ms": bounds[99],
        "std_ms": float(pooled.std(ddof=1)),
        "spread": float((medians.max() - medians.min()) / medians.min()),
    }


def _between(logs: Floats, pooled: Floats, *, fresh: bool) -> Level:
    """The level over processes of a figure whose values within them are pooled here; of one process their median."""
    low, high = median_interval(pooled)
    logs = logs if fresh else np.log([np.median(pooled)])
    return level(logs, fresh=fresh, within=math.log(high / low) / (2 * t_quantile(0.975, math.inf)))


def _tail_bounds(samples_ms: Sequence[Sequence[float]], *, fresh: bool) -> dict[int, float | None]:
    """Upper bounds, with 99 % confidence, of percentiles in another set of as many processes; None: too few samples.

    A bootstrap that resamples the processes, then the calls within each. What was drawn of one process alone is moved
    by the prior for how processes differ. Never below LoadGen's bound for the calls at hand. Three processes cannot
    bound what a fourth would do: where they differ, the bound is about that of the slowest.
    """
    repeats = [np.asarray(repeat, dtype=np.float64) for repeat in samples_ms]
    pooled = np.concatenate(repeats)
    least = {percentile: percentile_bound(pooled, percentile) for percentile in PERCENTILES}
    rng = np.random.default_rng(0)
    processes = repeats if fresh else [pooled]
    drawn = np.array(
        [np.percentile(np.concatenate(list(_draw(processes, rng))), PERCENTILES) for _ in range(BOUND_DRAWS)]
    )
    if len(processes) == 1:
        drawn *= np.exp(rng.normal(0, PRIOR, (BOUND_DRAWS, 1)))
    upper = np.percentile(drawn, 100 * CONFIDENCE, axis=0)
    return {
        p: None if (at := least[p]) is None else max(at, float(up)) for p, up in zip(PERCENTILES, upper, strict=True)
    }


def _draw(repeats: Sequence[Floats], rng: np.random.Generator) -> Iterator[Floats]:
    for i in rng.integers(len(repeats), size=len(repeats)):
        yield repeats[i][rng.integers(len(repeats[i]), size=len(repeats[i]))]


def paired_speedup(
    samples_ms: Sequence[Sequence[float]],
    reference_ms: Sequence[Sequence[float]],
    round_calls: int,
    *,
    fresh: bool = True,
) -> tuple[float, float, float]:
    """How many times as fast as the reference the variant is, with its 95 % interval.

    A round's figure is the median of its calls, a process's the median of its rounds. The speedup is the geometric mean
    of the processes' figures, with the interval of `between.level`.

    Args:
        samples_ms: milliseconds, a list per repeat.
        reference_ms: the same of the reference, in as many rounds.
        round_calls: calls of the variant in a round.
        fresh: whether each repeat had a process of its own.
    """
    medians = (round_medians(v, r, round_calls) for v, r in zip(samples_ms, reference_ms, strict=True))
    ratios = [reference / variant for variant, reference in medians]
    pooled = np.concatenate(ratios)
    found = _between(np.log([np.median(repeat) for repeat in ratios]), pooled, fresh=fresh)
    return math.exp(found.mean), *found.interval()
