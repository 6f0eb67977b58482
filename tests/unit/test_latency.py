"""The protocol against synthetic clocks."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest

from cifar_tune.between import PRIOR, level
from cifar_tune.config import LatencyConfig
from cifar_tune.measuring.latency import (
    CONFIDENCE,
    UNTIMED_CALLS,
    Repeat,
    Timed,
    measure,
    median_interval,
    paired_speedup,
    percentile_bound,
    statistics,
)

PROTOCOL = LatencyConfig(warmup=50, iterations=250, max_iterations=500, repeats=3, time_limit=1000.0)


class FakeDevice:
    """A clock in seconds that only calls and synchronisation move."""

    def __init__(self, durations_ms: Callable[[int], float], asynchronous: bool = False) -> None:
        self.now, self.calls, self.pending = 0.0, 0, 0.0
        self.durations_ms, self.asynchronous = durations_ms, asynchronous

    def call(self, _: object) -> None:
        self.pending += self.durations_ms(self.calls) / 1e3
        self.calls += 1
        if not self.asynchronous:
            self.synchronize()

    def synchronize(self) -> None:
        self.now += self.pending
        self.pending = 0.0

    def measure(self, config: LatencyConfig = PROTOCOL) -> Repeat:
        timed = Timed(call=self.call, inputs=[None], synchronize=self.synchronize)
        return measure(timed, None, config, np.random.default_rng(0), clock=lambda: self.now)[0]


def test_constant_clock_gives_constant_samples() -> None:
    assert {round(s, 9) for s in FakeDevice(lambda _: 2.0).measure().samples_ms} == {2.0}


def test_steady_call_ends_with_the_least_iterations() -> None:
    assert len(FakeDevice(lambda _: 2.0).measure().samples_ms) == 250


def test_noisy_call_goes_on_to_the_most_iterations() -> None:
    noise = np.random.default_rng(0).uniform(1, 3, 10_000)
    assert len(FakeDevice(lambda i: noise[i]).measure().samples_ms) == 500


def test_slow_call_ends_with_its_share_of_700_samples_once_its_share_of_the_time_is_up() -> None:
    config = LatencyConfig(iterations=300, max_iterations=300, repeats=3, time_limit=30.0, round_calls=1)
    assert len(FakeDevice(lambda _: 125.0).measure(config).samples_ms) == 234


def test_very_slow_call_ends_at_ten_times_its_share_of_the_time_limit() -> None:
    config = LatencyConfig(iterations=250, max_iterations=250, repeats=3, time_limit=3.0, round_calls=10)
    seconds_a_round = 0.125 * (10 + UNTIMED_CALLS)
    assert len(FakeDevice(lambda _: 125.0).measure(config).samples_ms) == 10 * math.ceil(10.0 / seconds_a_round)


def test_warmup_is_not_among_the_samples() -> None:
    assert max(FakeDevice(lambda i: 100.0 if i < 50 else 1.0).measure().samples_ms) == pytest.approx(1.0)


def test_warmup_goes_on_until_the_call_is_stable() -> None:
    repeat = FakeDevice(lambda i: 100.0 / (i + 1) if i < 200 else 0.5).measure()
    assert (repeat.settled, max(repeat.samples_ms)) == (True, pytest.approx(0.5))


def test_call_that_never_becomes_stable_is_said_not_to_settle() -> None:
    assert not FakeDevice(lambda i: 1.0 + (i // 27) % 3).measure().settled


def test_asynchronous_work_is_waited_for() -> None:
    assert np.median(FakeDevice(lambda _: 5.0, asynchronous=True).measure().samples_ms) == pytest.approx(5.0)


def test_inputs_are_taken_in_turn_and_every_answer_is_kept() -> None:
    kept: list[int] = []
    timed = Timed(call=lambda given: given, inputs=[0, 1, 2], keep=kept.append)
    measure(timed, None, PROTOCOL, np.random.default_rng(0))
    assert kept == [i % 3 for i in range(len(kept))]


def test_inputs_go_on_from_repeat_to_repeat_after_one_warm_up() -> None:
    given: list[int] = []
    timed = Timed(call=given.append, inputs=list(range(10_000)))
    repeats = measure(timed, None, PROTOCOL, np.random.default_rng(0), repeats=3)
    assert (given, len(repeats)) == (list(range(len(given))), 3)


def test_unrest_of_the_machine_can_be_told_from_a_variant_that_does_not_settle() -> None:
    unrest: Callable[[int], float] = lambda i: 1.0 + (i // 27) % 3  # noqa: E731 - one line says it
    alone, both = paired(unrest, lambda _: 1.0), paired(unrest, unrest)
    assert (alone.settled, alone.reference_settled) == (False, True)
    assert (both.settled, both.reference_settled) == (False, False)


def test_first_calls_of_a_round_are_not_timed() -> None:
    config = LatencyConfig(iterations=700, max_iterations=700, repeats=1, round_calls=10, time_limit=1000.0)
    period = 10 + UNTIMED_CALLS
    warm_up = 3 * (25 + UNTIMED_CALLS)
    device = FakeDevice(lambda i: 50.0 if i >= warm_up and (i - warm_up) % period < UNTIMED_CALLS else 1.0)
    assert max(device.measure(config).samples_ms) == pytest.approx(1.0)


def paired(variant_ms: Callable[[int], float], reference_ms: Callable[[int], float]) -> Repeat:
    """Both on one clock, whose drift slows both alike."""
    device = FakeDevice(lambda _: 0.0)

    def timed(milliseconds: Callable[[int], float]) -> Timed:
        def call(_: object) -> None:
            device.now += milliseconds(device.calls) / 1e3
            device.calls += 1

        return Timed(call=call, inputs=[None])

    rng = np.random.default_rng(0)
    return measure(timed(variant_ms), timed(reference_ms), PROTOCOL, rng, clock=lambda: device.now)[0]


def test_variant_and_reference_have_as_many_rounds() -> None:
    repeat = paired(lambda _: 1.0, lambda _: 2.0)
    assert len(repeat.samples_ms) / PROTOCOL.round_calls == len(repeat.reference_ms) / PROTOCOL.reference_calls


def test_speedup_of_paired_rounds_survives_drift() -> None:
    repeat = paired(lambda i: 1.0 + i / 500, lambda i: 2.0 * (1.0 + i / 500))
    speedup, low, high = paired_speedup([repeat.samples_ms], [repeat.reference_ms], 10)
    assert speedup == pytest.approx(2.0, rel=0.01)
    assert low <= 2.0 <= high


def test_order_of_variant_and_reference_is_random() -> None:
    order: list[str] = []
    timed = [Timed(call=lambda _, name=name: order.append(name), inputs=[None]) for name in "vr"]
    config = dataclasses.replace(PROTOCOL, iterations=700, max_iterations=700, round_calls=1, reference_calls=1)
    measure(timed[0], timed[1], config, np.random.default_rng(0))
    rounds = order[-600 * 2 * (1 + UNTIMED_CALLS) :: 1 + UNTIMED_CALLS]
    firsts = rounds[::2]
    assert 200 < firsts.count("v") < 400


class Watch:
    """Says of the first windows that they were disturbed."""

    def __init__(self, disturbed: int) -> None:
        self.left = disturbed

    def start(self) -> None:
        pass

    def disturbed(self) -> bool:
        self.left -= 1
        return self.left >= 0


def watched(disturbed: int) -> Repeat:
    device = FakeDevice(lambda _: 2.0)
    timed = Timed(call=device.call, inputs=[None], synchronize=device.synchronize)
    rng = np.random.default_rng(0)
    return measure(timed, None, PROTOCOL, rng, clock=lambda: device.now, watch=Watch(disturbed))[0]


def test_disturbed_window_is_taken_again() -> None:
    repeat = watched(1)
    assert (repeat.discarded, repeat.contended, len(repeat.samples_ms) >= 250) == (1, 0, True)


def test_window_disturbed_beyond_the_retries_counts_and_is_said() -> None:
    beyond = watched(PROTOCOL.retries + 1)
    assert (beyond.discarded, beyond.contended) == (PROTOCOL.retries, 1)


def test_spikes_move_p99_and_not_p50() -> None:
    result = statistics([FakeDevice(lambda i: 50.0 if i % 40 == 0 else 1.0).measure().samples_ms] * 3)
    assert (result["p50_ms"], result["p99_ms"]) == (pytest.approx(1.0), pytest.approx(50.0))


def test_bimodal_clock_shows_in_std() -> None:
    samples = FakeDevice(lambda i: 1.0 + 2 * (i % 2)).measure().samples_ms
    assert statistics([samples])["std_ms"] == pytest.approx(1.0, rel=0.01)


def test_drift_shows_in_the_spread_of_the_repeats() -> None:
    device = FakeDevice(lambda i: 1.0 + i / 1000)
    spread = statistics([device.measure().samples_ms for _ in range(3)])["spread"]
    assert spread is not None
    assert spread > 0.3


@pytest.mark.parametrize(("percentile", "least"), [(90, 64), (95, 130), (99, 662)])
def test_percentile_is_bounded_from_as_many_samples_as_loadgen_says(percentile: float, least: int) -> None:
    assert percentile_bound([1.0] * (least - 1), percentile) is None
    assert percentile_bound([1.0] * least, percentile) == 1.0


def most_beyond(count: int, share: float) -> int:
    """Most k with P(Binomial(count, share) <= k) <= 1 %, term by term."""
    cumulative = 0.0
    for k in range(count + 1):
        ways = math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
        cumulative += math.exp(ways + k * math.log(share) + (count - k) * math.log1p(-share))
        if cumulative > 1 - CONFIDENCE:
            return k - 1
    return count


@pytest.mark.parametrize("percentile", [90, 95, 99])
def test_bound_is_the_order_statistic_of_the_binomial_sum(percentile: float) -> None:
    for count in (*range(1, 150), *range(150, 3000, 61)):
        beyond = most_beyond(count, 1 - percentile / 100)
        wanted = None if beyond < 1 else float(count - 1 - beyond)
        assert percentile_bound([float(n) for n in range(count)], percentile) == wanted


def test_percentile_of_very_many_samples_is_bounded() -> None:
    assert percentile_bound([1.0] * 50_000, 95) == 1.0


def test_percentile_bound_holds_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    bounds = [percentile_bound(rng.uniform(size=700).tolist(), 99) for _ in range(1000)]
    assert np.mean([b is not None and b >= 0.99 for b in bounds]) >= 0.985


def test_median_interval_holds_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    intervals = [median_interval(rng.exponential(size=240).tolist()) for _ in range(1000)]
    assert 0.93 < np.mean([low <= np.log(2) <= high for low, high in intervals]) < 0.985


def processes(rng: np.random.Generator, count: int = 3, calls: int = 240, spread: float = 0.05) -> list[list[float]]:
    """Calls of about 1 ms in so many processes, which differ by 5 %."""
    speeds = np.exp(rng.normal(0, spread, (count, 1)))
    return (speeds * np.exp(rng.normal(0, 0.02, (count, calls)))).tolist()


def test_interval_of_p50_holds_what_other_processes_give() -> None:
    rng = np.random.default_rng(0)
    logs = rng.normal(0, 0.05, (2000, 3))
    intervals = [level(row, fresh=True).interval() for row in logs]
    assert 0.92 < np.mean([low <= 1 <= high for low, high in intervals]) < 0.98


def test_statistics_take_the_interval_from_the_processes() -> None:
    samples = processes(np.random.default_rng(0))
    result = statistics(samples)
    wanted = level(np.log(np.median(samples, axis=1)), fresh=True).interval()
    assert (result["p50_low_ms"], result["p50_high_ms"]) == pytest.approx(wanted)


def test_repeats_of_one_process_are_no_replication() -> None:
    samples = processes(np.random.default_rng(0), spread=0.0)
    apart, together = statistics(samples), statistics(samples, fresh=False)
    assert (together["p50_high_ms"] or 0) / (together["p50_low_ms"] or 1) == pytest.approx(
        math.exp(4 * PRIOR), rel=0.03
    )
    assert (apart["p50_high_ms"] or 0) / (apart["p50_low_ms"] or 1) < 1.03


def test_interval_of_the_speedup_is_that_of_the_processes() -> None:
    samples = processes(np.random.default_rng(0))
    _, low, high = paired_speedup(samples, [[1.0] * 72] * 3, 10)
    medians = statistics(samples)
    assert (1 / high, 1 / low) == pytest.approx((medians["p50_low_ms"], medians["p50_high_ms"]), rel=0.01)


def test_bound_of_a_percentile_is_about_that_of_the_slowest_process() -> None:
    alike, unlike = (processes(np.random.default_rng(0), spread=s) for s in (0.0, 0.05))
    bounds = [statistics(samples)["p95_bound_ms"] or 0 for samples in (alike, unlike)]
    order = [percentile_bound(np.ravel(samples), 95) or 0 for samples in (alike, unlike)]
    assert bounds[0] / order[0] < 1.03
    assert bounds[1] > 0.99 * max(np.percentile(process, 95) for process in unlike)
    assert (statistics(alike, fresh=False)["p95_bound_ms"] or 0) > 1.3 * order[0]


def test_p99_is_left_out_where_the_samples_do_not_bound_it() -> None:
    assert statistics([[1.0] * 661])["p99_ms"] is None
    assert statistics([[1.0] * 662])["p99_ms"] == 1.0


def test_fewer_than_700_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="699; allowed is 700 or more"):
        LatencyConfig(iterations=233, repeats=3)


@pytest.mark.parametrize("fresh", [True, False])
def test_intervals_hold_the_figures_that_they_are_of(fresh: bool) -> None:
    """Also where two of three repeats were disturbed."""
    samples = [[1.0] * 240, [1.0] * 240, [9.0] * 240]
    reference = [[20.0] * 72, [20.0] * 72, [500.0] * 72]
    found = statistics(samples, fresh=fresh)
    speedup, low, high = paired_speedup(samples, reference, 10, fresh=fresh)
    assert low <= speedup <= high
    assert found["p50_low_ms"] <= found["p50_ms"] <= found["p50_high_ms"]
