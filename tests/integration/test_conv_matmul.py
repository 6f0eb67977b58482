"""Convolutions as matrix products: the same sums, where they pay."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from cifar_tune.models.registry import build_model
from cifar_tune.training.conv_matmul import conv3x3_as_matmul, use_matmul


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [1, 2, 5, 8])
def test_a_product_is_the_convolution(side: int, stride: int) -> None:
    images, weight = torch.randn(3, 4, side, side), torch.randn(6, 4, 3, 3)
    expected = functional.conv2d(images, weight, stride=stride, padding=1)
    torch.testing.assert_close(conv3x3_as_matmul(images, weight, stride), expected)


def test_its_gradients_are_the_convolutions() -> None:
    images = torch.randn(2, 4, 4, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    ours = torch.autograd.grad(conv3x3_as_matmul(images, weight, 1).square().sum(), (images, weight))
    theirs = torch.autograd.grad(functional.conv2d(images, weight, padding=1).square().sum(), (images, weight))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_a_model_keeps_its_parameters_and_answers() -> None:
    plain, other = build_model("resnet18", 10).eval(), build_model("resnet18", 10).eval()
    use_matmul(other)
    images = torch.randn(2, 3, 32, 32)
    assert list(other.state_dict()) == list(plain.state_dict())
    torch.testing.assert_close(other(images), plain(images), rtol=1e-4, atol=1e-4)


def test_only_wide_convolutions_are_replaced() -> None:
    narrow, wide = nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.Conv2d(512, 512, 3, padding=1, bias=False)
    use_matmul(nn.Sequential(narrow, wide))
    assert "forward" not in vars(narrow)
    assert "forward" in vars(wide)
