"""The model compiled ahead of time by PyTorch: a package of kernels and weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._inductor as inductor


def load(card: dict[str, Any], folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Images float32 (1, 3, H, W) -> logits (1, classes)."""
    torch.set_num_threads(card["threads"])
    device = card["device"]
    model = inductor.aoti_load_package(str(folder / "model.pt2"))
    layout = torch.channels_last if card["variant"]["channels_last"] else torch.contiguous_format

    def classify(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(images).to(device, memory_format=layout)).float().cpu().numpy()

    return classify
