"""One loop for every arm: deterministic, honest about failure, equal with and without the cache."""

import dataclasses
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_data import small_data

from cifar_tune.config import TrainConfig, ViewConfig
from cifar_tune.models import build_model, save_weights
from cifar_tune.schedules import SCHEDULES
from cifar_tune.teacher import CachedTeacher, OnlineTeacher, TeacherRef, cache_key
from cifar_tune.training import Epoch, TrainingDivergedError, cpu_precision, evaluate, make_optimizer, train
from cifar_tune.views import draw_views

DATA = small_data()
CACHE_TOLERANCE = 4e-3
"""Largest relative rounding of float16 is 2^-11; logits of these teachers stay below 8."""


def config(**changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "model": "shufflenet_v2_x0_5", "arm": "plain", "epochs": 2, "batch_size": 16, "lr": 0.05,
        "views": ViewConfig(crop_padding=1), **changes,
    }  # fmt: skip
    return TrainConfig(**settings)


def run(settings: TrainConfig, teacher: Any = None) -> list[Epoch]:
    return list(train(settings, DATA, teacher))


@pytest.fixture
def teacher(tmp_path: Path) -> TeacherRef:
    path = tmp_path / "teacher.safetensors"
    save_weights(build_model("shufflenet_v2_x0_5", 3, seed=5), path)
    return TeacherRef(model="shufflenet_v2_x0_5", checkpoint=str(path), sha256="5" * 64)


def weights(epochs: list[Epoch]) -> dict[str, torch.Tensor]:
    return epochs[-1].model.state_dict()


def test_same_seed_gives_the_same_weights() -> None:
    first, second = weights(run(config())), weights(run(config()))
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_another_seed_gives_other_weights() -> None:
    first, second = weights(run(config())), weights(run(config(seed=1)))
    assert not torch.equal(first["fc.weight"], second["fc.weight"])


def test_training_learns_what_can_be_learned() -> None:
    assert max(e.val_accuracy for e in run(config(epochs=10))) > 0.9


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_optimizers_and_schedules_lower_the_loss(optimizer: str, schedule: str) -> None:
    lr = 0.05 if optimizer == "sgd" else 0.003
    epochs = run(config(optimizer=optimizer, schedule=schedule, lr=lr, epochs=5))
    assert epochs[-1].train_loss < epochs[0].train_loss


def test_biases_and_norms_are_not_decayed() -> None:
    decayed, rest = make_optimizer(config(), build_model("resnet18", 3)).param_groups
    assert (decayed["weight_decay"], rest["weight_decay"]) == (5e-4, 0.0)
    assert all(p.ndim > 1 for p in decayed["params"])
    assert all(p.ndim == 1 for p in rest["params"])


def test_loss_that_is_not_finite_ends_the_training_with_the_reason() -> None:
    with pytest.raises(TrainingDivergedError, match="training loss is nan in epoch 1"):
        run(config(lr=1e30))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_trains(precision: str) -> None:
    assert np.isfinite(run(config(precision=precision))[-1].train_loss)


def test_contiguous_layout_trains() -> None:
    assert np.isfinite(run(config(channels_last=False))[-1].train_loss)


def test_bf16_is_not_chosen_for_depthwise_models_on_cpu() -> None:
    assert cpu_precision(dense=False, image_size=32) == "fp32"


def test_bf16_is_not_chosen_for_tiny_inputs_on_cpu() -> None:
    assert cpu_precision(dense=True, image_size=8) == "fp32"


def test_evaluation_does_not_depend_on_the_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model("shufflenet_v2_x0_5", 3)
    whole = evaluate(model, DATA, "test")
    monkeypatch.setattr("cifar_tune.training.EVALUATION_BATCH", 5)
    assert evaluate(model, DATA, "test") == pytest.approx(whole, rel=1e-5)


def test_cached_logits_equal_online_logits_within_float16(teacher: TeacherRef, tmp_path: Path) -> None:
    views = draw_views(ViewConfig(), 1, len(DATA.train_images))
    online = OnlineTeacher(teacher, DATA, ViewConfig())(1, views)
    cached = CachedTeacher(tmp_path / "cache", teacher, DATA, ViewConfig())(1, views)
    assert (cached.float() - online).abs().max() < CACHE_TOLERANCE


def test_training_with_the_cache_equals_training_with_the_online_teacher(teacher: TeacherRef, tmp_path: Path) -> None:
    data = small_data(size=32)  # at 8x8 batch norm sees one pixel an image, and amplifies any rounding
    settings = config(model="mobilenet_v3_small", arm="distill", alpha=0.7, epochs=3, lr=0.01, batch_size=24)
    online = train(settings, data, OnlineTeacher(teacher, data, settings.views))
    cached = train(settings, data, CachedTeacher(tmp_path / "cache", teacher, data, settings.views))
    assert [e.train_loss for e in cached] == pytest.approx([e.train_loss for e in online], rel=0.01)


def test_logits_of_an_epoch_are_computed_once(
    teacher: TeacherRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cifar_tune.teacher.CHUNK_IMAGES", 8)
    answered: list[int] = []
    answer = OnlineTeacher.answer

    def counted(self: OnlineTeacher, views: Any, start: int, stop: int) -> torch.Tensor:
        answered.append(start)
        return answer(self, views, start, stop)

    monkeypatch.setattr(OnlineTeacher, "answer", counted)
    views = draw_views(ViewConfig(), 1, len(DATA.train_images))
    caches = [CachedTeacher(tmp_path / "cache", teacher, DATA, ViewConfig()) for _ in range(3)]
    threads = [threading.Thread(target=cache, args=(1, views)) for cache in caches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answered) == list(range(0, len(DATA.train_images), 8))


@pytest.mark.parametrize("changed", ["teacher", "data", "views"])
def test_cache_key_depends_on(changed: str) -> None:
    ref, data, views = TeacherRef(model="resnet18", checkpoint="", sha256="1"), DATA, ViewConfig()
    before = cache_key(ref, data, views)
    if changed == "teacher":
        ref = dataclasses.replace(ref, sha256="2")
    elif changed == "data":
        data = dataclasses.replace(data, fingerprint="other")
    else:
        views = dataclasses.replace(views, crop_padding=2)
    assert cache_key(ref, data, views) != before
