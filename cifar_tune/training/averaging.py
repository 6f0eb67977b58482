"""Lookahead: the weights of a training are drawn, again and again, towards a slow average of themselves.

Source: Zhang et al., "Lookahead Optimizer: k steps forward, 1 step back", 2019; the average follows ever more slowly,
as in Jordan, arXiv 2404.00498. Batch norms' statistics are averaged with the weights, and must follow fast: they are
those of the weights that are averaged.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

EVERY = 5
"""Steps between two looks at the average."""
SLOWEST = 0.95
"""Share of the average that a step keeps at the end of a training; at its beginning it keeps none."""


class Lookahead:
    """The slow average of a model's floating-point state."""

    def __init__(self, model: nn.Module) -> None:
        self._live = {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
        self.slow: dict[str, Tensor] = {name: value.clone() for name, value in self._live.items()}
        """By the name in the model's state."""

    @torch.no_grad()
    def step(self, taken: int, steps: int) -> None:
        """Draw the weights to the average after so many steps of a training; at its end they become the average."""
        if taken % EVERY == 0:
            self._meet(SLOWEST**EVERY * (taken / steps) ** 3)
        if taken == steps:
            self._meet(1.0)

    def _meet(self, kept: float) -> None:
        for name, live in self._live.items():
            live.copy_(self.slow[name].lerp_(live, 1 - kept))
