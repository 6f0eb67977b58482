"""The model as one CUDA graph: captured from an exported program, replayed for each image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch


def load(card: dict[str, Any], folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Images float32 (1, 3, H, W) -> logits (1, classes)."""
    variant, side = card["variant"], card["image_size"]
    model = torch.export.load(folder / "program.pt2").module()
    layout = torch.channels_last if variant["channels_last"] else torch.contiguous_format
    image = torch.zeros(1, 3, side, side, device="cuda").to(memory_format=layout)
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=variant["precision"] == "fp16"):
        side_stream = torch.cuda.Stream()
        side_stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side_stream):  # cuDNN chooses its algorithms before the capture
            for _ in range(3):
                model(image)
        torch.cuda.current_stream().wait_stream(side_stream)
        torch.clear_autocast_cache()
        with torch.cuda.graph(graph):
            logits = model(image)

    def classify(images: np.ndarray) -> np.ndarray:
        image.copy_(torch.from_numpy(images))
        graph.replay()
        return logits.float().cpu().numpy()

    # the graph reads the model's weights, and does not keep them
    classify.keeps = model  # pyright: ignore[reportFunctionMemberAccess] - held as long as it
    return classify
