"""The model in TorchScript: traced and frozen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch


def load(card: dict[str, Any], folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Images float32 (1, 3, H, W) -> logits (1, classes)."""
    torch.set_num_threads(card["threads"])
    device = card["device"]
    model = torch.jit.optimize_for_inference(torch.jit.load(folder / "model.ts", map_location=device))
    layout = torch.channels_last if card["variant"]["channels_last"] else torch.contiguous_format

    def classify(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(images).to(device, memory_format=layout)).float().cpu().numpy()

    return classify
