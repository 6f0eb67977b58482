"""One loop for every arm: deterministic, honest about failure, equal with and without the cache."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_data import config, small_data
from torch import nn

from cifar_tune.config import RecipeConfig, TrainConfig
from cifar_tune.errors import TrainingDivergedError
from cifar_tune.models.registry import MODELS, build_model
from cifar_tune.models.weights import load_weights, save_weights
from cifar_tune.study import StudyConfig
from cifar_tune.training.loop import Epoch, Stepper, evaluate, load_state, resized, save_state, train
from cifar_tune.training.optimizers import make_optimizer
from cifar_tune.training.schedules import SCHEDULES

DATA = small_data()


def run(settings: TrainConfig, teacher: Any = None) -> list[Epoch]:
    return list(train(settings, DATA, teacher))


def weights(epochs: list[Epoch]) -> dict[str, torch.Tensor]:
    return epochs[-1].model.state_dict()


def test_same_seed_gives_the_same_weights() -> None:
    first, second = weights(run(config())), weights(run(config()))
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_dropout_follows_the_seed_whatever_was_drawn_before() -> None:
    settings = config(model="mobilenet_v3_small")
    first = weights(run(settings))
    torch.rand(7)
    second = weights(run(settings))
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_progressive_training_ends_at_the_images_own_side() -> None:
    settings = config(epochs=7, progressive=True)
    assert [settings.share_of_side(epoch, 32) for epoch in range(1, 8)] == [0.5] * 3 + [0.75] * 2 + [1.0] * 2


@pytest.mark.parametrize(("side", "first"), [(8, 8), (20, 16), (28, 16), (96, 48)])
def test_progressive_training_shows_nothing_below_sixteen_pixels(side: int, first: int) -> None:
    assert side * config(epochs=8, progressive=True).share_of_side(1, side) == pytest.approx(first)


def test_a_first_step_that_is_skipped_leaves_no_momentum() -> None:
    model = nn.Linear(3, 2)
    optimizer = make_optimizer(config(), model)
    assert all(optimizer.state[p]["momentum_buffer"].count_nonzero() == 0 for p in model.parameters())


def test_trained_weights_see_the_images_as_they_are() -> None:
    settings = config(epochs=4, progressive=True, start="weights.safetensors")
    assert [settings.share_of_side(epoch, 32) for epoch in range(1, 5)] == [1.0] * 4


def test_smaller_images_keep_their_mean() -> None:
    images = torch.rand(2, 3, 32, 32)
    small = resized(images, 0.75)
    assert small.shape == (2, 3, 24, 24)
    torch.testing.assert_close(small.mean((2, 3)), images.mean((2, 3)), rtol=0.02, atol=0)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_training_that_goes_on_ends_as_one_that_was_never_stopped(tmp_path: Path, optimizer: str) -> None:
    settings = config(model="mobilenet_v3_small", optimizer=optimizer, epochs=3)
    whole = weights(run(settings))
    first = next(train(settings, DATA))
    save_weights(first.model, tmp_path / "weights")
    save_state(first, tmp_path / "state")
    torch.rand(7)

    def resume(stepper: Stepper) -> int:
        load_weights(stepper.model, tmp_path / "weights")
        return load_state(stepper, tmp_path / "state")

    rest = list(train(settings, DATA, resume=resume))
    assert [e.number for e in rest] == [2, 3]
    assert all(torch.equal(whole[k], weights(rest)[k]) for k in whole)


def test_another_seed_gives_other_weights() -> None:
    first, second = weights(run(config())), weights(run(config(seed=1)))
    assert not torch.equal(first["fc.weight"], second["fc.weight"])


def test_training_learns_what_can_be_learned() -> None:
    epochs = run(config(epochs=10, model="speednet"))  # depthwise models need more than 30 steps
    assert max(e.val_accuracy for e in epochs) > 0.9


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_optimizers_and_schedules_lower_the_loss(optimizer: str, schedule: str) -> None:
    lr = 0.05 if optimizer == "sgd" else 0.003
    epochs = run(config(optimizer=optimizer, schedule=schedule, lr=lr, epochs=5))
    assert epochs[-1].train_loss < epochs[0].train_loss


def test_biases_and_norms_are_not_decayed() -> None:
    decayed, *rest = make_optimizer(config(), build_model("resnet18", 3)).param_groups
    assert (decayed["weight_decay"], [g["weight_decay"] for g in rest]) == (5e-4, [0.0, 0.0])
    assert all(p.ndim > 1 for p in decayed["params"])
    assert all(p.ndim == 1 for g in rest for p in g["params"])


@pytest.mark.parametrize("name", MODELS)
def test_every_weight_is_in_one_group(name: str) -> None:
    model = build_model(name, 3)
    groups = make_optimizer(config(), model).param_groups
    assert sorted(id(p) for g in groups for p in g["params"]) == sorted(id(p) for p in model.parameters())


def test_biases_of_batch_norms_learn_faster_with_sgd() -> None:
    model = build_model("resnet18", 3)
    biases = {id(m.bias) for m in model.modules() if isinstance(m, nn.BatchNorm2d)}
    fast = [g for g in make_optimizer(config(), model).param_groups if g["rate"] > 1]
    assert {id(p) for g in fast for p in g["params"]} == biases


def test_adamw_has_one_rate() -> None:
    groups = make_optimizer(config(optimizer="adamw"), build_model("resnet18", 3)).param_groups
    assert {g["rate"] for g in groups if g["params"]} == {1.0}


def test_loss_that_is_not_finite_ends_the_training_with_the_reason() -> None:
    with pytest.raises(TrainingDivergedError, match="training loss is nan in epoch 1"):
        run(config(lr=1e30))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_step_on_a_gpu_waits_for_nothing(optimizer: str, precision: str) -> None:
    settings = config(device="cuda", optimizer=optimizer, precision=precision)
    stepper = Stepper(settings, build_model("resnet_tiny", 3).cuda(), DATA, steps_per_epoch=8)
    images, labels = torch.randn(16, 3, 8, 8, device="cuda"), torch.zeros(16, dtype=torch.int64, device="cuda")
    stepper.step(images, labels, None)  # the first makes the optimiser's state
    torch.cuda.set_sync_debug_mode("error")
    try:
        stepper.step(images, labels, None)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_study_says_whether_steps_are_compiled() -> None:
    assert StudyConfig(recipe=RecipeConfig(compile_step=True)).train_config("resnet_tiny", "plain", {}).compile_step


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_trains(precision: str) -> None:
    assert np.isfinite(run(config(precision=precision))[-1].train_loss)


def test_contiguous_layout_trains() -> None:
    assert np.isfinite(run(config(channels_last=False))[-1].train_loss)


def test_evaluation_does_not_depend_on_the_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model("resnet_tiny", 3)
    whole = evaluate(model, DATA, "test")
    monkeypatch.setattr("cifar_tune.training.loop.EVALUATION_BATCH", {"cpu": 5})
    assert evaluate(model, DATA, "test") == pytest.approx(whole, rel=1e-5)
