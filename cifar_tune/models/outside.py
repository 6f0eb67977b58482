"""Models of the user's own, `module:function`, beside the registered ones."""

from __future__ import annotations

import importlib

import torch
from torch import Tensor, nn

from cifar_tune.models.registry import build_model


def make_model(name: str, classes: int) -> nn.Module:
    """A registered architecture, or what `module:function` of the user's own gives, with fresh weights.

    Raises:
        ValueError: the name is neither, or the function raises or gives no module; the message is one line.
    """
    if ":" not in name:
        return build_model(name, classes)
    module_name, _, function_name = name.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"model {name!r} cannot be imported: {error}") from error
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = function()
    except Exception as error:  # the user's own code: it may raise anything
        raise ValueError(f"model {name!r} raises {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"model {name!r} gives {type(model).__name__}; allowed is a torch.nn.Module")
    return model


def try_once(model: nn.Module, shape: tuple[int, int, int]) -> int:
    """Number of logits that a model gives for one image of this shape (channels, height, width).

    Raises:
        ValueError: it refuses the shape, or its answer is no tensor (1, classes); the message is one line.
    """
    given = " ".join(map(str, shape))
    try:
        with torch.inference_mode():
            answer: object = model(torch.zeros(1, *shape))
    except Exception as error:  # the user's own code again
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"the model refuses an image of shape {given}: {reason[0]}") from error
    if not isinstance(answer, Tensor):
        raise ValueError(f"the model answers with {type(answer).__name__}; allowed is a tensor of logits")
    if answer.ndim != 2 or len(answer) != 1:
        raise ValueError(f"the model answers with shape {tuple(answer.shape)}; allowed is (1, classes)")
    return answer.shape[1]
