"""Which arithmetic a training gets."""

import pytest
import torch

from cifar_tune.training import precision as arithmetic
from cifar_tune.training.precision import fastest, gain


def measured(monkeypatch: pytest.MonkeyPatch, ratio: float) -> None:
    monkeypatch.setattr(arithmetic, "gain", lambda *_: ratio)


@pytest.mark.parametrize(("ratio", "chosen"), [(1.8, "bf16"), (0.9, "fp32")])
def test_dense_models_get_what_was_measured_faster(monkeypatch: pytest.MonkeyPatch, ratio: float, chosen: str) -> None:
    measured(monkeypatch, ratio)
    assert fastest("cpu", dense=True, image_size=32) == chosen


def test_bf16_is_not_chosen_for_depthwise_models_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, 1.8)
    assert fastest("cpu", dense=False, image_size=32) == "fp32"


def test_bf16_is_not_chosen_for_tiny_inputs_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, 1.8)
    assert fastest("cpu", dense=True, image_size=8) == "fp32"


@pytest.mark.parametrize(
    ("over_bf16", "over_tf32", "chosen"), [(1.0, 2.0, "bf16"), (3.0, 2.0, "fp16"), (1.0, 1.0, "fp32")]
)
def test_loss_scaling_and_half_precision_must_pay_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, over_bf16: float, over_tf32: float, chosen: str
) -> None:
    ratios = {"bf16": over_bf16, "fp32": over_tf32}
    monkeypatch.setattr(arithmetic, "gain", lambda _, over, __: ratios[over])
    assert fastest("cuda", dense=False, image_size=8) == chosen


def test_measuring_draws_nothing_from_the_random_state_of_a_training() -> None:
    gain.cache_clear()
    before = torch.get_rng_state()
    gain("bf16", "fp32", "cpu")
    assert torch.equal(torch.get_rng_state(), before)


@torch.no_grad()
def test_it_can_be_measured_where_gradients_are_off() -> None:
    gain.cache_clear()
    assert gain("bf16", "fp32", "cpu") > 0
