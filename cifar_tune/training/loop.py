"""Training and evaluation of one model: one loop for teacher, plain student and distilled student.

Knows no Ray. The loop reads nothing back from the device within an epoch, evaluates in large batches, and is
deterministic for a seed on CPU. What a training needs to go on after any epoch is data, in safetensors: nothing is
pickled.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from cifar_tune.config import TrainConfig
from cifar_tune.data.augment import Batcher, Views, as_tensor, draw_views
from cifar_tune.data.datasets import ImageData
from cifar_tune.data.images import UNLABELLED
from cifar_tune.errors import TrainingDivergedError
from cifar_tune.models import pruning
from cifar_tune.models.registry import build_model, place
from cifar_tune.models.weights import load_weights
from cifar_tune.models.whitening import first_filters, whiten
from cifar_tune.training.averaging import Lookahead
from cifar_tune.training.conv_matmul import use_matmul
from cifar_tune.training.losses import class_weights, count_correct, distillation_loss
from cifar_tune.training.optimizers import classifier, make_optimizer
from cifar_tune.training.precision import autocast, training_precision
from cifar_tune.training.schedules import schedule

EVALUATION_BATCH = {"cpu": 128, "cuda": 512}
"""Images in a call without gradients. On a CPU few enough that activations stay in memory the process has: with 500
images of ResNet-18 the kernel took 20 to 30 % of the time for fresh pages, and the call was 1.4 times as long."""


AVERAGE = "average/"
"""Before the names of the slow weights in a state."""


class TeacherLogits(Protocol):
    """Where the teacher's answers come from: called once an epoch."""

    def __call__(self, epoch: int, views: Views) -> Tensor:
        """Logits for the view of every training image: (N, classes), any float type, on the training device."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Epoch:
    """One finished epoch."""

    number: int
    stepper: Stepper
    lr: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float
    images_per_second: float

    @property
    def model(self) -> nn.Module:
        """The live module: copy its weights before the next epoch if they matter."""
        return self.stepper.model


def train(
    config: TrainConfig,
    data: ImageData,
    teacher_logits: TeacherLogits | None = None,
    resume: Callable[[Stepper], int] | None = None,
) -> Iterator[Epoch]:
    """Train a fresh model, one `Epoch` at a time.

    Args:
        resume: puts the weights and the state of an earlier training of this configuration into a stepper, and says
            how many of its epochs are done. The rest is, on CPU, bit for bit what it would have been.

    Raises TrainingDivergedError after an epoch whose loss is not finite, and ValueError for an unknown model or
    schedule.
    """
    assert not config.distils or teacher_logits is not None, "distillation needs a teacher"
    stepper, batcher, labels = _set_up(config, data)
    model, device = stepper.model, labels.device
    done = resume(stepper) if resume else 0

    for number in range(done + 1, config.epochs + 1):
        started = time.perf_counter()
        drawn = config.views.drawn(number)
        views = draw_views(config.views, drawn, len(labels))
        logits = teacher_logits(drawn, views) if config.distils and teacher_logits else None
        views = to_device(views, device)
        model.train()
        training_started = time.perf_counter()
        share = config.share_of_side(number, data.train_images.shape[1])
        shuffled = torch.from_numpy(stepper.order.permutation(len(labels))).to(device)
        for indices in shuffled.split(config.batch_size):
            teacher = None if logits is None else logits[indices]
            stepper.step(resized(batcher.views(indices, views), share), labels[indices], teacher)
        train_loss, train_accuracy = stepper.finish_epoch()
        trained = time.perf_counter()
        if not math.isfinite(train_loss):
            raise TrainingDivergedError(f"training loss is {train_loss} in epoch {number}")
        val_loss, val_accuracy = evaluate(model, data, "validation", stepper.precision, config.device)
        yield Epoch(
            number=number,
            stepper=stepper,
            lr=stepper.lr,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            seconds=time.perf_counter() - started,
            images_per_second=len(labels) / (trained - training_started),
        )


def _set_up(config: TrainConfig, data: ImageData) -> tuple[Stepper, Batcher, Tensor]:
    """What a training begins with: its steps, its images, and their labels on the device, int64 (N,)."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)  # of dropout: a worker that is reused has drawn for other trials
    device = torch.device(config.device)
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    model = place(initial_model(config, data), device, layout)
    batcher = Batcher(
        data.train_images, data.mean, data.std, device, config.views.cutout, trivial=config.views.trivial_augment
    )
    labels = as_tensor(data.train_labels).to(device)
    stepper = Stepper(config, model, data, steps_per_epoch=math.ceil(len(labels) / config.batch_size))
    return stepper, batcher, labels


