"""What a Tune worker runs. Functions of the package, so that workers import them by name.

A trial's failure is a value that it reports, so that searcher, scheduler and ledger hear of it in the same way.
The dashboard shows a function's name as the actor's: each is named for its stage.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune

from cifar_tune.config import Arm, StudyConfig, Variant
from cifar_tune.data import ImageData
from cifar_tune.device import exclusive_device
from cifar_tune.measurement import BATCH1_IMAGES, latency_skeleton, measured
from cifar_tune.models import count_parameters, save_weights
from cifar_tune.preparation import compiled, evaluation, exported
from cifar_tune.records import BuildRecord, EpochRecord, EvaluationRecord
from cifar_tune.store import to_row
from cifar_tune.subjects import GridSettings, Subject, failed_status, failure, in_fresh_process
from cifar_tune.teacher import CachedTeacher, TeacherRef
from cifar_tune.training import Epoch, train

BEST, LAST = "best.safetensors", "last.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainTask:
    """What the trials of one search have in common."""

    study: StudyConfig
    arm: Arm
    model: str
    device: str
    threads: int
    teacher: TeacherRef | None
    teacher_folder: str
    data: ray.ObjectRef
    """ImageData in the object store: one copy a node, read in place by every trial."""


# --- training ---------------------------------------------------------------------------------------------------


def _train_trial(sample: dict[str, Any], task: TrainTask) -> None:
    data: ImageData = ray.get(task.data)
    study = task.study
    config = study.train_config(
        task.model,
        task.arm,
        sample,
        seed=study.seed,
        device=task.device,
        threads=task.threads,
        views=study.view_config(image_size=data.train_images.shape[1], flip_suits_data=data.flip),
    )
    teacher = None
    if config.distils:
        assert task.teacher is not None, "a distillation task names its teacher"
        teacher = CachedTeacher(Path(task.teacher_folder), task.teacher, data, config.views, config.device)
    best = -1.0
    epoch_number = 0
    started = time.time()
    with tempfile.TemporaryDirectory() as folder:
        try:
            for epoch in train(config, data, teacher):
                epoch_number = epoch.number
                if epoch.val_accuracy > best:
                    best = epoch.val_accuracy
                    save_weights(epoch.model, Path(folder, BEST))
                save_weights(epoch.model, Path(folder, LAST))
                _report_epoch(epoch, best, config.epochs, started, folder)
        except Exception as error:  # noqa: BLE001 - whatever ends a trial becomes its row
            tune.report(_trial_metrics(epoch_number, config.epochs, max(best, 0.0), started, failure=failure(error)))


def _trial_metrics(epoch: int, epochs: int, best: float, started: float, **more: Any) -> dict[str, Any]:
    """The metrics that every report of a trial carries: Tune ends the whole search where one is missing."""
    return {
        "epoch": epoch,
        "epochs": epochs,
        "best_val_accuracy": best,
        "started_at": started,
        "train_seconds": time.time() - started,
        **more,
    }


def _report_epoch(epoch: Epoch, best: float, epochs: int, started: float, folder: str) -> None:
    names = [f.name for f in dataclasses.fields(EpochRecord) if f.name not in ("trial_id", "epoch")]
    row = {name: getattr(epoch, name) for name in names}
    metrics = _trial_metrics(epoch.number, epochs, best, started, row=row, parameters=count_parameters(epoch.model))
    tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))


def train_teacher(sample: dict[str, Any], task: TrainTask) -> None:
    """One trial of the teacher search."""
    _train_trial(sample, task)


def train_plain(sample: dict[str, Any], task: TrainTask) -> None:
    """One trial of a student's control: labels alone."""
    _train_trial(sample, task)


def train_distill(sample: dict[str, Any], task: TrainTask) -> None:
    """One trial of the distillation search."""
    _train_trial(sample, task)


TRAINABLES: dict[Arm, Callable[[dict[str, Any], TrainTask], None]] = {
    "teacher": train_teacher,
    "plain": train_plain,
    "distill": train_distill,
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
            record = measured(skeleton, subject, variant, settings, first, cell["fallback"])
    except Exception as error:  # noqa: BLE001 - whatever ends a measurement becomes its row
        record = dataclasses.replace(skeleton, status=failed_status(error), error=failure(error))
    tune.report({"record": to_row(record)})
