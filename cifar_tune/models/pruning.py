"""Pruning, of whole channels and of single weights.

Structured (R33): whole channels leave a model, so that every runtime has less to do. `resnet18@0.5` names ResNet-18
with about half of its multiplications. Which channels stay depends on the weights, how many does not: an architecture
with fresh weights and one with trained ones are narrowed to the same shapes, so a checkpoint of the one loads into the
other.

By magnitude (R30): the smallest weights become zero. Dense kernels multiply zeros as fast as anything else, and a file
holds them as it holds others: what it saves shows only where weights are compressed.
"""

from __future__ import annotations

import importlib
import math
import warnings
import zlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune

from cifar_tune.models.whitening import first_filters

MARK = "@"
"""Between an architecture's name and the share of its multiplications that is kept."""
CHANNELS_OF = (8, 4, 2, 1)
"""Channels are kept in multiples of so many: eight fill vector and matrix units, fewer are for narrow layers."""
SIDE = 32
"""Of the image on which layers are traced; the shapes of weights do not depend on it."""


def parse(name: str) -> tuple[str, float | None]:
    """An architecture's name and the share of its multiplications that is kept; None: all. ValueError: no share."""
    base, mark, share = name.partition(MARK)
    if not mark:
        return base, None
    try:
        kept = float(share)
    except ValueError:
        kept = math.nan
    if not 0 < kept < 1:
        raise ValueError(f"share of multiplications in {name!r} is {share!r}; allowed is between 0 and 1")
    return base, kept


def pruned_name(model: str, share: float) -> str:
    """The name of a model with that share of its multiplications."""
    return f"{model}{MARK}{share:g}"


def require_pruning() -> ModuleType:
    """What narrows models; ValueError says how to install it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own past
            return importlib.import_module("torch_pruning")
    except ImportError as error:
        raise ValueError(f"torch_pruning is not installed: pip install -e '.[prune]' ({error})") from error


def narrowed(model: nn.Module, share: float) -> nn.Module:
    """The model with its least important channels cut off, in place: about `share` of its multiplications are left.

    Every layer keeps the root of the share of its channels, in and out, the classifier's answers aside. Importance is
    the norm of a channel's weights in all layers that share it (Fang et al., "DepGraph", 2023), where the whitened
    filters of the first layer count as equal.

    Raises:
        ValueError: torch_pruning is not installed.
    """
    torch_pruning = require_pruning()
    image = torch.zeros(1, 3, SIDE, SIDE)
    was_training = model.training
    model.eval()
    with torch.enable_grad():  # layers are found along the gradient
        answers = model(image).shape[1]
        classifiers = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == answers]
        pruner = torch_pruning.pruner.BasePruner(
            model,
            image,
            importance=_importance(torch_pruning, model),
            pruning_ratio=1 - math.sqrt(share),
            ignored_layers=classifiers,
            round_to=_channels_of(model, math.sqrt(share)),
        )
        pruner.step()
    return model.train(was_training)


def _importance(torch_pruning: ModuleType, model: nn.Module) -> Callable[[Any], Tensor]:
    """The importance of each channel of a group of layers, whatever the sizes of the whitened filters."""
    norm = torch_pruning.importance.GroupMagnitudeImportance(p=2)
    first = first_filters(model)
    if first is None:
        return norm

    def of_equal_filters(group: Any) -> Tensor:
        own = first.weight.data
        first.weight.data = functional.normalize(own.flatten(1)).view_as(own)
        try:
            return norm(group)
        finally:
            first.weight.data = own

    return of_equal_filters


def _channels_of(model: nn.Module, kept: float) -> int:
    """The multiple in which channels are kept: rounding costs the narrowest layer a quarter of its channels at most."""
    narrowest = min(m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d))
    return next(multiple for multiple in CHANNELS_OF if multiple == 1 or kept * narrowest >= 4 * multiple)


def zero_smallest(model: nn.Module, share: float, *, by_layer: bool) -> nn.Module:
    """Set a share of the weights of convolutions and linear layers to zero, those nearest to it, in place.

    The first layer's whitened filters stay: they are few, and the small ones are what most of an image is made of.

    Args:
        by_layer: the share of each layer's; else of all together, which spares layers whose weights are large.
    """
    first = first_filters(model)
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear)) and m is not first]
    weights = [(layer, "weight") for layer in layers]
    if by_layer:
        for module, name in weights:
            prune.l1_unstructured(module, name, amount=share)
    else:
        prune.global_unstructured(weights, pruning_method=prune.L1Unstructured, amount=share)
    for module, name in weights:
        prune.remove(module, name)
    return model


def compressed_mb(model: nn.Module) -> float:
    """Weights and buffers, deflated as a zip or a wheel would: 10**6 bytes."""
    packer = zlib.compressobj(level=6)
    state = model.state_dict().values()
    packed = sum(len(packer.compress(tensor.cpu().contiguous().numpy().tobytes())) for tensor in state)
    return (packed + len(packer.flush())) / 1e6
