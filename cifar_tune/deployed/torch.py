"""The model in PyTorch: an exported program, run as it is or compiled at its first call."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
"""Precisions that are autocast's; others are the weights' own."""


def autocast(precision: str, device: str) -> contextlib.AbstractContextManager[object]:
    """The autocast context of a precision; none where the weights have it.

    Without its cache: many calls may be made in one context, and each casts the weights, as the first one does.
    """
    dtype = DTYPES.get(precision)
    return contextlib.nullcontext() if dtype is None else torch.autocast(device, dtype, cache_enabled=False)


def compiled(model: Callable[[torch.Tensor], torch.Tensor], mode: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """The model, or what torch.compile makes of it for one shape; compiled in its first call."""
    # dynamo would take a second batch size for a dynamic shape and make a slower kernel
    return model if mode == "none" else torch.compile(model, mode=mode, dynamic=False)


def load(card: dict[str, Any], folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Images float32 (1, 3, H, W) -> logits (1, classes)."""
    torch.set_num_threads(card["threads"])
    variant, device = card["variant"], card["device"]
    model = compiled(torch.export.load(folder / "program.pt2").module(), variant["compile"])
    layout = torch.channels_last if variant["channels_last"] else torch.contiguous_format

    def classify(images: np.ndarray) -> np.ndarray:
        batch = torch.from_numpy(images).to(device, memory_format=layout)
        with torch.inference_mode(), autocast(variant["precision"], device):
            return model(batch).float().cpu().numpy()

    return classify
