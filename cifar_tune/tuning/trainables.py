"""What a Tune worker that trains runs. Functions of the package, so that workers import them by name.

A trial's failure is a value that it reports, so that searcher, scheduler and ledger hear of it in the same way.
The dashboard shows a function's name as the actor's: each is named for its step.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import tune

from cifar_tune.config import DISTILL_ARM, Arm, TrainConfig, TrainPrecision
from cifar_tune.data.datasets import ImageData, with_unlabelled
from cifar_tune.models.weights import load_weights, save_weights
from cifar_tune.records import SEED_MARK, Stage
from cifar_tune.study import StudyConfig
from cifar_tune.training.loop import Stepper, load_state, save_state, train
from cifar_tune.training.teacher import CachedTeacher, TeacherRef
from cifar_tune.tuning.unfinished import BEST, LAST, STATE, BegunTraining, Progress


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """One training of a study."""

    arm: Arm
    model: str
    sample: dict[str, Any]
    """A point of the search space."""
    seed: int
    epochs: int
    start: str | None = None
    """Absolute path of the weights to begin with, of the whole model where this one is pruned; None: fresh ones."""
    start_sha256: str | None = None
    precision: TrainPrecision = "auto"
    """Arithmetic of its steps."""

    def config(self, study: StudyConfig, **fixed: Any) -> TrainConfig:
        """What the training loop takes."""
        return study.train_config(
            self.model,
            self.arm,
            self.sample,
            seed=self.seed,
            epochs=self.epochs,
            start=self.start,
            precision=self.precision,
            **fixed,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainTask:
    """What the trials of one step have in common."""

    study: StudyConfig
    stage: Stage
    template: Training | None
    """A search's training, but for its sample, which is a trial's configuration; None: each trial brings its own."""
    device: str
    threads: int
    teacher: TeacherRef | None
    teacher_folder: str
    data: ray.ObjectRef
    """ImageData in the object store: one copy a node, read in place by every trial."""
    begun: Mapping[str, BegunTraining] = field(default_factory=dict[str, "BegunTraining"])
    """Trial id -> what a driver that died has left of a training."""

    def teacher_sha256(self, training: Training) -> str | None:
        """Of the teacher that a training asks; None where it needs none."""
        return self.teacher.sha256 if self.teacher is not None and training.arm == DISTILL_ARM else None

    def training(self, config: dict[str, Any]) -> Training:
        """What a trial's configuration stands for."""
        if self.template is not None:
            return dataclasses.replace(self.template, sample=config)
        return Training(**config["cell"])

    def trial_id(self, training: Training) -> str:
        """A trial's name, from what it depends on: a resumed run knows it again, unless its teacher is another."""
        parts = [training.sample, training.epochs, self.teacher_sha256(training), training.start_sha256]
        recipe = json.dumps(parts, sort_keys=True)
        name = f"{training.arm}-{training.model}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
        if self.template is None:  # a recipe that is trained with several seeds
            name = f"{name}{SEED_MARK}{training.seed}"
        return f"final-{name}" if self.stage == "final" else name


# --- training ---------------------------------------------------------------------------------------------------


def _train_trial(sample: dict[str, Any], task: TrainTask) -> None:
    data: ImageData = ray.get(task.data)
    mark = data.fingerprint
    training = task.training(sample)
    config = training.config(
        task.study,
        device=task.device,
        threads=task.threads,
        views=task.study.view_config(image_size=data.train_images.shape[1], flip_suits_data=data.flip),
    )
    teacher = None
    if config.distils:
        assert task.teacher is not None, "a distillation task names its teacher"
        data = with_unlabelled(data)
        teacher = CachedTeacher(Path(task.teacher_folder), task.teacher, data, config.views, config.device)
    trial_id = task.trial_id(training)
    progress = Progress(trial_id, training.sample, training.epochs, config.device)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        try:
            resume = _taken_up(folder, progress, task.begun.get(trial_id))
            if progress.epoch == config.epochs:  # nothing is left but to say so
                tune.report(progress.metrics(), checkpoint=tune.Checkpoint.from_directory(temporary))
            if progress.precision:  # a training ends in the arithmetic that it began in
                config = dataclasses.replace(config, precision=progress.precision)
            for epoch in train(config, data, teacher, resume):
                if progress.note(epoch, teacher.trouble if teacher else None):
                    save_weights(epoch.model, folder / BEST, mark)
                save_weights(epoch.model, folder / LAST, mark)
                save_state(epoch, folder / STATE)
                progress.save(folder)
                # in this worker's log, which the dashboard shows
                print(f"{trial_id}: epoch {epoch.number}, validation accuracy {epoch.val_accuracy:.4f}", flush=True)
                tune.report(progress.metrics(), checkpoint=tune.Checkpoint.from_directory(temporary))
        except Exception as error:  # noqa: BLE001 - whatever ends a trial becomes its row
            tune.report(progress.metrics(error))


def _taken_up(folder: Path, progress: Progress, begun: BegunTraining | None) -> Callable[[Stepper], int] | None:
    """How a trial goes on whose worker died, or whose driver did; None: it begins."""
    checkpoint = tune.get_checkpoint() or (tune.Checkpoint.from_directory(begun.folder) if begun else None)
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as kept:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
    progress.load(folder)

    def resume(stepper: Stepper) -> int:
        load_weights(stepper.model, folder / LAST)
        return load_state(stepper, folder / STATE)

    return resume


def train_teacher(sample: dict[str, Any], task: TrainTask) -> None:
    """One trial of the teacher search."""
    _train_trial(sample, task)


def train_plain(sample: dict[str, Any], task: TrainTask) -> None:
    """One trial of a student's control: only labels, no teacher."""
    _train_trial(sample, task)


def train_distill(sample: dict[str, Any], task: TrainTask) -> None:
    """One trial of the distillation search."""
    _train_trial(sample, task)


def train_final(config: dict[str, Any], task: TrainTask) -> None:
    """One finalist: a good trial's recipe with a new seed, on all training images."""
    _train_trial(config, task)


TRAINABLES: dict[Stage, Callable[[dict[str, Any], TrainTask], None]] = {
    "teacher": train_teacher,
    "plain": train_plain,
    "distill": train_distill,
    "final": train_final,
}
