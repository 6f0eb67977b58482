"""Muon: a step of a layer's filters along the nearest orthogonal matrix to their momentum, beside SGD for the rest.

Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024. `torch.optim.Muon` takes
matrices only, and would normalise each filter's slice by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = 3.4445, -4.7750, 2.0315
"""Of a polynomial that brings singular values from 0 to 1 near 1 in few steps."""
STEPS = 3
MOMENTUM = 0.6
"""Of the filters."""


class Muon(torch.optim.Optimizer):
    """Groups with `filters` take Muon's steps, their weights at a fixed norm; the others those of Nesterov's SGD."""

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, momentum: float) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": 0.0, "filters": False})
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - no closure is taken
        """Take one."""
        assert closure is None, "the loss is not evaluated anew"
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, parameter.grad, group)

    def _step(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        momentum = MOMENTUM if group["filters"] else group["momentum"]
        gradient = gradient.add(parameter, alpha=group["weight_decay"])
        buffer = self.state[parameter]["momentum_buffer"]
        buffer.mul_(momentum).add_(gradient)
        direction = gradient.add(buffer, alpha=momentum)
        if group["filters"]:
            parameter.mul_(len(parameter) ** 0.5 / parameter.norm())
            direction = orthogonal(direction.flatten(1)).view_as(parameter)
        parameter.add_(direction, alpha=-group["lr"])


def orthogonal(matrix: Tensor) -> Tensor:
    """About the nearest matrix whose singular values are all 1, by Newton's and Schulz's iteration: (n, m)."""
    a, b, c = COEFFICIENTS
    x = matrix.mT if len(matrix) > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if len(matrix) > matrix.shape[1] else x
