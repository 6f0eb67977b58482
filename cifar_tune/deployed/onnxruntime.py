"""The model in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def session_options(threads: int) -> ort.SessionOptions:
    """How a session runs, on so many CPU threads."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # threads that spin between layers are up to a third faster; after a call they would slow down what is beside it
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3  # only errors
    return options


def load(card: dict[str, Any], folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Images float32 (1, 3, H, W) -> logits (1, classes)."""
    provider = PROVIDERS[card["device"]]
    if card["device"] == "cuda":
        ort.preload_dlls()
    options = session_options(card["threads"])
    session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=[provider])
    if provider not in session.get_providers():  # it would fall back to the CPU, and say nothing
        raise RuntimeError(f"ONNX Runtime could not start its {provider}")

    def classify(images: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(["logits"], {"images": images})[0])

    return classify
