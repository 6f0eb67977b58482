"""What several files of these tests read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from shipped import CLASSES, VERIFIED, shipment, source

from cifar_tune.config import Variant
from cifar_tune.models.registry import build_model
from cifar_tune.models.weights import save_weights
from cifar_tune.shipping.candidate import deploy, note_verification, write_candidate


@pytest.fixture(scope="module")
def candidate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a verified candidate, as a run has it."""
    root = tmp_path_factory.mktemp("served")
    weights = root / "w.safetensors"
    save_weights(build_model("resnet_tiny", len(CLASSES), seed=1), weights)
    folder = root / "candidate"
    onnx = Variant(runtime="onnxruntime")
    shipped = shipment(weights, np.zeros(0), onnx)
    write_candidate(folder, shipped)
    deploy(source(root / "artifact", weights, onnx), folder)
    note_verification(folder, shipped, VERIFIED)
    return folder
