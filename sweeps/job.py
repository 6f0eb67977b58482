"""What the sweeps share: checking what a user asks for, opening a run, and writing its tables."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fcntl
import json
import os
import shlex
import socket
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from analysis.frames import load_run
from cifar_tune import cli
from cifar_tune.config import DISTILL_ARM, PLAIN_ARM, TEACHER_ARM, StudyConfig, check
from cifar_tune.data import ImageData, describe, load, subset
from cifar_tune.device import environment, resolve_device
from cifar_tune.ledger import Ledger
from cifar_tune.models import architecture, trained_on
from cifar_tune.presets import PRESETS
from cifar_tune.records import EpochRecord, LatencyRecord, Stage, TrialRecord
from cifar_tune.runtimes import RUNTIMES
from cifar_tune.schedules import schedule
from cifar_tune.store import replace_file, schema
from cifar_tune.subjects import Subject
from cifar_tune.teacher import TeacherRef, load_model
from cifar_tune.tuning.cluster import ClusterInfo, cluster
from cifar_tune.tuning.progress import StudyView
from cifar_tune.tuning.stages import Slots, sha256_file
from cifar_tune.tuning.trainables import Training, TrainTask

TABLES: dict[str, type] = {
    "trials.parquet": TrialRecord,
    "epochs.parquet": EpochRecord,
    "latency.parquet": LatencyRecord,
}
FINAL_STAGES = ("final", "grid", "confirm")
CHANGEABLE_ON_RESUME = (
    "resume",
    "verbose",
    "num_samples",
    "teacher_samples",
    "final_top",
    "final_seeds",
    "warm_start",
    "students",
    "address",
    "dashboard",
    "storage",
    "concurrent_trials",
    "gpus_per_trial",
    "preset",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A study that has passed every check; nothing is written yet."""

    study: StudyConfig
    device: str
    data: ImageData
    run: Path
    teacher: TeacherRef | None
    """The teacher that the user brings."""
    search_data: ImageData | None = None
    """What the students' search trains on; None: all of the data."""
    labelled: bool = True
    """Whether the images have labels; else there is no accuracy."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        height, width, channels = self.data.test_images.shape[1:]
        return channels, height, width


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A run at work: its folder, its cluster and its data there."""

    study: StudyConfig
    device: str
    run: Path
    about_data: dict[str, object]
    classes: int
    input_shape: tuple[int, int, int]
    """Channels, height, width."""
    labelled: bool
    """Whether the images have labels; else there is no accuracy."""
    data: ray.ObjectRef
    search_data: ray.ObjectRef
    """What the students' search trains on: all of the data, or its subset."""
    info: ClusterInfo
    ledger: Ledger
    view: StudyView


def parse_study(argv: Sequence[str], prog: str, description: str) -> StudyConfig:
    """A StudyConfig from flags. The preset is read first: it gives the defaults of all other flags."""
    name = _preset_of(argv)
    if name not in PRESETS:
        cli.fail(f"preset {name!r} is unknown; allowed are {', '.join(PRESETS)}")
    return cli.parse(StudyConfig, argv, default=PRESETS[name], prog=prog, description=description)


def _preset_of(argv: Sequence[str]) -> str:
    for position, argument in enumerate(argv):
        if argument == "--preset" and position + 1 < len(argv):
            return argv[position + 1]
        if argument.startswith("--preset="):
            return argument.split("=", 1)[1]
    return "gpu" if resolve_device("auto") == "cuda" else "cpu"


def prepare(study: StudyConfig) -> Prepared:
    """Check everything that can be checked before anything is written. UsageError says what to change."""
    with cli.user_input():
        return _checked(study)


def _checked(study: StudyConfig) -> Prepared:
    for model in (study.teacher, *study.students):
        architecture(model)
    for name in study.schedules:
        schedule(name)
    check_runtimes(study)
    device = resolve_device(study.device)
    run = run_folder(study)
    data = load(study.data_config(), study.data_dir)
    most = study.search_images
    searched = None if most is None or most >= len(data.train_images) else subset(data, most, study.seed)
    teacher = _teacher_given(study, data)
    if study.warm_start is not None:
        load_run(study.warm_start, study.storage)
    return Prepared(study=study, device=device, data=data, run=run, teacher=teacher, search_data=searched)


