"""The protocol against synthetic clocks, and the variants against FP32 eager."""

import itertools
from collections.abc import Callable

import pytest
import torch

from cifar_tune.config import LatencyConfig, Variant, grid_variants
from cifar_tune.latency import measure, statistics
from cifar_tune.models import build_model
from cifar_tune.runtimes import RUNTIMES, UnsupportedError

PROTOCOL = LatencyConfig(warmup=3, iterations=250, repeats=3)


class FakeDevice:
    """A clock in seconds that only calls and synchronisation move."""

    def __init__(self, durations_ms: Callable[[int], float], asynchronous: bool = False) -> None:
        self.now, self.calls, self.pending, self.syncs = 0.0, 0, 0.0, 0
        self.durations_ms, self.asynchronous = durations_ms, asynchronous

    def call(self, _: object = None) -> None:
        self.pending += self.durations_ms(self.calls) / 1e3
        self.calls += 1
        if not self.asynchronous:
            self.synchronize()

    def synchronize(self) -> None:
        self.now += self.pending
        self.pending = 0.0
        self.syncs += 1

    def measure(self) -> list[list[float]]:
        return measure(self.call, [None], PROTOCOL, clock=lambda: self.now, synchronize=self.synchronize)


def test_constant_clock_gives_constant_samples() -> None:
    assert {round(s, 9) for repeat in FakeDevice(lambda _: 2.0).measure() for s in repeat} == {2.0}


def test_repeats_and_iterations_are_as_asked() -> None:
    assert [len(repeat) for repeat in FakeDevice(lambda _: 2.0).measure()] == [250, 250, 250]


def test_inputs_are_taken_in_turn_and_every_answer_is_kept() -> None:
    kept: list[int] = []
    measure(lambda given: given, [0, 1, 2], PROTOCOL, keep=kept.append)
    assert kept == [i % 3 for i in range(3 + 750)]


def test_slow_call_ends_at_the_time_limit() -> None:
    config = LatencyConfig(warmup=1, iterations=250, repeats=3, time_limit=3.0)
    device = FakeDevice(lambda _: 125.0)
    samples = measure(device.call, [None], config, clock=lambda: device.now, synchronize=device.synchronize)
    assert [len(repeat) for repeat in samples] == [8, 8, 8]


def test_warmup_is_not_among_the_samples() -> None:
    device = FakeDevice(lambda i: 100.0 if i < 3 else 1.0)
    assert max(max(repeat) for repeat in device.measure()) == pytest.approx(1.0)


def test_asynchronous_work_is_waited_for() -> None:
    assert statistics(FakeDevice(lambda _: 5.0, asynchronous=True).measure())["p50_ms"] == pytest.approx(5.0)


def test_spikes_move_p99_and_not_p50() -> None:
    result = statistics(FakeDevice(lambda i: 50.0 if i % 40 == 0 else 1.0).measure())
    assert (result["p50_ms"], result["p99_ms"]) == (pytest.approx(1.0), pytest.approx(50.0))


def test_bimodal_clock_shows_in_std() -> None:
    assert statistics(FakeDevice(lambda i: 1.0 + 2 * (i % 2)).measure())["std_ms"] == pytest.approx(1.0, rel=0.01)


def test_drift_shows_in_the_spread_of_the_repeats() -> None:
    spread = statistics(FakeDevice(lambda i: 1.0 + i / 1000).measure())["spread"]
    assert spread is not None
    assert spread > 0.3


def test_p99_is_left_out_where_the_samples_do_not_bound_it() -> None:
    assert statistics([[1.0] * 661])["p99_ms"] is None
    assert statistics([[1.0] * 662])["p99_ms"] == 1.0


def test_fewer_than_700_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="699; allowed is 700 or more"):
        LatencyConfig(iterations=233, repeats=3)


def test_grid_is_precision_by_compile_by_layout() -> None:
    cells = {(v.precision, v.compile, v.channels_last) for v in grid_variants()}
    assert cells == set(itertools.product(("fp32", "fp16"), ("none", "default"), (False, True)))


def test_variant_names_are_unique() -> None:
    assert len({v.name for v in grid_variants()}) == 8


@pytest.mark.parametrize("variant", [v for v in grid_variants() if v.compile == "none"], ids=lambda v: v.name)
def test_eager_variants_agree_with_fp32(variant: Variant) -> None:
    images = torch.randn(16, 3, 32, 32)
    model = build_model("shufflenet_v2_x0_5", 10)
    with torch.inference_mode():
        expected = model.eval()(images)
    runnable = RUNTIMES[variant.runtime](model, variant, "cpu")
    with runnable.scope():
        got = runnable.call(runnable.prepare_input(images)).float()
    torch.testing.assert_close(got, expected, atol=0.03, rtol=0.03)


def test_fp16_variant_computes_in_fp16() -> None:
    runnable = RUNTIMES["torch"](build_model("shufflenet_v2_x0_5", 10), Variant(precision="fp16"), "cpu")
    with runnable.scope():
        assert runnable.call(torch.randn(1, 3, 32, 32)).dtype == torch.float16


def test_channels_last_variant_has_channels_last_weights() -> None:
    model = build_model("resnet18", 10)
    RUNTIMES["torch"](model, Variant(channels_last=True), "cpu")
    weight = model.get_parameter("layer1.0.conv1.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_missing_compiler_makes_a_variant_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UnsupportedError, match=r"needs a C\+\+ compiler"):
        RUNTIMES["torch"](build_model("shufflenet_v2_x0_5", 10), Variant(compile="default"), "cpu")
