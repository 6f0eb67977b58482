"""What a Tune worker runs. Functions of the package, so that workers import them by name.

A trial's failure is a value that it reports, so that searcher, scheduler and ledger hear of it in the same way.
The dashboard shows a function's name as the actor's: each is named for its stage.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune

from cifar_tune.config import DISTILL_ARM, Arm, StudyConfig, TrainConfig, Variant
from cifar_tune.data import ImageData
from cifar_tune.device import exclusive_device
from cifar_tune.measurement import BATCH1_IMAGES, latency_skeleton, measured
from cifar_tune.models import count_parameters, load_weights, save_weights
from cifar_tune.preparation import compiled, evaluation, exported
from cifar_tune.records import BuildRecord, EpochRecord, EvaluationRecord, Stage
from cifar_tune.store import to_row
from cifar_tune.subjects import GridSettings, Subject, failed_status, failure, in_fresh_process
from cifar_tune.teacher import CachedTeacher, TeacherRef
from cifar_tune.training import Epoch, Stepper, load_state, save_state, train

BEST, LAST, STATE, PROGRESS = "best.safetensors", "last.safetensors", "state.safetensors", "progress.json"
METRIC = "best_val_accuracy"
"""Best-ever validation accuracy: what trials are compared by, and whose weights are kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """One training of a study."""

    arm: Arm
    model: str
    sample: dict[str, Any]
    """A point of the search space."""
    seed: int
    epochs: int

    def config(self, study: StudyConfig, **fixed: Any) -> TrainConfig:
        """What the training loop takes."""
        return study.train_config(self.model, self.arm, self.sample, seed=self.seed, epochs=self.epochs, **fixed)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainTask:
    """What the trials of one stage have in common."""

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

    def teacher_sha256(self, training: Training) -> str | None:
        """Of the teacher that a training asks; None where it needs none."""
        return self.teacher.sha256 if self.teacher is not None and training.arm == DISTILL_ARM else None

    def training(self, config: dict[str, Any]) -> Training:
        """What a trial's configuration stands for."""
        if self.template is not None:
            return dataclasses.replace(self.template, sample=config)
        return Training(**config["cell"])


# --- training ---------------------------------------------------------------------------------------------------


def _train_trial(sample: dict[str, Any], task: TrainTask) -> None:
    data: ImageData = ray.get(task.data)
    config = task.training(sample).config(
        task.study,
        device=task.device,
        threads=task.threads,
        views=task.study.view_config(image_size=data.train_images.shape[1], flip_suits_data=data.flip),
    )
    teacher = None
    if config.distils:
        assert task.teacher is not None, "a distillation task names its teacher"
        teacher = CachedTeacher(Path(task.teacher_folder), task.teacher, data, config.views, config.device)
    progress = Progress(epochs=config.epochs)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        try:
            for epoch in train(config, data, teacher, _taken_up(folder, progress)):
                if progress.note(epoch, teacher.trouble if teacher else None):
                    save_weights(epoch.model, folder / BEST, data.fingerprint)
                save_weights(epoch.model, folder / LAST, data.fingerprint)
                save_state(epoch, folder / STATE)
                progress.save(folder / PROGRESS)
                tune.report(progress.metrics(epoch), checkpoint=tune.Checkpoint.from_directory(temporary))
        except Exception as error:  # noqa: BLE001 - whatever ends a trial becomes its row
            tune.report(progress.metrics(failure=failure(error)))


def _taken_up(folder: Path, progress: Progress) -> Callable[[Stepper], int] | None:
    """How a trial goes on whose worker died; None: it begins."""
    checkpoint = tune.get_checkpoint()
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as kept:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
    progress.load(folder / PROGRESS)

    def resume(stepper: Stepper) -> int:
        load_weights(stepper.model, folder / LAST)
        return load_state(stepper, folder / STATE)

    return resume


