"""What the sweeps share: opening a run, its trainings and targets, and writing its tables."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
from torch import nn

from analysis.frames import find_run
from cifar_tune import cli
from cifar_tune.blocks import summarised
from cifar_tune.bucket import Bucket, is_uri
from cifar_tune.config import DISTILL_ARM, PLAIN_ARM, TEACHER_ARM, Arm, TrainPrecision
from cifar_tune.data.datasets import describe
from cifar_tune.errors import InterruptedRunError, StudyFailedError, UsageError
from cifar_tune.measuring.target import Target
from cifar_tune.models.weights import save_weights
from cifar_tune.records import EpochRecord, LatencyRecord, Stage, TrialRecord, recipe_of
from cifar_tune.runs.ledger import Ledger
from cifar_tune.runs.locks import sole_writer
from cifar_tune.runs.mirror import Mirror
from cifar_tune.store import (
    is_disk_full,
    note_checksums,
    read_records,
    replace_file,
    sha256_file,
    to_row,
    write_rows,
)
from cifar_tune.study import StudyConfig
from cifar_tune.training.precision import answering_precision, training_precision
from cifar_tune.training.teacher import TeacherRef, Weights
from cifar_tune.tuning.cluster import cluster
from cifar_tune.tuning.context import RunContext
from cifar_tune.tuning.keeper import ranked
from cifar_tune.tuning.progress import StudyView
from cifar_tune.tuning.proxies import start_workbench
from cifar_tune.tuning.slots import Slots
from cifar_tune.tuning.trainables import Training, TrainTask
from sweeps.steps.checks import Prepared, copy_of_pretrained
from sweeps.steps.folder import check_same_machine, read_study, tidy, write_study
from sweeps.steps.interrupts import end_at_the_next, interruptible


@dataclass(frozen=True, kw_only=True, slots=True)
class Job(RunContext):
    """A run at work, with its data on the cluster."""

    classes: int
    input_shape: tuple[int, int, int]
    """Channels, height, width."""
    labelled: bool
    """Whether the images have labels; else there is no accuracy."""
    test_images: int
    data: ray.ObjectRef
    search_data: ray.ObjectRef
    """What the students' search trains on: all of the data, or its subset."""
    pretrained: Mapping[str, Path]
    """Model -> the weights that its trials begin with; a model that is not there begins with fresh ones."""


@contextlib.contextmanager
def job(prepared: Prepared, *, measures: bool = True) -> Iterator[Job]:
    """Start or join the cluster, put the data there once, and create the run's folder.

    Args:
        measures: whether anything will be built or measured.
    """
    study, run = prepared.study, prepared.run
    with (
        StudyView() as view,
        mirrored(run, prepared.bucket, view) as kept,
        sole_writer(run),
        cluster(study, prepared.device) as info,
    ):
        if prepared.bucket is not None and info.nodes > 1:
            raise UsageError(
                f"storage is {study.storage!r} on {info.nodes} nodes; allowed is a folder that all of them see"
            )
        about = {**describe(prepared.data), "labelled": prepared.labelled}
        ledger = Ledger(run, view.say, kept)
        with cli.user_input():
            tidy(run, ledger.whole_trials())
            if study.resume:
                check_same_machine(read_study(run), info.measuring.environment)
        write_study(run, study, info.measuring.environment, about)
        if info.dashboard:
            view.say(f"Ray dashboard: {info.dashboard}   log in with the token that `ray get-auth-token` prints")
        data = ray.put(prepared.data)
        work = Job(
            study=study,
            device=prepared.device,
            run=run,
            dataset=prepared.data.label,
            classes=len(prepared.data.classes),
            input_shape=prepared.input_shape,
            labelled=prepared.labelled,
            test_images=len(prepared.data.test_images),
            data=data,
            pretrained={name: _kept(run, name, model) for name, model in prepared.pretrained.items()},
            search_data=data if prepared.search_data is None else ray.put(prepared.search_data),
            info=info,
            workbench=start_workbench(info.measuring, prepared.device, compiles=study.compiled_variants)
            if measures
            else None,
            ledger=ledger,
            view=view,
        )
        with stopped_well(work):
            yield work


