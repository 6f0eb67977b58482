"""The model as one CUDA graph: captured from an exported program, replayed for each image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

WARMUP_CALLS = 3
"""On a side stream before the capture, as PyTorch's documentation asks: cuDNN chooses its algorithms there."""


def capture(
    model: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor, precision: str
) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
    """The graph of a call, and the logits that each replay overwrites.

    Args:
        image: what each replay reads: float32 (1, 3, H, W) on the GPU.
    """
    graph = torch.cuda.CUDAGraph()
    half = precision == "fp16"
    with torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=half, cache_enabled=False):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARMUP_CALLS):
                model(image)
        torch.cuda.current_stream().wait_stream(side)
        torch.clear_autocast_cache()  # weights that were cast before the capture would lie outside of the graph
        with torch.cuda.graph(graph):
            logits = model(image)
    return graph, logits


def load(card: dict[str, Any], folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Images float32 (1, 3, H, W) -> logits (1, classes)."""
    variant, side = card["variant"], card["image_size"]
    model = torch.export.load(folder / "program.pt2").module()
    layout = torch.channels_last if variant["channels_last"] else torch.contiguous_format
    image = torch.zeros(1, 3, side, side, device="cuda").to(memory_format=layout)
    graph, logits = capture(model, image, variant["precision"])

    def classify(images: np.ndarray) -> np.ndarray:
        image.copy_(torch.from_numpy(images))
        graph.replay()
        return logits.float().cpu().numpy()

    # the graph reads the model's weights, and does not keep them
    classify.keeps = model  # pyright: ignore[reportFunctionMemberAccess] - held as long as it
    return classify
