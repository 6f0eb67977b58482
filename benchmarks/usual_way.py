"""A distillation search as tutorials write it: what `search_cost.py` compares ours with. Not for use.

A `DataLoader` with torchvision's transforms for each image, the teacher under `no_grad` in each step, FP32 and
contiguous, a worker process for each Tune trial, the loss of each step read back for the log. Initial weights and
optimiser are ours, so that both learn alike; flips are left to chance, as usual, where ours take turns.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from ray import tune
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from cifar_tune.config import TrainConfig
from cifar_tune.data.datasets import ImageData
from cifar_tune.libraries import import_torchvision
from cifar_tune.training.loop import initial_model
from cifar_tune.training.losses import distillation_loss
from cifar_tune.training.optimizers import make_optimizer
from cifar_tune.training.schedules import schedule
from cifar_tune.training.teacher import load_model


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """Images one by one, each through the transforms."""

    def __init__(self, images: Any, labels: Any, transform: Any) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def loaders(data: ImageData, batch: int, workers: int) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Training and validation."""
    transforms = import_torchvision().transforms
    last = [transforms.ToTensor(), transforms.Normalize(data.mean, data.std)]
    first = [transforms.RandomCrop(32, padding=4, padding_mode="reflect"), transforms.RandomHorizontalFlip()]
    train = Pictures(data.train_images, data.train_labels, transforms.Compose(first + last))
    validation = Pictures(data.validation_images, data.validation_labels, transforms.Compose(last))
    keep = {"num_workers": workers, "persistent_workers": workers > 0}
    return DataLoader(train, batch, shuffle=True, **keep), DataLoader(validation, batch, **keep)


def train_usual(config: dict[str, Any], data: ImageData, teacher: tuple[str, str], settings: dict[str, Any]) -> None:
    """One trial: distils `settings["model"]` from `teacher` (architecture, checkpoint) at `config["point"]`."""
    began, point = time.time(), config["point"]
    torch.set_num_threads(1)
    torch.manual_seed(settings["seed"])
    train, validation = loaders(data, settings["batch"], settings["workers"])
    recipe = TrainConfig(
        model=settings["model"], arm="distill", epochs=settings["epochs"], seed=settings["seed"], lr=point["lr"]
    )
    model = initial_model(recipe, data)
    frozen = load_model(teacher[0], len(data.classes), Path(teacher[1]))
    optimizer = make_optimizer(recipe, model)
    steps, factor, step = settings["epochs"] * len(train), schedule(point["schedule"]), 0
    best, timeline = 0.0, [(began, 0.0)]
    for epoch in range(settings["epochs"]):
        model.train()
        total = 0.0
        for images, labels in train:
            for group in optimizer.param_groups:
                group["lr"] = point["lr"] * group["rate"] * factor(step / steps)
            with torch.no_grad():
                answers = frozen(images)
            loss = distillation_loss(model(images), answers, labels, point["temperature"], point["alpha"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
            step += 1
        best = max(best, accuracy(model, validation))
        timeline.append((time.time(), best))
        tune.report({"best_val_accuracy": best, "epoch": epoch + 1, "loss": total / len(train), "timeline": timeline})


@torch.no_grad()
def accuracy(model: nn.Module, loader: DataLoader[Any]) -> float:
    """Share of images that are given their class."""
    model.eval()
    right = sum(int((functional.softmax(model(images), 1).argmax(1) == labels).sum()) for images, labels in loader)
    return right / len(loader.dataset)  # pyright: ignore[reportArgumentType] - every Dataset here has a length
