"""The model in OpenVINO."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

PRECISIONS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""What it computes in beside INT8. Unless told, it takes bf16 wherever the processor has it, whatever the weights."""


def compile_settings(precision: str, threads: int) -> dict[str, str | int]:
    """How a model is compiled for latency, on so many CPU threads."""
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
    }


def load(card: dict[str, Any], folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Images float32 (1, 3, H, W) -> logits (1, classes)."""
    settings = compile_settings(card["variant"]["precision"], card["threads"])
    compiled = ov.Core().compile_model(folder / "model.xml", "CPU", settings)
    request = compiled.create_infer_request()

    def classify(images: np.ndarray) -> np.ndarray:
        return request.infer([images])[compiled.output(0)]

    return classify
