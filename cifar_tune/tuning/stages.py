"""The stages of a run as Tune experiments: a search, and a grid of cells."""

from __future__ import annotations

import dataclasses
import errno
import math
import shlex
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.error import TuneError
from ray.tune.search import ConcurrencyLimiter

from cifar_tune.cli import StudyFailedError
from cifar_tune.config import StudyConfig
from cifar_tune.device import environment
from cifar_tune.ledger import Ledger
from cifar_tune.records import Environment, EpochRecord, TrialRecord
from cifar_tune.store import replace_file, sha256_file
from cifar_tune.tuning.cluster import LATENCY_SLOT, ClusterInfo, MeasuringNode, is_there
from cifar_tune.tuning.host import MeasureTask, ShipTask
from cifar_tune.tuning.loggers import loggers
from cifar_tune.tuning.metrics import epoch_ended, trial_ended
from cifar_tune.tuning.progress import StageView, StudyView, TrialEnd, TrialWatch
from cifar_tune.tuning.searcher import first_points, make_scheduler, make_searcher
from cifar_tune.tuning.trainables import TRAINABLES, Training, TrainTask
from cifar_tune.tuning.unfinished import BEST, LAST, METRIC, BegunTraining, begun_trainings

NODE_SECONDS = 5.0
RETRIES = 2
"""How often a training whose worker dies goes on from its last epoch."""
JOURNAL = "optuna.journal"
"""Optuna's studies of a run: `optuna-dashboard <run>/optuna.journal`."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Slots:
    """How many trials train at the same time, and what each holds."""

    concurrent: int
    cpus: int
    gpus: float

    @property
    def bundle(self) -> dict[str, float]:
        """What one trial holds, as Ray's resources."""
        return {"CPU": self.cpus, "GPU": self.gpus} if self.gpus else {"CPU": self.cpus}


def training_slots(study: StudyConfig, info: ClusterInfo, device: str, trials: int) -> Slots:
    """Share the nodes among trials: every core works, also when there are fewer trials than cores."""
    room = int(info.gpus / study.gpus_per_trial) if device == "cuda" else sum(min(n, 16) for n in info.node_cpus)
    wanted = study.concurrent_trials or room
    concurrent = max(1, min(wanted, trials, info.cpus))
    gpus = 1 / math.ceil(concurrent / info.gpus) if device == "cuda" else 0.0
    return Slots(concurrent=concurrent, cpus=cpus_each(info.node_cpus, concurrent), gpus=gpus)


def preparation_slots(study: StudyConfig, info: ClusterInfo, device: str, cells: int) -> Slots:
    """The same for what runs on the measuring node alone."""
    return training_slots(study, dataclasses.replace(info, node_cpus=(info.measuring.cpus,)), device, cells)


