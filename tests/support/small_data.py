"""A data set small enough for a test, of images that a model can tell apart."""

from typing import Any

import numpy as np

from cifar_tune.config import TrainConfig, ViewConfig
from cifar_tune.data.datasets import ImageData


def small_data(train: int = 48, size: int = 8, classes: int = 3) -> ImageData:
    """Images whose brightness tells their class; everything is drawn from one seed."""
    rng = np.random.default_rng(0)

    def part(images: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(images) % classes
        noise = rng.integers(0, 40, (images, size, size, 3))
        return (noise + labels[:, None, None, None] * 80).astype(np.uint8), labels.astype(np.int64)

    (train_images, train_labels), (val_images, val_labels), (test_images, test_labels) = map(part, (train, 12, 12))
    return ImageData(
        name="small",
        label="small",
        classes=tuple("abcdefgh"[:classes]),
        train_images=train_images,
        train_labels=train_labels,
        validation_images=val_images,
        validation_labels=val_labels,
        test_images=test_images,
        test_labels=test_labels,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        fingerprint="small",
        skipped=0,
        flip=True,
    )


def config(**changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "model": "resnet_tiny", "arm": "plain", "epochs": 2, "batch_size": 16, "lr": 0.05,
        "views": ViewConfig(crop_padding=1), **changes,
    }  # fmt: skip
    return TrainConfig(**settings)
