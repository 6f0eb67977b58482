"""One training, one evaluation, one measurement, without a sweep.

python -m cifar_tune train --model mobilenet_v3_small --data digits --epochs 3
python -m cifar_tune evaluate --model mobilenet_v3_small --checkpoint model.safetensors --data digits
python -m cifar_tune bench --model mobilenet_v3_small --compile default
"""

from __future__ import annotations

import contextlib
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from cifar_tune import cli
from cifar_tune.config import (
    DISTILL_ARM,
    PLAIN_ARM,
    DataConfig,
    Device,
    LatencyConfig,
    RecipeConfig,
    TrainConfig,
    Variant,
    ViewConfig,
    check,
)
from cifar_tune.data.augment import Batcher
from cifar_tune.data.datasets import ImageData, load, random_images
from cifar_tune.device import environment, resolve_device, usable_cpus
from cifar_tune.errors import DeviceTakenError, DisturbedError, UnsupportedError
from cifar_tune.measuring.build import exported
from cifar_tune.measuring.measurement import latency_skeleton, measured
from cifar_tune.measuring.processes import in_fresh_process, prepare_fresh_processes
from cifar_tune.measuring.quality import quality
from cifar_tune.measuring.target import GridSettings, Target, load_target
from cifar_tune.models.outside import try_once
from cifar_tune.models.registry import architecture
from cifar_tune.models.weights import checkpoint_classes, save_weights
from cifar_tune.runs.locks import exclusive_device
from cifar_tune.runtimes import RUNTIMES
from cifar_tune.runtimes.quantisation import calibration_data
from cifar_tune.settings import part, values_of
from cifar_tune.store import sha256_file
from cifar_tune.training.loop import TeacherLogits, predict, train
from cifar_tune.training.losses import count_correct
from cifar_tune.training.reproduce import reproduction
from cifar_tune.training.schedules import schedule
from cifar_tune.training.teacher import OnlineTeacher, TeacherRef, load_model