def cpus_each(node_cpus: Sequence[int], trials: int) -> int:
    """The most cores that each of as many trials can have at one time, each on one node."""
    fitting = [c for c in range(1, max(node_cpus) + 1) if sum(n // c for n in node_cpus) >= trials]
    return max(fitting, default=1)


def reuses_actors(study: StudyConfig) -> bool:
    """Whether trials follow each other in one process. Not where steps are compiled: dynamo gives up after a few models
    in one, and CUDA graphs stay with the thread of the trial that made them.
    """
    return not study.compile_step


def search(
    task: TrainTask,
    num_samples: int,
    slots: Slots,
    run: Path,
    dataset: str,
    ledger: Ledger,
    view: StudyView,
    earlier: Mapping[str, Any] | None = None,
) -> list[TrialRecord]:
    """Run one arm's search for one model, less what the ledger holds; returns all its trials.

    Args:
        earlier: the best point of an earlier run, tried after the authors' defaults.
    """
    assert task.template is not None, "a search has a template"
    study, arm, model, epochs = task.study, task.template.arm, task.template.model, task.template.epochs
    teacher = task.teacher_sha256(task.template)
    finished = ledger.trials(arm, model, teacher)
    missing = num_samples - len(finished)
    if missing <= 0:
        return finished
    begun = [b for b in unfinished(run, ledger) if b.trial_id == trial_id_of(task, b.sample)]
    task = dataclasses.replace(task, begun={b.trial_id: b for b in begun})
    stage_view = view.stage(f"{arm} {model}", missing * epochs, "epochs")
    first = first_points(study, arm, finished, [b.sample for b in begun], earlier)
    ids = {t.trial_id for t in finished}
    history = [e for e in ledger.read(EpochRecord) if e.trial_id in ids]
    name = f"{run.name} {arm} {model}"
    searcher = make_searcher(study, arm, finished, first, run / JOURNAL, name)
    fit(
        tune.with_parameters(TRAINABLES[task.stage], task=task),
        run,
        name=f"{arm}-{model}-{len(finished)}",
        bundle=slots.bundle,
        tune_config=tune.TuneConfig(
            num_samples=missing,
            search_alg=ConcurrencyLimiter(searcher, max_concurrent=slots.concurrent),
            # the scheduler takes metric and mode from here, the searcher needs its own copy
            scheduler=make_scheduler(study, arm, history),
            reuse_actors=reuses_actors(study),
        ),
        watch=TrialKeeper(task, run, dataset, ledger, stage_view).watch(),
        verbose=study.verbose,
        retries=RETRIES,
        log=study.log,
    )
    stage_view.end()
    forget_ended(run, ledger)
    trials = ledger.trials(arm, model, teacher)
    if searcher.exhausted:
        view.say(f"{arm} {model}: the space holds no more than {len(trials)} different trials")
    elif len(trials) < num_samples:
        raise StudyFailedError(f"{arm} {model} ended with {len(trials)} of {num_samples} trials; --resume goes on")
    return trials


def retrain(
    task: TrainTask,
    trainings: Sequence[Training],
    slots: Slots,
    run: Path,
    dataset: str,
    ledger: Ledger,
    view: StudyView,
    name: str = "finalists",
) -> list[TrialRecord]:
    """Train finalists, less what the ledger holds; returns them in the order of `trainings`."""
    done = {r.trial_id for r in ledger.read(TrialRecord)}
    missing = [t for t in trainings if task.trial_id(t) not in done]
    if missing:
        task = dataclasses.replace(task, begun={b.trial_id: b for b in unfinished(run, ledger)})
        stage_view = view.stage(name, sum(t.epochs for t in missing), "epochs")
        fit(
            tune.with_parameters(TRAINABLES[task.stage], task=task),
            run,
            name=name,
            bundle=slots.bundle,
            tune_config=tune.TuneConfig(reuse_actors=reuses_actors(task.study)),
            param_space={"cell": tune.grid_search([dataclasses.asdict(t) for t in missing])},
            watch=TrialKeeper(task, run, dataset, ledger, stage_view).watch(),
            verbose=task.study.verbose,
            retries=RETRIES,
            log=task.study.log,
        )
        stage_view.end()
        forget_ended(run, ledger)
    trials = {r.trial_id: r for r in ledger.read(TrialRecord)}
    return [trials[task.trial_id(t)] for t in trainings]


def unfinished(run: Path, ledger: Ledger) -> list[BegunTraining]:
    """The trainings that a driver that died has begun, and not ended."""
    ended = {r.trial_id for r in ledger.read(TrialRecord)}
    return [b for b in begun_trainings(run / "ray").values() if b.trial_id not in ended]


def forget_ended(run: Path, ledger: Ledger) -> None:
    """Remove what the trials that have ended left to go on from."""
    open_folders = {b.folder for b in unfinished(run, ledger)}
    for folder in (run / "ray").glob("*/*/checkpoint_*"):
        if str(folder) not in open_folders:
            shutil.rmtree(folder, ignore_errors=True)


def ranked(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The trials that have weights, best first: by validation accuracy, those that ran to their end before others.

    Among equals the name decides, not the order they are given in: as trials end, it says whose weights are kept, and
    later whose are used.
    """
    scored = [t for t in trials if t.val_accuracy is not None and t.checkpoint and t.status != "failed"]
    return sorted(scored, key=lambda t: (t.status != "ok", -(t.val_accuracy or 0.0), t.trial_id))


class TrialKeeper:
    """Turns training trials into records, and keeps their weights, as they end."""

    def __init__(self, task: TrainTask, run: Path, dataset: str, ledger: Ledger, view: StageView) -> None:
        self._task, self._run, self._dataset, self._ledger, self._view = task, run, dataset, ledger, view
        self._epochs: dict[str, int] = {}
        template = task.template
        before = [] if template is None else ledger.trials(template.arm, template.model, task.teacher_sha256(template))
        self._best = max((t.val_accuracy or 0.0 for t in before), default=0.0)
        self._weights_of = before
        """The trials of this search whose weights are kept."""
        self._forget_losers()

    def watch(self) -> TrialWatch:
        """As what Tune calls."""
        return TrialWatch(self._report, self._end)

    def _report(self, tune_id: str, trial_config: dict[str, Any], metrics: dict[str, Any]) -> None:
        """Show an epoch of a trial."""
        before = self._epochs.get(tune_id, 0)
        # a worker that died before its checkpoint was kept reports that epoch again
        self._epochs[tune_id] = max(before, metrics["epoch"])
        self._best = max(self._best, metrics[METRIC])
        self._view.advance(self._epochs[tune_id] - before, best=f"best val {self._best:.1%}")
        if metrics["note"]:
            self._view.say_once(metrics["note"])
        config = self._task.training(trial_config)
        for row in metrics["rows"][-1:]:
            epoch_ended(self._run.name, self._task.stage, config.model, self._task.trial_id(config), row)

    def _end(self, trial: TrialEnd) -> None:
        """Make a trial that has ended durable; what it left to go on from goes only then."""
        if trial.metrics.get("disk_full"):  # no fault of the trial's, which is to run again
            raise OSError(errno.ENOSPC, trial.metrics["failure"])
        trial_id = self._task.trial_id(self._task.training(trial.config))
        epochs = [EpochRecord(trial_id=trial_id, **row) for row in trial.metrics.get("rows", [])]
        record = self._record(trial_id, trial, epochs)
        if record.status == "failed":
            self._keep_traceback(trial_id, trial)
        self._ledger.put_trial(record, epochs)
        trial_ended(record)
        if trial.checkpoint is not None:
            shutil.rmtree(trial.checkpoint, ignore_errors=True)
        self._weights_of.append(record)
        self._forget_losers()

    def _record(self, trial_id: str, trial: TrialEnd, epochs: list[EpochRecord]) -> TrialRecord:
        task, metrics = self._task, trial.metrics
        training = task.training(trial.config)
        there = metrics.get("environment")  # of the node that trained; none where it never said a word
        error = trial.error or metrics.get("failure")
        # what the worker was told, so that its defaults are recorded too
        config = training.config(task.study)
        checkpoint = self._keep_weights(trial_id, trial.checkpoint)
        return TrialRecord(
            run=self._run.name,
            trial_id=trial_id,
            stage=task.stage,
            arm=config.arm,
            model=config.model,
            dataset=self._dataset,
            status="failed" if error else "ok" if len(epochs) == config.epochs else "pruned",
            error=error,
            note=metrics.get("note"),
            optimizer=config.optimizer,
            lr=config.lr,
            schedule=config.schedule,
            temperature=config.temperature if config.distils else None,
            alpha=config.alpha,
            weight_decay=config.weight_decay,
            batch_size=config.batch_size,
            epochs=config.epochs,
            epochs_run=len(epochs),
            seed=config.seed,
            val_accuracy=max((e.val_accuracy for e in epochs), default=None),
            started_at=metrics.get("started_at"),
            train_seconds=metrics.get("train_seconds"),
            precision=metrics.get("precision"),
            parameters=metrics.get("parameters"),
            checkpoint=str(checkpoint.relative_to(self._run)) if checkpoint else None,
            checkpoint_sha256=sha256_file(checkpoint) if checkpoint else None,
            teacher_sha256=task.teacher_sha256(training),
            start_sha256=training.start_sha256,
            environment=Environment(**there) if there else environment(task.device),
        )

    def _keep_weights(self, trial_id: str, source: Path | None) -> Path | None:
        """Copy the best and the last weights from Tune's folder into the run's."""
        if source is None:
            return None
        folder = weights_folder(self._run, trial_id)
        for name in (BEST, LAST):
            replace_file(folder / name, lambda temporary, name=name: shutil.copyfile(source / name, temporary))
        return folder / BEST

    def _keep_traceback(self, trial_id: str, trial: TrialEnd) -> None:
        """The whole of what the row says in a line, and how to see it again."""
        again = f"python -m cifar_tune train --run {shlex.quote(str(self._run))} --trial {trial_id}"
        text = f"The trial alone:\n\n    {again}\n\n{trial.traceback or trial.metrics.get('traceback')}\n"
        replace_file(self._run / "errors" / f"{trial_id}.txt", lambda temporary: Path(temporary).write_text(text))

    def _forget_losers(self) -> None:
        """Remove the weights of a search's trials that can be a finalist or the teacher no more."""
        if self._task.template is None:
            return
        best = ranked(self._weights_of)[: self._task.study.kept_trials(self._task.stage)]
        for trial in self._weights_of:
            if trial not in best:
                shutil.rmtree(weights_folder(self._run, trial.trial_id), ignore_errors=True)
        self._weights_of = best


def weights_folder(run: Path, trial_id: str) -> Path:
    """Where a trial's weights are kept."""
    return run / "checkpoints" / trial_id


def run_cells(
    trainable: Callable[..., None],
    host: Any,
    task: MeasureTask | ShipTask,
    cells: Sequence[dict[str, Any]],
    bundle: dict[str, float],
    run: Path,
    name: str,
    view: StudyView,
    keep: Callable[[dict[str, Any], dict[str, Any] | None, str | None], str],
    *,
    node: MeasuringNode,
    verbose: bool,
) -> None:
    """Run one trial a cell of a grid.

    Args:
        host: what the trials ask.
        keep: called with the cell, its record as a row (None: the worker died) and the error, as each trial ends;
            returns what to show beside the progress bar.
        node: where they run.

    Raises StudyFailedError when that node is lost: figures of one run come from one machine.
    """
    if not cells:
        return
    stage_view = view.stage(name, len(cells), "cells")

    def on_end(trial: TrialEnd) -> None:
        shown = keep(trial.config["cell"], trial.metrics.get("record"), trial.error)
        stage_view.advance(best=shown)

    fit(
        # in a list the reference stays one: the trials need not know what they hand on
        tune.with_parameters(trainable, host=host, task=[ray.put(task)]),
        run,
        name=name.replace(" ", "-"),
        bundle=bundle,
        tune_config=tune.TuneConfig(reuse_actors=True),
        param_space={"cell": tune.grid_search(list(cells))},
        watch=TrialWatch(None, on_end, NodeWatch(node)),
        verbose=verbose,
    )
    stage_view.end()


class NodeWatch:
    """Looks, now and then, whether the measuring node is still there: what waits for another would wait for ever."""

    def __init__(self, node: MeasuringNode) -> None:
        self._node, self._looked = node, time.monotonic()

    def __call__(self) -> None:
        """Raises StudyFailedError where it is not."""
        if time.monotonic() - self._looked < NODE_SECONDS:
            return
        self._looked = time.monotonic()
        if not is_there(self._node):
            raise StudyFailedError("the node that measures is lost; --resume goes on with another of its kind")


def trial_id_of(task: TrainTask, sample: dict[str, Any]) -> str:
    """The name that a point of the space gives a trial of a search."""
    return task.trial_id(task.training(sample))


def exclusive_bundle(info: ClusterInfo, device: str) -> dict[str, float]:
    """What a measurement holds: the node's slot, and its GPU or, without one, all its CPUs."""
    cpus = info.measuring.cpus
    held = {"CPU": min(4, cpus), "GPU": 1} if device == "cuda" else {"CPU": cpus}
    return {**held, LATENCY_SLOT: 1, **info.measuring.touch}


def fit(
    trainable: Callable[..., None],
    run: Path,
    *,
    name: str,
    bundle: dict[str, float],
    tune_config: tune.TuneConfig,
    watch: TrialWatch,
    verbose: bool,
    param_space: dict[str, Any] | None = None,
    retries: int = 0,
    log: Sequence[str] = (),
) -> None:
    """Run one Tune experiment in `<run>/ray/<name>` to its end.

    Args:
        retries: how often a trial whose worker dies goes on from its last checkpoint.
        log: names of LOGGERS.
    """
    storage = run.absolute() / "ray"
    tuner = tune.Tuner(
        tune.with_resources(trainable, tune.PlacementGroupFactory([bundle])),
        param_space=param_space,
        tune_config=tune_config,
        run_config=tune.RunConfig(
            name=name,
            storage_path=str(storage),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
            failure_config=tune.FailureConfig(max_failures=retries),
            callbacks=[watch, *loggers(log, run)],
            verbose=2 if verbose else 0,
        ),
    )
    try:
        tuner.fit()
    except TuneError as error:
        if watch.trouble is not None:
            raise watch.trouble from error
        raise