def check_runtimes(study: StudyConfig) -> None:
    """ValueError lists the runtimes that there are."""
    for name in study.runtimes or ():
        check(name in RUNTIMES, "runtime", name, ", ".join(RUNTIMES))


def _teacher_given(study: StudyConfig, data: ImageData) -> TeacherRef | None:
    if study.teacher_checkpoint is None:
        return None
    path = Path(study.teacher_checkpoint)
    check(path.is_file(), "teacher checkpoint", str(path), "an existing safetensors file")
    load_model(study.teacher, len(data.classes), path)
    mark = trained_on(path)
    if mark not in (None, data.fingerprint) and not study.teacher_from_other_data:
        raise ValueError(
            f"teacher checkpoint {path} was trained on other data (fingerprint {mark[:12]}) than this study's "
            f"({data.fingerprint[:12]}); --teacher-from-other-data takes it all the same"
        )
    return TeacherRef(model=study.teacher, checkpoint=str(path.absolute()), sha256=sha256_file(path))


def run_folder(study: StudyConfig) -> Path:
    """Where the run is or will be. ValueError where it exists, does not exist, or cannot be written."""
    check("://" not in study.storage, "storage", study.storage, "a folder of this machine")
    storage = Path(study.storage).absolute()
    _check_writable(storage)
    if study.name is None:
        check(not study.resume, "resume", True, "only with --name RUN, the run to go on with")
        now = datetime.datetime.now(datetime.UTC)
        data = Path(study.data).resolve().name or "data"
        data = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in data).lstrip(".") or "data"
        return storage / f"{data}-{study.preset}-{now:%Y%m%dT%H%M%S}Z"
    run = storage / study.name
    if study.resume:
        check((run / "study.json").is_file(), "name", study.name, f"with --resume, a run in {storage}")
        _check_same_study(run, study)
    elif run.exists():
        raise ValueError(f"run {study.name} exists in {storage}; go on with it by --resume, or choose another --name")
    return run


def _check_writable(storage: Path) -> None:
    nearest = storage
    while not nearest.exists():
        nearest = nearest.parent
    writable = nearest.is_dir() and os.access(nearest, os.W_OK)
    check(writable, "storage", str(storage), "a folder that can be written")


def _check_same_study(run: Path, study: StudyConfig) -> None:
    """ValueError names the options that differ from the run's own and would change its results."""
    before = json.loads((run / "study.json").read_text())["config"]
    now = json.loads(json.dumps(dataclasses.asdict(study)))
    changed = [k for k in now if k not in CHANGEABLE_ON_RESUME and k in before and now[k] != before[k]]
    if changed:
        what = "; ".join(f"{k} was {before[k]!r}, is {now[k]!r}" for k in changed)
        raise ValueError(f"--resume cannot change what would change results: {what}")


@contextlib.contextmanager
def job(prepared: Prepared) -> Iterator[Job]:
    """Start or join the cluster, put the data there once, and create the run's folder."""
    study, run = prepared.study, prepared.run
    with sole_writer(run), cluster(study) as info, StudyView() as view:
        about = {**describe(prepared.data), "labelled": prepared.labelled}
        _write_study(run, study, prepared.device, about)
        if info.dashboard:
            view.say(f"Ray dashboard: {info.dashboard}   log in with the token that `ray get-auth-token` prints")
        data = ray.put(prepared.data)
        work = Job(
            study=study,
            device=prepared.device,
            run=run,
            about_data=about,
            classes=len(prepared.data.classes),
            input_shape=prepared.input_shape,
            labelled=prepared.labelled,
            data=data,
            search_data=data if prepared.search_data is None else ray.put(prepared.search_data),
            info=info,
            ledger=Ledger(run),
            view=view,
        )
        try:
            yield work
        except KeyboardInterrupt as error:
            how = f"--storage {shlex.quote(str(run.parent))} --name {run.name} --resume"
            raise cli.InterruptedRunError(f"Stopped; the same command with {how} goes on") from error