def _kept(run: Path, name: str, model: nn.Module) -> Path:
    path = copy_of_pretrained(run, name)
    if not path.exists():
        replace_file(path, lambda temporary: save_weights(model, Path(temporary)))
    return path


@contextlib.contextmanager
def mirrored(run: Path, bucket: Bucket | None, view: StudyView) -> Iterator[Callable[[], object]]:
    """Keep a run's folder in an object storage, if there is one; gives what sends up all that is new."""
    if bucket is None:
        yield lambda: None
        return
    mirror = Mirror(bucket, run, view.say)
    with mirror.held():
        yield mirror.push


@contextlib.contextmanager
def stopped_well(work: Job) -> Iterator[None]:
    """Say how to go on with a run that was interrupted (SIGINT or SIGTERM), or for which there was no room.

    Raises:
        InterruptedRunError, StudyFailedError: with that line.
    """
    storage = work.study.storage if is_uri(work.study.storage) else str(work.run.parent)
    how = f"--storage {shlex.quote(storage)} --name {work.run.name} --resume"
    try:
        with interruptible():
            yield
    except KeyboardInterrupt as error:
        end_at_the_next()
        work.view.say("Stopping; Ctrl-C once more stops at once")
        write_tables_so_far(work)
        raise InterruptedRunError(f"Stopped; the same command with {how} goes on") from error
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise StudyFailedError(
            f"no space is left for {work.run}; free some, then the same command with {how} goes on"
        ) from error


def write_tables(work: Job, finals: Sequence[TrialRecord] = (), measured: Collection[str] = ()) -> None:
    """The run's Parquet files, from its ledger.

    Args:
        finals: the rows of stage `final`. A resumed run may have new ones: those that are no longer finalists stay only
            in the ledger, and so do their epochs and measurements.
        measured: ids of other trials whose variants were measured.
    """
    searched = [t for t in work.ledger.read(TrialRecord) if t.stage != "final"]
    trials = [to_row(_with_weights_there(t, work.run)) for t in (*searched, *finals)]
    ids = {row["trial_id"] for row in trials}
    epochs = [row for row in work.ledger.rows(EpochRecord) if row["trial_id"] in ids]
    shown = {*ids, *measured}
    measured_rows = [r for r in work.ledger.read(LatencyRecord) if r.stage == "budget" or r.trial_id in shown]
    latency = [to_row(r) for r in summarised(measured_rows)]
    for name, record_type, rows in (
        ("trials.parquet", TrialRecord, trials),
        ("epochs.parquet", EpochRecord, epochs),
        ("latency.parquet", LatencyRecord, latency),
    ):
        write_rows(work.run / name, record_type, rows)
        note_checksums(work.run, [name])


def shown(work: Job, path: Path) -> str:
    """Where a user finds a file of the run."""
    name = str(path.relative_to(work.run))
    return f"{work.study.storage.rstrip('/')}/{work.run.name}/{name}" if is_uri(work.study.storage) else str(path)


def write_tables_so_far(work: Job) -> None:
    """The tables of a run that is not at its end: all that the ledger holds."""
    finals = [t for t in work.ledger.read(TrialRecord) if t.stage == "final"]
    write_tables(work, finals, {row["trial_id"] for row in work.ledger.rows(LatencyRecord)})


def best_before(study: StudyConfig, arm: Arm, model: str) -> dict[str, Any] | None:
    """The best trial of such a search in the run to start warm from, as a row; None where there is none."""
    if study.warm_start is None:
        return None
    trials = _trials_before(study.warm_start, study.storage)
    ended = [t for t in trials if (t.stage, t.model, t.status) == (arm, model, "ok")]
    return next((dataclasses.asdict(t) for t in ranked(ended)), None)


