"""SGD, AdamW and Muon with the groups of parameters that learn at rates of their own."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from cifar_tune.config import TrainConfig
from cifar_tune.models.whitening import first_filters
from cifar_tune.training.muon import Muon

WHITENED_BIAS_SHARE = 0.3
"""Share of a training in which the bias of frozen whitening filters learns."""
REST_RATE = 6.0
"""Factor of the rate of what Muon does not train: its own rate is of directions, theirs of gradients."""


def make_optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, AdamW or Muon; biases and norms, which are vectors, are not decayed.

    Each group has a `rate`, a factor of the learning rate, and `until`, the share of the training in which it learns.
    """
    groups = parameter_groups(config, model)
    if config.optimizer == "muon":
        return Muon(groups, lr=config.lr, momentum=config.momentum)
    if config.optimizer == "adamw":
        # fused: on a GPU no waiting for the loss scaler's verdict
        return torch.optim.AdamW(groups, lr=config.lr, fused=True if config.device == "cuda" else None)
    nesterov = config.momentum > 0
    # fused: one pass over the weights, and on a GPU no waiting for the loss scaler's verdict
    sgd = torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov, fused=True)
    if config.momentum:  # a first step that the loss scaler skips would leave it as memory happens to be
        for group in sgd.param_groups:
            for parameter in group["params"]:
                sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return sgd


def parameter_groups(config: TrainConfig, model: nn.Module) -> list[dict[str, Any]]:
    """The parameters that are trained, each in the first group that takes it. What is frozen is in none.

    With SGD and Muon the biases of batch norms learn faster (Page, "How to train your ResNet 8", 2019). Those of
    weights that are trained already do not.
    """
    hurry = config.optimizer != "adamw" and config.start is None
    norms = [m.bias for m in model.modules() if hurry and isinstance(m, nn.BatchNorm2d)]
    head, first = classifier(model), first_filters(model)
    whitened = [] if first is None or first.weight.requires_grad else [first.bias]
    filters = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d) and m.groups == 1 and m is not first]
    others = REST_RATE if config.optimizer == "muon" else 1.0
    scale = _head_rate(config)
    decay = config.weight_decay
    wanted: list[dict[str, Any]] = [
        {"params": norms, "weight_decay": 0.0, "rate": others * config.norm_bias_rate},
        {"params": whitened, "weight_decay": 0.0, "rate": others, "until": WHITENED_BIAS_SHARE},
        {"params": [] if head is None else [head.weight], "weight_decay": decay / scale, "rate": others * scale},
        {"params": [] if head is None else [head.bias], "weight_decay": 0.0, "rate": others * scale},
        {"params": filters if config.optimizer == "muon" else [], "weight_decay": 0.0, "rate": 1.0, "filters": True},
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": decay, "rate": others},
        {"params": list(model.parameters()), "weight_decay": 0.0, "rate": others},
    ]  # fmt: skip
    taken: set[int] = set()
    groups: list[dict[str, Any]] = []
    for group in wanted:
        mine = [p for p in group["params"] if p is not None and p.requires_grad and id(p) not in taken]
        taken |= {id(p) for p in mine}
        if mine:
            groups.append({"until": 1.0, **group, "params": mine})
    return groups


def classifier(model: nn.Module) -> nn.Linear | None:
    """The layer whose answers are the logits: the last linear one."""
    return next((m for m in reversed(list(model.modules())) if isinstance(m, nn.Linear)), None)


def _head_rate(config: TrainConfig) -> float:
    """What a factor of the logits is worth as a rate of the classifier, whose weights begin at that factor.

    With SGD it counts twice: in the weight that is scaled, and in its gradient. AdamW's steps have a size of their own,
    so there it counts once.
    """
    return config.logit_scale if config.optimizer == "adamw" else math.pow(config.logit_scale, 2)
