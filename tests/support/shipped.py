"""A candidate of a small model, for the tests of its folder and of what serves it."""

from __future__ import annotations

import dataclasses
import socket
from pathlib import Path

import numpy as np
import torch
from analysis_data import latency, trial

from cifar_tune.config import Variant, grid_variants
from cifar_tune.data.augment import Batcher
from cifar_tune.models.outside import make_model
from cifar_tune.models.weights import load_weights
from cifar_tune.runtimes import RUNTIMES, Source
from cifar_tune.shipping.shipment import Shipment, Verification
from cifar_tune.store import sha256_file

IMAGES, SIDE, CLASSES = 24, 16, ("cat", "dog", "ship")
MEAN = STD = (0.5, 0.5, 0.5)
PIXELS = np.random.default_rng(0).integers(0, 256, (IMAGES, SIDE, SIDE, 3), dtype=np.uint8)
VERIFIED = Verification(ok=True, images=IMAGES, accuracy=0.9, agreement=1.0)

CPU = [
    v
    for v in (*grid_variants(), *(v for r in RUNTIMES.values() for v in r.variants))
    if v.compile == "none" and v.runtime not in ("cudagraph", "tensorrt")
]
"""Variants that every CPU runs."""


def shipment(weights: Path, fp32: np.ndarray, variant: Variant, **changes: object) -> Shipment:
    """One whose row says that every answer of FP32 eager is right."""
    row = latency(
        variant, model="resnet_tiny", test_accuracy=1.0, correct=np.packbits(np.ones(IMAGES, bool)).tobytes(),
        checkpoint_sha256=sha256_file(weights), threads=1, p50_low_ms=1.9, p50_high_ms=2.1,
        speedup_low=0.9, speedup_high=1.1,
    )  # fmt: skip
    made = Shipment(
        row=row, recipe=trial(), checkpoint=weights, data="animals and ships", train_images=100, test_images=IMAGES,
        classes=CLASSES, mean=MEAN, std=STD, image_size=SIDE, accuracy_interval=(0.8, 1.0), reason="It is the fastest.",
        command="python sweeps/distill_search.py --preset quick",
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def source(folder: Path, weights: Path, variant: Variant) -> Source:
    model = make_model("resnet_tiny", len(CLASSES)).eval()
    load_weights(model, weights, sha256_file(weights))
    example = torch.zeros(1, 3, SIDE, SIDE)
    artifact = folder.with_name("artifact")
    calibration = Batcher(PIXELS, MEAN, STD).plain(0, IMAGES)
    return Source(
        model=model, variant=variant, device="cpu", example=example, threads=1, folder=artifact, calibration=calibration
    )


def free_port() -> int:
    with socket.socket() as here:
        here.bind(("127.0.0.1", 0))
        return here.getsockname()[1]
