"""Which arithmetic a training on a CPU gets."""

import pytest
import torch

from cifar_tune import arithmetic
from cifar_tune.arithmetic import bf16_gain, cpu_precision


def measured(monkeypatch: pytest.MonkeyPatch, gain: float) -> None:
    monkeypatch.setattr(arithmetic, "bf16_gain", lambda: gain)


@pytest.mark.parametrize(("gain", "chosen"), [(1.8, "bf16"), (0.9, "fp32")])
def test_dense_models_get_what_was_measured_faster(monkeypatch: pytest.MonkeyPatch, gain: float, chosen: str) -> None:
    measured(monkeypatch, gain)
    assert cpu_precision(dense=True, image_size=32) == chosen


def test_bf16_is_not_chosen_for_depthwise_models(monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, 1.8)
    assert cpu_precision(dense=False, image_size=32) == "fp32"


def test_bf16_is_not_chosen_for_tiny_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, 1.8)
    assert cpu_precision(dense=True, image_size=8) == "fp32"


def test_measuring_draws_nothing_from_the_random_state_of_a_training() -> None:
    bf16_gain.cache_clear()
    before = torch.get_rng_state()
    bf16_gain()
    assert torch.equal(torch.get_rng_state(), before)


@torch.no_grad()
def test_it_can_be_measured_where_gradients_are_off() -> None:
    bf16_gain.cache_clear()
    assert bf16_gain() > 0
