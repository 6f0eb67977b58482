"""Models of a user's own that die or hang: `faulty_models:dies` and so on."""

import os
import signal
import time

import torch
from torch import Tensor, nn

GETTING_READY = 36
"""Calls that a contender makes before its first turn, or a few more."""


class Faulty(nn.Module):
    """Three logits, until it has been called so often."""

    def __init__(self, calls: float, *, hangs: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 8 * 8, 3)
        self.left, self.hangs = calls, hangs

    def forward(self, images: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0 and self.hangs:
            time.sleep(600)
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.layer(torch.flatten(images, 1))


def never() -> nn.Module:
    """Has no fault."""
    return Faulty(float("inf"), hangs=False)


def dies() -> nn.Module:
    """Dies in its first call."""
    return Faulty(0, hangs=False)


def dies_in_a_turn() -> nn.Module:
    """Dies when it was ready."""
    return Faulty(GETTING_READY, hangs=False)


def hangs() -> nn.Module:
    """Hangs in its first call."""
    return Faulty(0, hangs=True)


def hangs_in_a_turn() -> nn.Module:
    """Hangs when it was ready."""
    return Faulty(GETTING_READY, hangs=True)