class Progress:
    """How far a trial has come: metrics of every report, since Tune ends a whole search where one is missing."""

    def __init__(self, epochs: int) -> None:
        self._epochs, self._epoch, self._best = epochs, 0, 0.0
        self._started = time.time()
        self._note: str | None = None

    def note(self, epoch: Epoch, trouble: str | None) -> bool:
        """An epoch is done; whether it is the best so far."""
        better = epoch.number == 1 or epoch.val_accuracy > self._best
        self._epoch, self._best = epoch.number, max(self._best, epoch.val_accuracy)
        self._note = self._note or trouble
        return better

    def save(self, path: Path) -> None:
        """Keep it beside the weights."""
        kept = {"epoch": self._epoch, "best": self._best, "started": self._started, "note": self._note}
        path.write_text(json.dumps(kept))

    def load(self, path: Path) -> None:
        """Take up what `save` kept."""
        kept = json.loads(path.read_text())
        self._epoch, self._best, self._started, self._note = (kept[k] for k in ("epoch", "best", "started", "note"))

    def metrics(self, epoch: Epoch | None = None, failure: str | None = None) -> dict[str, Any]:
        """What is reported to Tune."""
        metrics = {
            "epoch": self._epoch,
            "epochs": self._epochs,
            METRIC: self._best,
            "started_at": self._started,
            "train_seconds": time.time() - self._started,
            "failure": failure,
            "note": self._note,
        }
        if epoch is not None:
            names = [f.name for f in dataclasses.fields(EpochRecord) if f.name not in ("trial_id", "epoch")]
            metrics["row"] = {name: getattr(epoch, name) for name in names}
            metrics["parameters"] = count_parameters(epoch.model)
        return metrics


def train_teacher(sample: dict[str, Any], task: TrainTask) -> None:
    """One trial of the teacher search."""
    _train_trial(sample, task)


def train_plain(sample: dict[str, Any], task: TrainTask) -> None:
    """One trial of a student's control: labels alone."""
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


# --- the variant grid -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasureTask:
    """What the evaluations, builds and measurements of one grid have in common."""

    settings: GridSettings
    data: ray.ObjectRef


def prepare_variant(config: dict[str, Any], task: MeasureTask) -> None:
    """What needs no device of its own: compile or export a variant, and read the whole test set with it.

    The cell says what is due: `build`, `evaluate`, or both, in this order.
    """
    cell, settings = config["cell"], task.settings
    subject, variant = Subject(**cell["subject"]), Variant(**cell["variant"])
    records: dict[str, Any] = {}
    if cell["build"]:
        function = compiled if variant.runtime == "torch" else exported
        try:
            build = in_fresh_process(function, subject, variant, settings)
        except Exception as error:  # noqa: BLE001 - whatever ends a build becomes its row
            build = BuildRecord(
                model=subject.model,
                trial_id=None if variant.runtime == "torch" else subject.trial_id,
                variant=variant.name,
                status=failed_status(error),
                error=failure(error),
            )
        records["build"] = to_row(build)
    if cell["evaluate"] and records.get("build", {"status": "ok"})["status"] == "ok":
        data: ImageData = ray.get(task.data)
        test = dataclasses.replace(data, train_images=data.train_images[:0])
        try:
            evaluated = (
                evaluation(subject, variant, data, settings)
                if variant.runtime == "torch"
                else in_fresh_process(evaluation, subject, variant, test, settings)
            )
        except Exception as error:  # noqa: BLE001 - whatever ends an evaluation becomes its row
            evaluated = EvaluationRecord(
                trial_id=subject.trial_id, variant=variant.name, status=failed_status(error), error=failure(error)
            )
        records["evaluation"] = to_row(evaluated)
    tune.report({"record": records})


def measure_latency(config: dict[str, Any], task: MeasureTask) -> None:
    """Measure one variant at batch 1, alone on the node: the trial holds all its CPUs or its GPU, and the slot.

    Beyond Ray's resources it holds the machine's lock of the device, so that two studies take turns.
    """
    cell, settings = config["cell"], task.settings
    subject, variant = Subject(**cell["subject"]), Variant(**cell["variant"])
    skeleton = latency_skeleton(settings, subject, variant, cell["stage"], cell["repeat"])
    data: ImageData = ray.get(task.data)
    first = dataclasses.replace(data, train_images=data.train_images[:0], test_images=data.test_images[:BATCH1_IMAGES])
    try:
        with exclusive_device(settings.device, wait=not settings.latency.strict, purpose=f"(run {settings.run})"):
            started = time.perf_counter()
            record = measured(skeleton, subject, variant, settings, first, cell["fallback"])
            record = dataclasses.replace(record, measure_seconds=time.perf_counter() - started)
    except Exception as error:  # noqa: BLE001 - whatever ends a measurement becomes its row
        record = dataclasses.replace(skeleton, status=failed_status(error), error=failure(error))
    tune.report({"record": to_row(record)})
