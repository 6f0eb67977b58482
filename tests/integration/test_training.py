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
from cifar_tune.training.averaging import Lookahead
from cifar_tune.training.loop import Epoch, Stepper, evaluate, initial_model, load_state, resized, save_state, train
from cifar_tune.training.muon import orthogonal
from cifar_tune.training.optimizers import WHITENED_BIAS_SHARE, make_optimizer
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


FAST: dict[str, Any] = {
    "whitening": "frozen", "dirac": True, "fixed_norm_scale": True, "norm_momentum": 0.4, "lookahead": True,
    "logit_scale": 1 / 9, "schedule": "triangle",
}  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [{"optimizer": "sgd"}, {"optimizer": "adamw"}, {"optimizer": "muon"}, FAST, {**FAST, "optimizer": "muon"}],
    ids=lambda changes: " ".join(map(str, changes.values())),
)
def test_a_training_that_goes_on_ends_as_one_that_was_never_stopped(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = "speednet" if "lookahead" in changes else "mobilenet_v3_small"
    settings = config(model=model, epochs=3, **changes)
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


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_optimizers_and_schedules_lower_the_loss(optimizer: str, schedule: str) -> None:
    lr = {"sgd": 0.05, "adamw": 0.003, "muon": 0.02}[optimizer]
    epochs = run(config(optimizer=optimizer, schedule=schedule, lr=lr, epochs=5))
    assert epochs[-1].train_loss < epochs[0].train_loss


def test_biases_and_norms_are_not_decayed() -> None:
    for group in make_optimizer(config(), build_model("resnet18", 3)).param_groups:
        assert {p.ndim > 1 for p in group["params"]} == {group["weight_decay"] == 5e-4}


def begun(**changes: Any) -> nn.Module:
    settings = config(model="speednet", **changes)
    return initial_model(settings, DATA)


def test_frozen_whitening_filters_are_not_trained_and_their_bias_is_for_a_while() -> None:
    settings, model = config(model="speednet", whitening="frozen"), begun(whitening="frozen")
    stem = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    groups = {id(p): g for g in make_optimizer(settings, model).param_groups for p in g["params"]}
    assert id(stem.weight) not in groups
    assert groups[id(stem.bias)]["until"] == WHITENED_BIAS_SHARE


def test_dirac_convolutions_pass_their_inputs_on() -> None:
    second = [m for m in begun(dirac=True).modules() if isinstance(m, nn.Conv2d)][2]
    images = torch.randn(1, second.in_channels, 5, 5)
    torch.testing.assert_close(second(images)[:, : second.in_channels], images)


def test_fixed_scales_of_norms_are_in_no_group() -> None:
    model = begun(fixed_norm_scale=True)
    trained = {id(p) for g in make_optimizer(config(), model).param_groups for p in g["params"]}
    assert not trained & {id(m.weight) for m in model.modules() if isinstance(m, nn.BatchNorm2d)}


def test_a_scale_of_the_logits_is_a_start_and_a_rate_of_the_classifier() -> None:
    """A scaled layer under SGD, and one whose logits are scaled, give the same answers after a step."""
    layer, scaled = nn.Linear(4, 3, bias=False), nn.Linear(4, 3, bias=False)
    scaled.load_state_dict({"weight": layer.weight / 9})
    images, labels = torch.randn(8, 4), torch.randint(0, 3, (8,))
    settings = config(logit_scale=1 / 9, weight_decay=0.01)
    by_rate = make_optimizer(settings, scaled)
    for group in by_rate.param_groups:
        group["lr"] = 0.1 * group["rate"]
    by_factor = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
    for _ in range(2):
        for optimizer, answers in ((by_rate, scaled(images)), (by_factor, layer(images) / 9)):
            optimizer.zero_grad()
            nn.functional.cross_entropy(answers, labels).backward()
            optimizer.step()
    torch.testing.assert_close(scaled(images), layer(images) / 9)


def test_lookahead_ends_at_its_average() -> None:
    model = nn.Linear(2, 1, bias=False)
    average = Lookahead(model)
    for step in range(1, 13):
        with torch.no_grad():
            model.weight += 1.0
        average.step(step, 12)
    torch.testing.assert_close(model.weight.detach(), average.slow["weight"])


def test_muon_s_directions_have_singular_values_near_one() -> None:
    found = torch.linalg.svdvals(orthogonal(torch.randn(16, 40, generator=torch.Generator().manual_seed(0))))
    assert found.min() > 0.5
    assert found.max() < 1.3


def test_muon_trains_filters_along_directions_and_the_rest_by_gradients() -> None:
    model = begun()
    groups = make_optimizer(config(optimizer="muon", model="speednet"), model).param_groups
    ours = {id(p) for g in groups if g["filters"] for p in g["params"]}
    assert ours == {id(m.weight) for m in list(model.modules()) if isinstance(m, nn.Conv2d)} - {
        id(next(m for m in model.modules() if isinstance(m, nn.Conv2d)).weight)
    }


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
