"""Architectures, their size, and their checkpoints."""

import functools
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cifar_tune.models.registry import MODELS, build_model, count_parameters
from cifar_tune.models.weights import checkpoint_classes, load_weights, save_weights


@functools.cache
def model_of(name: str) -> nn.Module:
    """One of seven classes that several tests read: drawing weights takes most of their time."""
    return build_model(name, 7).eval()


def megaflops(name: str) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model_of(name)(torch.randn(1, 3, 32, 32))
    return counter.get_total_flops() / 1e6


@pytest.mark.parametrize("name", [name for name in MODELS if not MODELS[name].attends])
@pytest.mark.parametrize("size", [8, 32])
def test_model_gives_a_logit_a_class(name: str, size: int) -> None:
    with torch.no_grad():
        assert model_of(name)(torch.randn(2, 3, size, size)).shape == (2, 7)


def test_mobilenet_v3_small_is_in_the_low_tens_of_megaflops() -> None:
    assert 10 < megaflops("mobilenet_v3_small") < 40


def test_resnet18_has_the_cifar_stem() -> None:
    assert 1000 < megaflops("resnet18") < 1200


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("resnet18", 11.17),
        ("resnet_narrow", 0.70),
        ("speednet", 0.57),
        ("resnet_tiny", 0.08),
        ("mobilenet_v3_small", 1.53),
        ("shufflenet_v2_x1_0", 1.26),
    ],
)
def test_parameters(name: str, millions: float) -> None:
    assert count_parameters(build_model(name, 10)) / 1e6 == pytest.approx(millions, abs=0.01)


def test_same_seed_same_weights() -> None:
    first, second, other = (build_model("shufflenet_v2_x0_5", 10, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


def test_unknown_model_lists_those_allowed() -> None:
    with pytest.raises(
        ValueError,
        match="'vgg' is unknown; allowed are resnet18, resnet_narrow, speednet, speednet_wide, resnet_tiny",
    ):
        build_model("vgg", 10)


def test_checkpoint_keeps_every_weight(tmp_path: Path) -> None:
    source, target = build_model("mobilenet_v3_small", 3, seed=1), build_model("mobilenet_v3_small", 3, seed=2)
    save_weights(source, tmp_path / "w.safetensors")
    load_weights(target, tmp_path / "w.safetensors")
    assert all(torch.equal(v, target.state_dict()[k]) for k, v in source.state_dict().items())


def test_checkpoint_tells_its_classes(tmp_path: Path) -> None:
    for name in MODELS:
        save_weights(model_of(name), tmp_path / name)
        assert checkpoint_classes(tmp_path / name) == 7


def test_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"no weights here")
    with pytest.raises(ValueError, match="not a readable safetensors checkpoint"):
        load_weights(build_model("resnet18", 10), tmp_path / "w.safetensors")


def test_checkpoint_of_another_architecture_names_the_keys(tmp_path: Path) -> None:
    save_weights(build_model("shufflenet_v2_x0_5", 10), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"missing bn1\.bias, .* unexpected conv1\.0\.weight"):
        load_weights(build_model("resnet18", 10), tmp_path / "w.safetensors")


def test_checkpoint_with_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    save_weights(build_model("shufflenet_v2_x0_5", 10), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="another number of classes"):
        load_weights(build_model("shufflenet_v2_x0_5", 3), tmp_path / "w.safetensors")
