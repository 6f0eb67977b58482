"""The stages of a run as Tune experiments: a search, and a grid of cells."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.error import TuneError
from ray.tune.search import ConcurrencyLimiter

from cifar_tune.errors import StudyFailedError
from cifar_tune.records import EpochRecord, TrialRecord
from cifar_tune.runs.ledger import Ledger
from cifar_tune.study import StudyConfig
from cifar_tune.tuning.cluster import MeasuringNode, is_there
from cifar_tune.tuning.keeper import TrialKeeper
from cifar_tune.tuning.loggers import loggers
from cifar_tune.tuning.progress import StudyView, TrialEnd, TrialWatch
from cifar_tune.tuning.searcher import first_points, make_scheduler, make_searcher
from cifar_tune.tuning.slots import Slots
from cifar_tune.tuning.trainables import TRAINABLES, Training, TrainTask
from cifar_tune.tuning.unfinished import BegunTraining, begun_trainings
from cifar_tune.tuning.workbench import MeasureTask, ShipTask

NODE_SECONDS = 5.0
RETRIES = 2
"""How often a training whose worker dies goes on from its last epoch."""
JOURNAL = "optuna.journal"
"""Optuna's studies of a run: `optuna-dashboard <run>/optuna.journal`."""


def reuses_actors(study: StudyConfig) -> bool:
    """Whether trials follow each other in one process. Not where steps are compiled: dynamo gives up after a few models
    in one, and CUDA graphs stay with the thread of the trial that made them.
    """
    return not study.recipe.compile_step


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
    step_view = view.step(f"{arm} {model}", missing * epochs, "epochs")
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
        watch=TrialKeeper(task, run, dataset, ledger, step_view).watch(),
        verbose=study.verbose,
        retries=RETRIES,
        log=study.log,
    )
    step_view.end()
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
        step_view = view.step(name, sum(t.epochs for t in missing), "epochs")
        fit(
            tune.with_parameters(TRAINABLES[task.stage], task=task),
            run,
            name=name,
            bundle=slots.bundle,
            tune_config=tune.TuneConfig(reuse_actors=reuses_actors(task.study)),
            param_space={"cell": tune.grid_search([dataclasses.asdict(t) for t in missing])},
            watch=TrialKeeper(task, run, dataset, ledger, step_view).watch(),
            verbose=task.study.verbose,
            retries=RETRIES,
            log=task.study.log,
        )
        step_view.end()
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


def run_cells(
    trainable: Callable[..., None],
    workbench: Any,
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
        workbench: what the trials ask.
        keep: called with the cell, its record as a row (None: the worker died) and the error, as each trial ends;
            returns what to show beside the progress bar.
        node: where they run.

    Raises StudyFailedError when that node is lost: figures of one run come from one machine.
    """
    if not cells:
        return
    step_view = view.step(name, len(cells), "cells")

    def on_end(trial: TrialEnd) -> None:
        shown = keep(trial.config["cell"], trial.metrics.get("record"), trial.error)
        step_view.advance(best=shown)

    fit(
        # in a list the reference stays one: the trials need not know what they hand on
        tune.with_parameters(trainable, workbench=workbench, task=[ray.put(task)]),
        run,
        name=name.replace(" ", "-"),
        bundle=bundle,
        tune_config=tune.TuneConfig(reuse_actors=True),
        param_space={"cell": tune.grid_search(list(cells))},
        watch=TrialWatch(None, on_end, NodeWatch(node)),
        verbose=verbose,
    )
    step_view.end()


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
