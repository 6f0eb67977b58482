"""One reading of the test set.

    python -m cifar_tune evaluate --model mobilenet_v3_small --checkpoint model.safetensors --data digits

Installed, it is `cifar-tune evaluate`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from cifar_tune.commands.shared import run_command
from cifar_tune.config import DataConfig, Device
from cifar_tune.data.augment import Batcher
from cifar_tune.data.datasets import load
from cifar_tune.device import resolve_device
from cifar_tune.measuring.quality import quality
from cifar_tune.models.registry import architecture
from cifar_tune.settings import part
from cifar_tune.training.loop import predict
from cifar_tune.training.losses import count_correct
from cifar_tune.training.teacher import load_model


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluate:
    """Read the test set with one checkpoint; prints loss and accuracy."""

    data: DataConfig = field(default_factory=DataConfig, metadata=part(hidden=("validation_fraction", "unlabelled")))
    model: str
    """Architecture."""
    checkpoint: str
    """Safetensors file."""
    device: Device = "auto"
    """Where to evaluate."""


def run(options: Evaluate) -> str:
    """Evaluate; returns the line to print."""
    device = resolve_device(options.device)
    architecture(options.model)
    data = load(options.data)
    model = load_model(options.model, len(data.classes), options.checkpoint).to(device)
    batcher = Batcher(data.test_images, data.mean, data.std, torch.device(device))
    logits = predict(model, batcher, "fp32", device).cpu()
    labels = torch.from_numpy(data.test_labels.copy())
    loss = torch.nn.functional.cross_entropy(logits, labels).item()
    images, accuracy = len(labels), count_correct(logits, labels).item() / len(labels)
    error = math.sqrt(accuracy * (1 - accuracy) / images)
    beside = quality(logits.numpy(), data.test_labels)
    said = {
        "balanced accuracy": beside.balanced_accuracy,
        "AUROC": beside.auroc,
        "precision": beside.precision_score,
        "recall": beside.recall_score,
    }
    others = ", ".join(f"{name} {'unknown' if value is None else f'{value:.4f}'}" for name, value in said.items())
    return (
        f"{data.label}: test accuracy {accuracy:.2%} (standard error {error:.2%}, {images} images), "
        f"loss {loss:.4f}, {others}"
    )


def main(argv: Sequence[str], prog: str = "python -m cifar_tune evaluate") -> None:
    """The command."""
    run_command(Evaluate, run, argv, prog)