def initial_model(config: TrainConfig, data: ImageData) -> nn.Module:
    """What a training begins with: fresh weights, whitened to the images, or, pruned, those of the whole model."""
    classes = len(data.classes)
    if config.start is None:
        fresh = build_model(config.model, classes, config.seed)
        begin(fresh, config, data)
        return fresh
    base, share = pruning.parse(config.model)
    whole = build_model(base, classes)
    load_weights(whole, Path(config.start))
    return whole if share is None else pruning.narrowed(whole, share)


def begin(model: nn.Module, config: TrainConfig, data: ImageData) -> None:
    """What the recipe makes of fresh weights, in place."""
    first, head = first_filters(model), classifier(model)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = config.norm_momentum
                module.weight.requires_grad_(not config.fixed_norm_scale)
            if config.dirac and isinstance(module, nn.Conv2d) and module is not first and module.groups == 1:
                nn.init.dirac_(module.weight[: module.in_channels])
        if config.whitening != "none":
            whiten(model, data.train_images, data.mean, data.std)
        if first is not None:
            first.weight.requires_grad_(config.whitening != "frozen")
        if head is not None:
            for parameter in head.parameters():
                parameter.mul_(config.logit_scale)


class Stepper:
    """Optimiser, schedule, arithmetic and batch order of a training: what happens to one batch."""

    def __init__(self, config: TrainConfig, model: nn.Module, data: ImageData, steps_per_epoch: int) -> None:
        self.config = config
        self.model = model
        side = data.train_images.shape[1]
        self.precision = training_precision(config.precision, config.model, config.device, side)
        if (config.device, self.precision) == ("cpu", "bf16"):
            use_matmul(model)
        self._answers = compiled(model, config.device) if config.compile_step else model
        self.optimizer = make_optimizer(config, model)
        self.lookahead = Lookahead(model) if config.lookahead else None
        self.class_weights = class_weights(config, data.train_labels)
        self.scaler = torch.amp.GradScaler(config.device, enabled=self.precision == "fp16")
        self.steps = config.epochs * steps_per_epoch
        self.taken = 0
        self.lr = 0.0
        self.order = np.random.default_rng(config.seed)
        self._factor = schedule(config.schedule)
        self._reset_sums()

    def _reset_sums(self) -> None:
        self._images = 0
        self._labelled = torch.zeros((), dtype=torch.int64, device=self.config.device)
        self._loss_sum = torch.zeros((), device=self.config.device)
        self._correct = torch.zeros((), dtype=torch.int64, device=self.config.device)

    def step(self, images: Tensor, labels: Tensor, teacher_logits: Tensor | None) -> None:
        """Take one optimiser step; nothing is read back from the device."""
        config = self.config
        self.lr = config.lr * self._factor(self.taken / self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * group["rate"] * (self.taken < group["until"] * self.steps)
        if not config.channels_last:
            images = images.contiguous()
        share = self.order.beta(config.mixup, config.mixup) if config.mixup else 1.0
        if share < 1:
            images = share * images + (1 - share) * images.flip(0)
        with autocast(self.precision, config.device):
            logits = self._answers(images)
        loss = self._loss(logits, labels, teacher_logits)
        if share < 1:
            loss = share * loss + (1 - share) * self._loss(logits, labels.flip(0), teacher_logits)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.taken += 1
        if self.lookahead is not None:
            self.lookahead.step(self.taken, self.steps)
        self._images += len(labels)
        self._labelled += (labels != UNLABELLED).sum()
        self._loss_sum += loss.detach() * len(labels)
        self._correct += count_correct(logits.detach(), labels)

    def _loss(self, logits: Tensor, labels: Tensor, teacher_logits: Tensor | None) -> Tensor:
        config = self.config
        return distillation_loss(
            logits,
            teacher_logits,
            labels,
            config.temperature,
            config.alpha,
            config.label_smoothing,
            self.class_weights,
            config.distill_loss,
        )

    def finish_epoch(self) -> tuple[float, float]:
        """Mean loss and accuracy of the steps since the last call; the only place that waits for the device."""
        result = self._loss_sum.item() / self._images, self._correct.item() / max(1, self._labelled.item())
        self._reset_sums()
        return result


def compiled(model: nn.Module, device: str) -> Callable[[Tensor], Tensor]:
    """The model's forward and backward pass through torch.compile, on CUDA as graphs; weights stay those of `model`.

    Each shape is compiled for itself: there are few, and one program for all of them is slower.
    """
    import torch._inductor.config as inductor

    inductor.compile_threads = 1  # trials beside each other: a pool of compilers in each would only wait
    return torch.compile(model, mode="reduce-overhead" if device == "cuda" else None, dynamic=False)


def save_state(epoch: Epoch, path: Path) -> None:
    """Write what goes on after an epoch, weights aside: optimiser, loss scale and random states, as safetensors."""
    from safetensors.torch import save_file

    stepper = epoch.stepper
    tensors = {
        f"optimizer/{number}/{name}": value.detach().contiguous().cpu()
        for number, slots in stepper.optimizer.state_dict()["state"].items()
        for name, value in slots.items()
        if value is not None
    }
    if stepper.lookahead is not None:
        tensors |= {f"{AVERAGE}{name}": value.contiguous().cpu() for name, value in stepper.lookahead.slow.items()}
    tensors["dropout"] = torch.get_rng_state()
    if stepper.config.device == "cuda":
        tensors["dropout/cuda"] = torch.cuda.get_rng_state()
    about = {
        "epochs": epoch.number,
        "steps": stepper.taken,
        "order": stepper.order.bit_generator.state,
        "scaler": stepper.scaler.state_dict(),
    }
    save_file(tensors, path, {"about": json.dumps(about)})


def load_state(stepper: Stepper, path: Path) -> int:
    """Put a state that `save_state` wrote into a stepper; returns the epochs that are done."""
    from safetensors import safe_open

    optimizer = stepper.optimizer
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    slots: dict[int, dict[str, Tensor]] = {}
    with safe_open(path, framework="pt") as file:
        about: dict[str, Any] = json.loads(file.metadata()["about"])
        for key in file.keys():  # noqa: SIM118 - not a dict
            if key == "dropout":
                torch.set_rng_state(file.get_tensor(key))
            elif key == "dropout/cuda":
                torch.cuda.set_rng_state(file.get_tensor(key))
            elif key.startswith(AVERAGE):
                assert stepper.lookahead is not None, "the state is of the same configuration"
                stepper.lookahead.slow[key.removeprefix(AVERAGE)].copy_(file.get_tensor(key))
            else:
                _, number, name = key.split("/")
                kept = _laid_out_as(parameters[int(number)], file.get_tensor(key))
                slots.setdefault(int(number), {})[name] = kept
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    stepper.scaler.load_state_dict(about["scaler"])
    stepper.order.bit_generator.state = about["order"]
    stepper.taken = about["steps"]
    return about["epochs"]


def _laid_out_as(parameter: Tensor, kept: Tensor) -> Tensor:
    """What an optimiser keeps of a parameter, in its memory layout: fused steps walk through both side by side."""
    return torch.empty_like(parameter).copy_(kept) if kept.shape == parameter.shape else kept


def resized(images: Tensor, share: float) -> Tensor:
    """Images (N, C, H, W) with sides of a share of theirs, without aliasing; a share of 1 is free."""
    if share == 1:
        return images
    size = [round(side * share) for side in images.shape[2:]]
    return nn.functional.interpolate(images, size=size, mode="bilinear", antialias=True)


def to_device(views: Views, device: torch.device) -> Views:
    """The same views where the images lie."""
    if device.type == "cpu":
        return views
    return Views(**{name: getattr(views, name).to(device) for name in Views.__dataclass_fields__})


@torch.inference_mode()
def predict(
    forward: Callable[[Tensor], Tensor], batcher: Batcher, precision: str = "fp32", device: str = "cpu"
) -> Tensor:
    """Logits of all images in order, without augmentation, in large batches: float32 (N, classes) on the device."""
    with autocast(precision, device):
        size = EVALUATION_BATCH[device]
        starts = range(0, len(batcher.images), size)
        batches = [forward(batcher.plain(start, start + size)).float() for start in starts]
    return torch.cat(batches)


def evaluate(
    model: nn.Module, data: ImageData, part: str = "validation", precision: str = "fp32", device: str = "cpu"
) -> tuple[float, float]:
    """Mean cross-entropy and accuracy (0 to 1) on `part`: train, validation or test."""
    images, labels = getattr(data, f"{part}_images"), getattr(data, f"{part}_labels")
    model.eval()
    batcher = Batcher(images, data.mean, data.std, device)
    logits = predict(model, batcher, precision, device)
    targets = as_tensor(labels).to(device)
    loss = nn.functional.cross_entropy(logits, targets).item()
    return loss, count_correct(logits, targets).item() / len(targets)
