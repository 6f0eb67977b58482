"""The model in OpenVINO."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

PRECISIONS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""What it computes in beside INT8. Left alone it takes bf16 wherever the processor has it, whatever the weights are."""


def load(card: dict[str, Any], folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Images float32 (1, 3, H, W) -> logits (1, classes)."""
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": PRECISIONS[card["variant"]["precision"]],
        "INFERENCE_NUM_THREADS": card["threads"],
        "NUM_STREAMS": 1,
    }
    compiled = ov.Core().compile_model(folder / "model.xml", "CPU", settings)
    request = compiled.create_infer_request()

    def classify(images: np.ndarray) -> np.ndarray:
        return request.infer([images])[compiled.output(0)]

    return classify
