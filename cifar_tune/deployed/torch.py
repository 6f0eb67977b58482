"""The model in PyTorch: an exported program, run as it is or compiled at its first call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
"""Precisions that are autocast's; others are the weights' own."""


def load(card: dict[str, Any], folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Images float32 (1, 3, H, W) -> logits (1, classes)."""
    torch.set_num_threads(card["threads"])
    variant, device = card["variant"], card["device"]
    model: Callable[[torch.Tensor], torch.Tensor] = torch.export.load(folder / "program.pt2").module()
    if variant["compile"] != "none":
        model = torch.compile(model, mode=variant["compile"], dynamic=False)
    layout = torch.channels_last if variant["channels_last"] else torch.contiguous_format
    dtype = DTYPES.get(variant["precision"])

    def classify(images: np.ndarray) -> np.ndarray:
        batch = torch.from_numpy(images).to(device, memory_format=layout)
        with torch.inference_mode(), torch.autocast(device, dtype, enabled=dtype is not None):
            return model(batch).float().cpu().numpy()

    return classify