@functools.cache
def _trials_before(run: str, storage: str) -> list[TrialRecord]:
    """Read once, though each search asks: of a run in a bucket all is fetched."""
    return read_records(find_run(run, storage) / "trials.parquet", TrialRecord)


def _with_weights_there(trial: TrialRecord, run: Path) -> TrialRecord:
    """The trial without a path to weights that were removed since."""
    there = trial.checkpoint is not None and (run / trial.checkpoint).exists()
    return trial if there else dataclasses.replace(trial, checkpoint=None)


def chosen_finalists(finals: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Of each model and arm the best seed of the recipe that validates best on average over its seeds."""
    arms: dict[tuple[str, str], dict[str, list[TrialRecord]]] = {}
    for trial in ranked(finals):
        arms.setdefault((trial.model, trial.arm), {}).setdefault(recipe_of(trial.trial_id), []).append(trial)
    best = [max(recipes.values(), key=_standing) for recipes in arms.values()]
    return [seeds[0] for seeds in best]


def _standing(seeds: Sequence[TrialRecord]) -> tuple[int, float]:
    """A recipe with seeds that failed comes last: the others may have been lucky."""
    return len(seeds), float(np.mean([t.val_accuracy or 0.0 for t in seeds]))


def teacher_ref(work: Job, trials: Sequence[TrialRecord]) -> TeacherRef:
    """A teacher trial, and further seeds of its recipe, as the teacher of a search."""
    first, *others = (_weights(work, trial) for trial in trials)
    model = trials[0].model
    return TeacherRef(
        model=model,
        checkpoint=first.checkpoint,
        sha256=first.sha256,
        precision=answering_precision(model, work.device, work.input_shape[-1]),
        seeds=tuple(others),
        over_looks=work.study.teacher_answers == "views",
    )


def _weights(work: Job, trial: TrialRecord) -> Weights:
    assert trial.stage == TEACHER_ARM
    assert trial.checkpoint is not None
    assert trial.checkpoint_sha256 is not None
    return Weights(checkpoint=str(work.run / trial.checkpoint), sha256=trial.checkpoint_sha256)


def as_target(work: Job, trial: TrialRecord) -> Target:
    """A trial's best weights as what is evaluated and measured."""
    assert trial.checkpoint is not None
    assert trial.checkpoint_sha256 is not None
    return Target(
        trial_id=trial.trial_id,
        model=trial.model,
        arm=trial.arm,
        checkpoint=str(work.run / trial.checkpoint),
        checkpoint_sha256=trial.checkpoint_sha256,
        classes=work.classes,
    )


def with_start(work: Job, training: Training) -> Training:
    """The training with the weights that the user brought for its model, if any, and the arithmetic of its steps."""
    start = work.pretrained.get(training.model)
    return dataclasses.replace(
        training,
        start=None if start is None else str(start),
        start_sha256=None if start is None else sha256_file(start),
        precision=precision_of(work, training.model),
    )


def precision_of(work: Job, model: str) -> TrainPrecision:
    """The arithmetic in which this run trains a model."""
    return training_precision(work.study.recipe.precision, model, work.device, work.input_shape[-1])


def train_task(
    work: Job, stage: Stage, slots: Slots, template: Training | None = None, teacher: TeacherRef | None = None
) -> TrainTask:
    """What the trials of one of this run's steps have in common."""
    on_subset = stage in (PLAIN_ARM, DISTILL_ARM)
    return TrainTask(
        study=work.study,
        stage=stage,
        template=template,
        device=work.device,
        threads=slots.cpus,
        teacher=teacher,
        teacher_folder=str(work.run / "teacher_logits"),
        data=work.search_data if on_subset else work.data,
    )


def brought_teacher(teacher: TeacherRef, classes: int) -> Target:
    """The user's own teacher as what is evaluated and measured."""
    return Target(
        trial_id=f"{TEACHER_ARM}-{teacher.model}-given",
        model=teacher.model,
        arm=TEACHER_ARM,
        checkpoint=teacher.checkpoint,
        checkpoint_sha256=teacher.sha256,
        classes=classes,
    )
