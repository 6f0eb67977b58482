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
    TrainPrecision,
    Variant,
    ViewConfig,
    check,
)
from cifar_tune.data.augment import Batcher
from cifar_tune.data.datasets import ImageData, load, random_images
from cifar_tune.device import environment, resolve_device, usable_cpus
from cifar_tune.errors import DeviceTakenError, DisturbedError, UnsupportedError
from cifar_tune.measuring.build import exported
from cifar_tune.measuring.measurement import measured
from cifar_tune.measuring.processes import in_fresh_process, prepare_fresh_processes
from cifar_tune.measuring.quality import quality
from cifar_tune.measuring.target import GridSettings, MeasurementCell, Target, load_target
from cifar_tune.models.outside import try_once
from cifar_tune.models.registry import architecture
from cifar_tune.models.weights import checkpoint_classes, save_weights
from cifar_tune.runs.locks import exclusive_device
from cifar_tune.runtimes import RUNTIMES
from cifar_tune.runtimes.quantisation import calibration_data
from cifar_tune.store import sha256_file
from cifar_tune.training.loop import TeacherLogits, predict, train
from cifar_tune.training.losses import count_correct
from cifar_tune.training.reproduce import reproduction
from cifar_tune.training.schedules import schedule
from cifar_tune.training.teacher import OnlineTeacher, TeacherRef, load_model


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
    precision: TrainPrecision = "auto"
    """Arithmetic of the training step."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
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
    """Architecture, or `module:function` of your own."""
    checkpoint: str | None = None
    """Safetensors file; None: random weights, which take as long."""
    input_shape: tuple[int, int, int] = (3, 32, 32)
    """Channels, height and width of an image."""
    runtime: str = "torch"
    """What runs the model."""
    precision: Precision = "fp32"
    """fp32, autocast to bf16 or fp16, fp16_weights, int8 (calibrated on noise: as fast), int8_dynamic."""
    compile: Compile = "none"
    """Mode of torch.compile; none: eager."""
    channels_last: bool = False
    """Memory layout of weights and input."""
    single_thread: bool = False
    """One CPU thread, for runtimes that have threads of their own."""
    zeroed: float = 0.0
    """Share of the weights that are set to zero, the smallest."""
    zeroed_by_layer: bool = False
    """The smallest of each layer, instead of the whole model's."""
    warmup: int = 50
    """Calls before the first sample, at least."""
    iterations: int = 500
    """Samples of each repeat, at least, within the time limit."""
    repeats: int = 3
    """Repeats."""
    time_limit: float = 6.0
    """Seconds of rounds, the paired reference included, after which 700 samples are enough."""
    threads: int = 0
    """CPU threads; 0: all cores."""
    strict: bool = False
    """Refuse a device that others use."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
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
    given = {f.name: getattr(options, f.name) for f in fields(TrainConfig) if hasattr(options, f.name)}
    config = TrainConfig(**{**given, "arm": DISTILL_ARM, "device": device, "threads": usable_cpus()})
    if options.teacher_checkpoint is None:
        config = replace(config, arm=PLAIN_ARM, alpha=0.0)
    data = options.load()
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
    data = options.load()
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
    check(options.runtime in RUNTIMES, "runtime", options.runtime, ", ".join(RUNTIMES))
    variant = Variant(**{f.name: getattr(options, f.name) for f in fields(Variant)})
    RUNTIMES[variant.runtime].check_variant(variant)
    names = ("warmup", "iterations", "repeats", "time_limit", "threads", "strict")
    protocol = LatencyConfig(
        max_iterations=max(2000, options.iterations),
        fresh_processes=False,
        **{name: getattr(options, name) for name in names},
    )
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
    cell = MeasurementCell(target=target, variant=variant)
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
        with exclusive_device(device, wait=not options.strict, purpose="(bench)"):
            if RUNTIMES[variant.runtime].export is not None:
                calibration = calibration_data(random_images(options.input_shape))
                in_fresh_process(exported, cell, settings, calibration)
            row = measured(cell, settings, random_images(options.input_shape))
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
