"""One training, one evaluation, one measurement, without a sweep.

python -m cifar_tune train --model mobilenet_v3_small --data digits --epochs 3
python -m cifar_tune evaluate --model mobilenet_v3_small --checkpoint model.safetensors --data digits
python -m cifar_tune bench --model mobilenet_v3_small --compile default
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch

from cifar_tune import cli
from cifar_tune.config import (
    DISTILL_ARM,
    PLAIN_ARM,
    Compile,
    DataConfig,
    LatencyConfig,
    Precision,
    TrainConfig,
    Variant,
    ViewConfig,
    check,
)
from cifar_tune.data import ImageData, load
from cifar_tune.device import CONTENDED_CORES, ForeignLoad, resolve_device, usable_cpus
from cifar_tune.latency import measure, statistics
from cifar_tune.models import architecture, build_model, checkpoint_classes, load_weights, save_weights
from cifar_tune.runtimes import RUNTIMES, UnsupportedError
from cifar_tune.schedules import schedule
from cifar_tune.teacher import OnlineTeacher, TeacherRef, load_model
from cifar_tune.training import evaluate, train


@dataclass(frozen=True, kw_only=True, slots=True)
class DataOptions:
    """Which images."""

    data: str = "cifar10"
    """cifar10, digits, or the path of an image folder or a Parquet folder."""
    data_dir: str = "data"
    """Where cifar10 is looked for, and downloaded to."""
    image_size: int | None = None
    """Side of the model input in pixels; None: the data set's own."""
    train_images: int | None = None
    """Stratified subset of the training images; None: all."""
    test_images: int | None = None
    """Stratified subset of the test images; None: all."""
    skip_unreadable: bool = False
    """Count unreadable images and go on."""

    def load(self) -> ImageData:
        """The images, as in a sweep with seed 0."""
        own = {f.name: getattr(self, f.name) for f in fields(DataOptions) if f.name not in ("data", "data_dir")}
        return load(DataConfig(source=self.data, **own), self.data_dir)


@dataclass(frozen=True, kw_only=True, slots=True)
class Train(DataOptions):
    """Train one model; prints a line an epoch and writes the best weights by validation accuracy."""

    model: str = "mobilenet_v3_small"
    """Architecture."""
    epochs: int = 10
    """Passes over the training images."""
    batch_size: int = 128
    """Images of a step."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with Nesterov momentum, or AdamW."""
    lr: float = 0.05
    """Peak learning rate."""
    schedule: str = "cosine"
    """Learning rate schedule."""
    weight_decay: float = 5e-4
    """Weight decay of convolutions and matrices."""
    label_smoothing: float = 0.0
    """Label smoothing of the cross-entropy."""
    teacher: str = "resnet18"
    """Architecture of the teacher, where one is given."""
    teacher_checkpoint: str | None = None
    """Weights of a teacher to distil from; None: labels alone."""
    temperature: float = 4.0
    """Distillation temperature T."""
    alpha: float = 0.7
    """Weight of the distillation term."""
    seed: int = 0
    """Seed of initialisation, batch order and views."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the training step."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    out: str = "model.safetensors"
    """File for the weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluate(DataOptions):
    """Read the test set with one checkpoint; prints loss and accuracy."""

    model: str
    """Architecture."""
    checkpoint: str
    """Safetensors file."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to evaluate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """Measure one variant of one model at batch 1; prints the statistics of its latency."""

    model: str = "mobilenet_v3_small"
    """Architecture."""
    checkpoint: str | None = None
    """Safetensors file; None: random weights, which take as long."""
    image_size: int = 32
    """Side of the model input in pixels."""
    runtime: str = "torch"
    """What runs the model."""
    precision: Precision = "fp32"
    """fp32, or autocast to bf16 or fp16."""
    compile: Compile = "none"
    """Mode of torch.compile; none: eager."""
    channels_last: bool = False
    """Memory layout of weights and input."""
    warmup: int = 50
    """Calls before the first sample."""
    iterations: int = 500
    """Samples of each repeat."""
    repeats: int = 3
    """Repeats."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to measure."""


