"""One training, with a line an epoch.

    python -m cifar_tune train --model mobilenet_v3_small --data digits --epochs 3

Installed, it is `cifar-tune train`. The last line of standard output is the path of the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cifar_tune.commands.shared import run_command
from cifar_tune.config import DISTILL_ARM, PLAIN_ARM, DataConfig, Device, RecipeConfig, TrainConfig, ViewConfig, check
from cifar_tune.data.datasets import ImageData, load
from cifar_tune.device import resolve_device, usable_cpus
from cifar_tune.models.registry import architecture
from cifar_tune.models.weights import save_weights
from cifar_tune.settings import part, values_of
from cifar_tune.store import sha256_file
from cifar_tune.training.loop import TeacherLogits, train
from cifar_tune.training.reproduce import reproduction
from cifar_tune.training.schedules import schedule
from cifar_tune.training.teacher import OnlineTeacher, TeacherRef


@dataclass(frozen=True, kw_only=True, slots=True)
class Train:
    """Train one model; prints a line an epoch and writes the best weights by validation accuracy."""

    data: DataConfig = field(default_factory=DataConfig, metadata=part(hidden=("validation_fraction", "unlabelled")))
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
    """Weights of a teacher to distil from; None: only the labels teach."""
    temperature: float = 4.0
    """Distillation temperature T."""
    alpha: float | None = None
    """Weight of the distillation term; None: 0.7 where a teacher is given."""
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


def run(options: Train) -> Path:
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
    taught = options.teacher_checkpoint is not None
    check(options.alpha is None or 0 <= options.alpha <= 1, "alpha", options.alpha, "0 to 1")
    check(taught or not options.alpha, "alpha", options.alpha, "above 0 only with --teacher-checkpoint")
    alpha = (0.7 if taught else 0.0) if options.alpha is None else options.alpha
    config = TrainConfig(
        **values_of(options.recipe),
        model=options.model,
        arm=DISTILL_ARM if taught else PLAIN_ARM,
        epochs=options.epochs,
        lr=options.lr,
        schedule=options.schedule,
        temperature=options.temperature,
        alpha=alpha,
        seed=options.seed,
        device=device,
        threads=usable_cpus(),
    )
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


def main(argv: Sequence[str], prog: str = "python -m cifar_tune train") -> None:
    """The command."""
    run_command(Train, run, argv, prog)