@dataclass(frozen=True, kw_only=True, slots=True)
class Train:
    """Train one model; prints a line an epoch and writes the best weights by validation accuracy."""

    data: DataConfig = field(default_factory=DataConfig, metadata=part(hidden=("validation_fraction",)))
    model: str = "mobilenet_v3_small"
    """Architecture."""
    epochs: int = 10
    """Passes over the training images."""
    recipe: RecipeConfig = field(default_factory=RecipeConfig, metadata=part(hidden=("class_weights", "compile_step")))
    lr: float = 0.05
    """Peak learning rate."""
    schedule: str = "cosine"
    """Learning rate schedule."""
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
    device: Device = "auto"
    """Where to train."""
    run: str | None = None
    """Folder of a run, one of whose trials is trained again; all flags but --trial and --out are as there."""
    trial: str | None = None
    """Id of that trial."""
    out: str = "model.safetensors"
    """File for the weights."""

    def __post_init__(self) -> None:
        both = (self.run is None) == (self.trial is None)
        check(both, "run, trial", f"{self.run}, {self.trial}", "both or neither")


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluate:
    """Read the test set with one checkpoint; prints loss and accuracy."""

    data: DataConfig = field(default_factory=DataConfig, metadata=part(hidden=("validation_fraction",)))
    model: str
    """Architecture."""
    checkpoint: str
    """Safetensors file."""
    device: Device = "auto"
    """Where to evaluate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """Measure one variant of one model at batch 1; prints the statistics of its latency."""

    model: str = "mobilenet_v3_small"
    """Architecture, or `module:function` of your own."""
    checkpoint: str | None = None
    """Safetensors file; None: random weights, which take as long."""
    input_shape: tuple[int, int, int] = (3, 32, 32)
    """Channels, height and width of an image."""
    variant: Variant = field(default_factory=Variant, metadata=part())
    iterations: int = 500
    """Latency samples of each repeat, at least, within the time limit."""
    latency: LatencyConfig = field(
        default_factory=lambda: LatencyConfig(fresh_processes=False),
        metadata=part(hidden=("iterations", "max_iterations", "fresh_processes")),
    )
    device: Device = "auto"
    """Where to measure."""


def run_train(options: Train) -> Path:
    """Train and write the best weights; returns their path."""
    out = Path(options.out)
    check(out.absolute().parent.is_dir(), "out", options.out, "a file in an existing folder")
    if options.run is not None and options.trial is not None:
        config, data, teacher = reproduction(Path(options.run), options.trial)
    else:
        config, data, teacher = _of_flags(options)
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
            save_weights(epoch.model, out, data.fingerprint)
    return out


def _of_flags(options: Train) -> tuple[TrainConfig, ImageData, TeacherLogits | None]:
    """Configuration, data and teacher that the flags name."""
    architecture(options.model)
    schedule(options.schedule)
    device = resolve_device(options.device)
    config = TrainConfig(
        **values_of(options.recipe),
        model=options.model,
        arm=DISTILL_ARM,
        epochs=options.epochs,
        lr=options.lr,
        schedule=options.schedule,
        temperature=options.temperature,
        alpha=options.alpha,
        seed=options.seed,
        device=device,
        threads=usable_cpus(),
    )
    if options.teacher_checkpoint is None:
        config = replace(config, arm=PLAIN_ARM, alpha=0.0)
    data = load(options.data)
    views = ViewConfig(crop_padding=data.train_images.shape[1] // 8, flip=data.flip, seed=options.seed)
    config = replace(config, views=views)
    return config, data, _online_teacher(options, data, config) if config.distils else None


def _online_teacher(options: Train, data: ImageData, config: TrainConfig) -> OnlineTeacher:
    assert options.teacher_checkpoint is not None
    path = Path(options.teacher_checkpoint)
    check(path.is_file(), "teacher checkpoint", str(path), "an existing safetensors file")
    ref = TeacherRef(model=options.teacher, checkpoint=str(path), sha256=sha256_file(path))
    return OnlineTeacher(ref, data, config.views, config.device)


def run_evaluate(options: Evaluate) -> str:
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


def run_bench(options: Bench) -> str:
    """Measure; returns the line to print."""
    device = resolve_device(options.device)
    variant = options.variant
    check(variant.runtime in RUNTIMES, "runtime", variant.runtime, ", ".join(RUNTIMES))
    RUNTIMES[variant.runtime].check_variant(variant)
    most = max(options.latency.max_iterations, options.iterations)
    protocol = replace(options.latency, iterations=options.iterations, max_iterations=most)
    registered = ":" not in options.model
    path = None if options.checkpoint is None else Path(options.checkpoint)
    check(path is None or path.is_file(), "checkpoint", str(path), "an existing safetensors file")
    target = Target(
        trial_id="bench",
        model=options.model,
        arm="given",
        checkpoint=options.checkpoint,
        checkpoint_sha256="random" if path is None else sha256_file(path),
        classes=checkpoint_classes(path) if path is not None and registered else 10,
    )
    with tempfile.TemporaryDirectory() as cache, user_errors(variant):
        settings = GridSettings(
            run="bench",
            device=device,
            threads=1,
            latency=protocol,
            cache=cache,
            input_shape=options.input_shape,
            environment=environment(device),
        )
        try_once(load_target(target), options.input_shape)
        prepare_fresh_processes(compiles=variant.compile != "none")
        with exclusive_device(device, wait=not protocol.strict, purpose="(bench)"):
            if RUNTIMES[variant.runtime].export is not None:
                calibration = calibration_data(random_images(options.input_shape))
                in_fresh_process(exported, target, variant, settings, calibration)
            skeleton = latency_skeleton(settings, target, variant, "grid", 0)
            row = measured(skeleton, target, variant, settings, random_images(options.input_shape))
    assert row.samples_ms is not None
    names = ("mean_ms", "p50_ms", "p95_ms", "p99_ms", "std_ms", "spread")
    figures = "  ".join(f"{name} {_figure(name, getattr(row, name))}" for name in names)
    beside = f"speedup over FP32 eager {row.speedup:.2f} ({row.speedup_low:.2f} to {row.speedup_high:.2f})"
    beside += f"  {row.status.upper()}: {row.error}" if row.error else ""
    note = f"  CONTENDED: {row.foreign_cpu:.1f} cores were used by others" if row.contended else ""
    samples = sum(map(len, row.samples_ms))
    return f"{options.model} {variant.name} on {device}, {samples} samples: {figures}  {beside}{note}"


@contextlib.contextmanager
def user_errors(variant: Variant) -> Iterator[None]:
    """What cannot run here, or is refused, in the words of a usage error."""
    try:
        yield
    except (UnsupportedError, DeviceTakenError, DisturbedError) as error:
        raise ValueError(f"{variant.name} cannot be measured here: {error}") from error


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
