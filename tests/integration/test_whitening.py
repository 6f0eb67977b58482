"""The first convolution of a fresh model: white to begin with, where there are pixels to whiten."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from cifar_tune.models.registry import MODELS, build_model
from cifar_tune.models.whitening import whiten, whitening_filters

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def pictures(count: int = 64, size: int = 16, channels: int = 3) -> np.ndarray:
    """Smooth enough for neighbours to be alike."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, size // 2, size // 2, channels), dtype=np.uint8)
    noise = np.random.default_rng(1).integers(0, 32, (count, size, size, channels), dtype=np.uint8)
    smooth = coarse.repeat(2, 1).repeat(2, 2) // 2 + noise
    return np.broadcast_to(smooth, (count, size, size, 3)).copy()


def first_convolution(model: nn.Module) -> nn.Conv2d:
    return next(m for m in model.modules() if isinstance(m, nn.Conv2d))


def test_what_the_filters_answer_is_white() -> None:
    images = torch.from_numpy(pictures()).permute(0, 3, 1, 2) / 255
    answers = functional.conv2d(images, whitening_filters(images, (3, 3))).transpose(0, 1).flatten(1)
    covariance = torch.cov(answers)
    off = covariance - torch.diag(covariance.diagonal())
    assert covariance.diagonal() == pytest.approx(torch.ones(len(answers)), rel=0.2)
    assert off.abs().max() < 0.01


def test_grey_images_have_a_third_of_the_directions() -> None:
    grey = torch.from_numpy(pictures(channels=1)).permute(0, 3, 1, 2) / 255
    assert len(whitening_filters(grey, (3, 3))) == 9


def test_flat_images_leave_the_model_as_it_is() -> None:
    model, other = build_model("speednet", 10, 0), build_model("speednet", 10, 0)
    whiten(model, np.full((8, 16, 16, 3), 128, dtype=np.uint8), MEAN, STD)
    assert torch.equal(first_convolution(model).weight, first_convolution(other).weight)


def test_each_filter_stands_beside_its_negative() -> None:
    model = build_model("speednet", 10, 0)
    whiten(model, pictures(), MEAN, STD)
    positive, negative = first_convolution(model).weight.chunk(2)
    assert torch.equal(positive, -negative)


def test_filters_beyond_the_directions_stay() -> None:
    model = build_model("resnet18", 10, 0)
    before = first_convolution(model).weight.detach().clone()
    whiten(model, pictures(), MEAN, STD)
    assert torch.equal(first_convolution(model).weight[54:], before[54:])


def test_all_else_stays() -> None:
    model, other = build_model("speednet", 10, 0), build_model("speednet", 10, 0)
    whiten(model, pictures(), MEAN, STD)
    unlike = [name for name, value in model.state_dict().items() if not torch.equal(value, other.state_dict()[name])]
    assert unlike == ["stem.0.weight"]


@pytest.mark.parametrize("name", [name for name, a in MODELS.items() if a.attends])
def test_the_patches_of_a_transformer_are_left_alone(name: str) -> None:
    model, other = build_model(name, 10, 0), build_model(name, 10, 0)
    whiten(model, pictures(size=64, count=4), MEAN, STD)
    assert torch.equal(first_convolution(model).weight, first_convolution(other).weight)


@pytest.mark.parametrize("name", [name for name, a in MODELS.items() if not a.attends])
def test_every_convolutional_model_is_whitened(name: str) -> None:
    model, other = build_model(name, 10, 0), build_model(name, 10, 0)
    whiten(model, pictures(), MEAN, STD)
    assert not torch.equal(first_convolution(model).weight, first_convolution(other).weight)
