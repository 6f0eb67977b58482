"""SGD and AdamW with the groups of parameters that learn at rates of their own."""

from __future__ import annotations

import torch
from torch import nn

from cifar_tune.config import TrainConfig

NORM_BIAS_RATE = 16.0
"""Factor of the learning rate of batch norms' biases: ResNet-18 and MobileNetV3-Small reach 2 to 3 points more in four
epochs of 10,000 images (docs/log.md)."""


def make_optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum or AdamW; biases and norms, which are vectors, are not decayed.

    Each group has a `rate`, a factor of the learning rate: with SGD the biases of batch norms learn faster (Page, "How
    to train your ResNet 8", 2019). Those of weights that are trained already do not.
    """
    hurry = config.optimizer == "sgd" and config.start is None
    norms = [m.bias for m in model.modules() if hurry and isinstance(m, nn.BatchNorm2d)]
    fast = {id(p) for p in norms}
    decayed = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1 and id(p) not in fast]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay, "rate": 1.0},
        {"params": rest, "weight_decay": 0.0, "rate": 1.0},
        {"params": norms, "weight_decay": 0.0, "rate": NORM_BIAS_RATE},
    ]
    if config.optimizer == "adamw":
        # fused: on a GPU no waiting for the loss scaler's verdict
        return torch.optim.AdamW(groups, lr=config.lr, fused=True if config.device == "cuda" else None)
    nesterov = config.momentum > 0
    # fused: one pass over the weights, and on a GPU no waiting for the loss scaler's verdict
    sgd = torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov, fused=True)
    if config.momentum:  # a first step that the loss scaler skips would leave it as memory happens to be
        for parameter in model.parameters():
            sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return sgd
