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
    request, logits = compiled.create_infer_request(), compiled.output(0)

    def classify(images: np.ndarray) -> np.ndarray:
        # without a copy of the images, and with the output asked for once: a quarter of a small model's call
        return request.infer([images], share_inputs=True)[logits]

    return classify