def run_train(options: Train) -> Path:
    """Train and write the best weights; returns their path."""
    architecture(options.model)
    schedule(options.schedule)
    device = resolve_device(options.device)
    given = {f.name: getattr(options, f.name) for f in fields(TrainConfig) if hasattr(options, f.name)}
    config = TrainConfig(**{**given, "arm": DISTILL_ARM, "device": device, "threads": usable_cpus()})
    if options.teacher_checkpoint is None:
        config = replace(config, arm=PLAIN_ARM, alpha=0.0)
    out = Path(options.out)
    check(out.absolute().parent.is_dir(), "out", options.out, "a file in an existing folder")
    data = options.load()
    views = ViewConfig(crop_padding=data.train_images.shape[1] // 8, flip=data.flip, seed=options.seed)
    config = replace(config, views=views)
    teacher = _online_teacher(options, data, config) if config.distils else None
    best = -1.0
    print("epoch      lr  train loss  train acc  val loss  val acc  images/s")
    for epoch in train(config, data, teacher):
        print(
            f"{epoch.number:5d}  {epoch.lr:.4f}  {epoch.train_loss:10.4f}  {epoch.train_accuracy:9.2%}"
            f"  {epoch.val_loss:8.4f}  {epoch.val_accuracy:7.2%}  {epoch.images_per_second:8.0f}",
            flush=True,
        )
        if epoch.val_accuracy > best:
            best = epoch.val_accuracy
            save_weights(epoch.model, out)
    return out


def _online_teacher(options: Train, data: ImageData, config: TrainConfig) -> OnlineTeacher:
    assert options.teacher_checkpoint is not None
    ref = TeacherRef(model=options.teacher, checkpoint=options.teacher_checkpoint, sha256="")
    return OnlineTeacher(ref, data, config.views, config.device)


def run_evaluate(options: Evaluate) -> str:
    """Evaluate; returns the line to print."""
    device = resolve_device(options.device)
    architecture(options.model)
    data = options.load()
    model = load_model(options.model, len(data.classes), options.checkpoint).to(device)
    loss, accuracy = evaluate(model, data, "test", "fp32", device)
    images = len(data.test_labels)
    error = math.sqrt(accuracy * (1 - accuracy) / images)
    return f"{data.label}: test accuracy {accuracy:.2%} (standard error {error:.2%}, {images} images), loss {loss:.4f}"


def run_bench(options: Bench) -> str:
    """Measure; returns the line to print."""
    device = resolve_device(options.device)
    protocol = LatencyConfig(warmup=options.warmup, iterations=options.iterations, repeats=options.repeats)
    check(options.runtime in RUNTIMES, "runtime", options.runtime, ", ".join(RUNTIMES))
    check(options.image_size >= 8, "image size", options.image_size, "8 pixels or more")
    architecture(options.model)
    variant = Variant(**{f.name: getattr(options, f.name) for f in fields(Variant)})
    classes = 10 if options.checkpoint is None else checkpoint_classes(Path(options.checkpoint))
    model = build_model(options.model, classes)
    if options.checkpoint is not None:
        load_weights(model, Path(options.checkpoint))
    try:
        runnable = RUNTIMES[variant.runtime](model, variant, device)
    except UnsupportedError as error:
        raise ValueError(f"{variant.name} cannot run here: {error}") from error
    image = runnable.prepare_input(torch.randn(1, 3, options.image_size, options.image_size).to(device))
    with runnable.scope():
        runnable.call(image)
        load = ForeignLoad()
        samples = measure(runnable.call, [image], protocol, synchronize=runnable.synchronize)
        foreign = load.cores()
    figures = "  ".join(f"{name} {_figure(name, value)}" for name, value in statistics(samples).items())
    note = f"  CONTENDED: {foreign:.1f} cores were used by others" if foreign > CONTENDED_CORES else ""
    return f"{options.model} {variant.name} on {device}, {sum(map(len, samples))} samples: {figures}{note}"


def _figure(name: str, value: float | None) -> str:
    if value is None:
        return "not bounded"
    return f"{value:.1%}" if name == "spread" else f"{value:.3f}"


COMMANDS: dict[str, tuple[type, Callable[[Any], object]]] = {
    "train": (Train, run_train),
    "evaluate": (Evaluate, run_evaluate),
    "bench": (Bench, run_bench),
}


def main(argv: Sequence[str]) -> None:
    """Run one command; usage errors exit with 2 and one line."""
    if not argv or argv[0] not in COMMANDS:
        if argv and argv[0] in ("-h", "--help"):
            print(__doc__)
            return
        cli.fail(f"command {argv[0] if argv else ''!r} is unknown; allowed are {', '.join(COMMANDS)}")
    kind, command = COMMANDS[argv[0]]
    options = cli.parse(kind, argv[1:], prog=f"python -m cifar_tune {argv[0]}", description=kind.__doc__ or "")

    def checked() -> object:
        with cli.user_input():
            return command(options)

    cli.run_command(checked)


if __name__ == "__main__":
    main(sys.argv[1:])
