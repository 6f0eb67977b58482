"""Pruned models: whole channels are gone, the name tells the shapes, and weights are those of the whole model."""

import dataclasses
from pathlib import Path

import pytest
import torch
from small_data import small_data
from torch.utils.flop_counter import FlopCounterMode

from cifar_tune.config import TrainConfig
from cifar_tune.models.pruning import compressed_mb, narrowed, parse, pruned_name, zero_smallest
from cifar_tune.models.registry import architecture, build_model
from cifar_tune.models.weights import load_weights, save_weights
from cifar_tune.training.loop import initial_model, train

MODELS = ["resnet_narrow", "speednet", "mobilenet_v3_small"]


@pytest.fixture(autouse=True)
def pruner(request: pytest.FixtureRequest) -> None:
    """Zeros need no package."""
    if "zero" not in request.node.name:
        pytest.importorskip("torch_pruning", reason="pip install -e '.[prune]'")


def zeros(weight: torch.Tensor) -> float:
    return float((weight == 0).float().mean())


def layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    """What may be set to zero: all that has weights, whitened filters aside."""
    return [m for m in model.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))][1:]


def test_zeroed_model_keeps_its_whitened_filters() -> None:
    model = zero_smallest(build_model("resnet_tiny", 10), 0.5, by_layer=True)
    assert zeros(model.get_parameter("features.0.weight")) == 0


def test_zeroed_by_layer_every_layer_has_the_share_of_zeros() -> None:
    model = zero_smallest(build_model("resnet_tiny", 10), 0.3, by_layer=True)
    shares = [zeros(m.get_parameter("weight")) for m in layers(model)]
    assert shares == pytest.approx([0.3] * len(shares), abs=0.01)


def test_zeroed_over_the_model_layers_of_small_weights_have_more_zeros() -> None:
    model = build_model("resnet_tiny", 10)
    with torch.no_grad():
        model.get_parameter("features.3.0.conv1.weight").mul_(10)
    zero_smallest(model, 0.5, by_layer=False)
    weights = [m.get_parameter("weight").flatten() for m in layers(model)]
    assert zeros(torch.cat(weights)) == pytest.approx(0.5, abs=0.001)
    assert zeros(model.get_parameter("features.3.0.conv1.weight")) < 0.2


def test_zeroed_are_the_smallest_weights() -> None:
    layer = torch.nn.Linear(4, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, -1.0, 2.0, -4.0]]))
    assert zero_smallest(layer, 0.5, by_layer=True).weight.tolist() == [[3.0, 0.0, 0.0, -4.0]]


def test_zeros_show_in_the_compressed_size_alone() -> None:
    model = build_model("resnet_tiny", 10)
    before = compressed_mb(model)
    zero_smallest(model, 0.9, by_layer=False)
    assert compressed_mb(model) < 0.3 * before


def multiplications(name: str) -> int:
    model = build_model(name, 10).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    return counter.get_total_flops()


@pytest.mark.parametrize("model", MODELS)
def test_r33_name_says_about_what_share_of_the_multiplications_is_left(model: str) -> None:
    assert multiplications(pruned_name(model, 0.5)) / multiplications(model) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("model", MODELS)
def test_weights_of_a_narrowed_model_fit_the_architecture_of_that_name(model: str, tmp_path: Path) -> None:
    save_weights(narrowed(build_model(model, 10, seed=1), 0.5), tmp_path / "w")
    load_weights(build_model(f"{model}@0.5", 10, seed=2), tmp_path / "w")


def test_pruned_model_has_as_many_classes() -> None:
    assert build_model("speednet@0.25", 7).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 7)


def test_smaller_shares_leave_fewer_multiplications_of_narrow_layers_too() -> None:
    left = [multiplications(f"resnet_tiny@{share}") / multiplications("resnet_tiny") for share in (0.1, 0.2, 0.25, 0.5)]
    assert left == sorted(left)
    assert left == pytest.approx([0.1, 0.2, 0.25, 0.5], abs=0.1)


def test_channels_are_kept_in_eights() -> None:
    model = build_model("resnet18@0.3", 10)
    assert {m.out_channels % 8 for m in model.modules() if isinstance(m, torch.nn.Conv2d)} == {0}


@pytest.mark.parametrize("name", ["speednet@1", "speednet@0", "speednet@half", "speednet@"])
def test_share_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="share of multiplications"):
        parse(name)


def test_pruned_name_of_an_unknown_model_is_refused() -> None:
    with pytest.raises(ValueError, match="model 'resnet19' is unknown"):
        architecture("resnet19@0.5")


CONFIG = TrainConfig(model="resnet_tiny@0.5", arm="plain", epochs=1, batch_size=16, lr=0.01)


def test_training_begins_with_the_strongest_channels_of_the_whole_model(tmp_path: Path) -> None:
    whole = build_model("resnet_tiny", 3, seed=1)
    with torch.no_grad():  # the last quarter of the channels within the first block is the weaker one
        whole.get_parameter("features.3.0.conv1.weight")[12:] *= 1e-3
    save_weights(whole, tmp_path / "whole")
    begun = initial_model(dataclasses.replace(CONFIG, start=str(tmp_path / "whole")), small_data())
    assert begun.get_parameter("features.3.0.conv1.weight").abs().sum((1, 2, 3)).min() > 0.1


def test_sizes_of_whitened_filters_choose_no_channels() -> None:
    plain, white = build_model("resnet_tiny", 3, seed=1), build_model("resnet_tiny", 3, seed=1)
    with torch.no_grad():
        white.get_parameter("features.0.weight").mul_(torch.linspace(1, 40, 16).view(-1, 1, 1, 1))
    inner = "features.3.0.conv1.weight"
    assert torch.equal(narrowed(plain, 0.5).get_parameter(inner), narrowed(white, 0.5).get_parameter(inner))


def test_whitened_filters_that_stay_keep_their_sizes() -> None:
    whole = build_model("resnet_tiny", 3, seed=1)
    sizes = set(whole.get_parameter("features.0.weight").flatten(1).norm(dim=1).tolist())
    assert sizes > set(narrowed(whole, 0.5).get_parameter("features.0.weight").flatten(1).norm(dim=1).tolist())


def test_pruned_model_trains_from_the_whole_model(tmp_path: Path) -> None:
    save_weights(build_model("resnet_tiny", 3, seed=1), tmp_path / "whole")
    (epoch,) = train(dataclasses.replace(CONFIG, start=str(tmp_path / "whole")), small_data())
    assert epoch.val_accuracy >= 0