@contextlib.contextmanager
def sole_writer(run: Path) -> Iterator[None]:
    """Hold the run's folder, which is made: no other driver may write there. The lock ends with its process.

    Raises:
        UsageError: another driver holds it; the message says which.
    """
    run.mkdir(parents=True, exist_ok=True)
    with (run / "driver.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise cli.UsageError(f"run {run.name} is being written by {file.read().strip()}") from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def _write_study(run: Path, study: StudyConfig, device: str, about_data: dict[str, object]) -> None:
    path = run / "study.json"
    # a resumed run keeps the moment and the command that it was begun with
    begun = json.loads(path.read_text()) if path.exists() else {
        "created_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", *sys.argv]),
    }  # fmt: skip
    content = {
        "format": 1,
        "run": run.name,
        "created_utc": begun["created_utc"],
        "command": begun["command"],
        "config": dataclasses.asdict(study),
        "environment": dataclasses.asdict(environment(device)),
        "data": about_data,
    }
    text = json.dumps(content, indent=2) + "\n"
    replace_file(path, lambda temporary: Path(temporary).write_text(text))


def write_tables(work: Job, finalists: Collection[str]) -> None:
    """The run's Parquet files, from its ledger.

    Args:
        finalists: trial ids. A resumed run may have new ones: rows of those that are finalists no more stay in the
            ledger alone.
    """
    for name, record_type in TABLES.items():
        rows = work.ledger.table(record_type).to_pylist()
        kept = [row for row in rows if not _is_of_finalist(row) or row["trial_id"] in finalists]
        table = pa.Table.from_pylist(kept, schema=schema(record_type))
        path = work.run / name
        replace_file(path, lambda temporary, table=table: pq.write_table(table, temporary, compression="zstd"))


def _is_of_finalist(row: dict[str, Any]) -> bool:
    return row.get("stage") in FINAL_STAGES or row["trial_id"].startswith("final-")


def best_trials(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The trials that have weights, the best by validation accuracy first; of equals, the earlier."""
    scored = [t for t in trials if t.val_accuracy is not None and t.checkpoint and t.status != "failed"]
    return sorted(scored, key=lambda t: -(t.val_accuracy or 0.0))


def chosen_finalists(finals: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Of each model and arm the best seed of the recipe that validates best on average over its seeds."""
    arms: dict[tuple[str, str], dict[str, list[TrialRecord]]] = {}
    for trial in best_trials(finals):
        recipe = trial.trial_id.rsplit("-seed", 1)[0]
        arms.setdefault((trial.model, trial.arm), {}).setdefault(recipe, []).append(trial)
    best = [max(recipes.values(), key=_standing) for recipes in arms.values()]
    return [seeds[0] for seeds in best]


def _standing(seeds: Sequence[TrialRecord]) -> tuple[int, float]:
    """A recipe with seeds that failed comes last: the others may have been lucky."""
    return len(seeds), float(np.mean([t.val_accuracy or 0.0 for t in seeds]))


def teacher_ref(run: Path, trial: TrialRecord) -> TeacherRef:
    """A teacher trial as the teacher of a search."""
    assert trial.stage == TEACHER_ARM
    assert trial.checkpoint is not None
    assert trial.checkpoint_sha256 is not None
    return TeacherRef(model=trial.model, checkpoint=str(run / trial.checkpoint), sha256=trial.checkpoint_sha256)


def as_subject(work: Job, trial: TrialRecord) -> Subject:
    """A trial's best weights as what is evaluated and measured."""
    assert trial.checkpoint is not None
    assert trial.checkpoint_sha256 is not None
    return Subject(
        trial_id=trial.trial_id,
        model=trial.model,
        arm=trial.arm,
        checkpoint=str(work.run / trial.checkpoint),
        checkpoint_sha256=trial.checkpoint_sha256,
        classes=work.classes,
    )


def train_task(
    work: Job, stage: Stage, slots: Slots, template: Training | None = None, teacher: TeacherRef | None = None
) -> TrainTask:
    """What the trials of one of this run's stages have in common."""
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


def brought_teacher(teacher: TeacherRef, classes: int) -> Subject:
    """The user's own teacher as what is evaluated and measured."""
    return Subject(
        trial_id=f"{TEACHER_ARM}-{teacher.model}-given",
        model=teacher.model,
        arm=TEACHER_ARM,
        checkpoint=teacher.checkpoint,
        checkpoint_sha256=teacher.sha256,
        classes=classes,
    )
